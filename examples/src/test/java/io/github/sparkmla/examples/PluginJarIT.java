package io.github.sparkmla.examples;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.jar.JarFile;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;

/** What is in the one jar that users pass to Spark. */
class PluginJarIT {
    private static List<String> files() throws IOException {
        try (JarFile jar = new JarFile(Repository.PLUGIN_JAR.toFile())) {
            return jar.stream()
                    .filter(entry -> !entry.isDirectory())
                    .map(entry -> entry.getName())
                    .toList();
        }
    }

    @Test
    void classesAreOursOrMovedOutOfTheWay() throws IOException {
        Set<String> roots = files().stream()
                .filter(name -> name.endsWith(".class"))
                .map(name -> String.join("/", List.of(name.split("/")).subList(0, 3)))
                .collect(Collectors.toCollection(TreeSet::new));
        roots.removeIf(root -> root.startsWith("ai/djl/") || root.startsWith("org/bytedeco/javacpp"));
        assertEquals(Set.of("io/github/sparkmla"), roots);
    }

    @Test
    void nativeCodeIsForLinuxAlone() throws IOException {
        Set<String> expected = new TreeSet<>(Set.of(
                "io/github/sparkmla/natives/linux-x86_64/libjniMla.so",
                "io/github/sparkmla/natives/linux-x86_64/libmla.so",
                "native/lib/linux-x86_64/cpu/libtokenizers.so"));
        // Built wherever nvcc was found; CI always has one.
        if (System.getenv("CI") != null
                || Files.exists(Repository.ROOT.resolve("native/target/native/libmla_cuda.so"))) {
            expected.add("io/github/sparkmla/natives/linux-x86_64/libmla_cuda.so");
        }
        assertEquals(
                expected,
                files().stream()
                        .filter(name -> name.matches(".*\\.(so|dll|dylib)(\\.[0-9.]+)?"))
                        .collect(Collectors.toCollection(TreeSet::new)));
    }

    @Test
    void everythingElseThatSparkAndPythonLookForIsThere() throws IOException {
        List<String> files = files();
        for (String needed : List.of(
                "META-INF/LICENSE",
                "META-INF/NOTICE",
                "META-INF/services/org.apache.spark.ml.Transformer",
                "META-INF/services/org.apache.spark.sql.SparkSessionExtensionsProvider",
                "sparkmla/__init__.py",
                "sparkmla/generator.py")) {
            assertTrue(files.contains(needed), needed);
        }
        assertEquals(files.size(), Set.copyOf(files).size(), "no entry twice");
    }
}
