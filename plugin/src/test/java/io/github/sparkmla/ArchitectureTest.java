package io.github.sparkmla;

import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.noClasses;
import static com.tngtech.archunit.library.Architectures.layeredArchitecture;

import com.tngtech.archunit.core.domain.JavaClasses;
import com.tngtech.archunit.core.importer.ClassFileImporter;
import com.tngtech.archunit.core.importer.ImportOption;
import org.junit.jupiter.api.Test;

/** Dependencies point one way: spark -> engine -> model -> checkpoint, tensor -> natives. */
class ArchitectureTest {
    private static final JavaClasses CLASSES = new ClassFileImporter(
                    java.util.List.of(new ImportOption.DoNotIncludeTests()))
            .importPackages("io.github.sparkmla");

    @Test
    void layersPointDownwards() {
        layeredArchitecture()
                .consideringOnlyDependenciesInLayers()
                .layer("spark")
                .definedBy("io.github.sparkmla.spark..")
                .layer("engine")
                .definedBy("io.github.sparkmla.engine..")
                .layer("model")
                .definedBy("io.github.sparkmla.model..")
                .layer("checkpoint")
                .definedBy("io.github.sparkmla.checkpoint..")
                .layer("tensor")
                .definedBy("io.github.sparkmla.tensor..")
                .layer("natives")
                .definedBy("io.github.sparkmla.natives..")
                .whereLayer("spark")
                .mayNotBeAccessedByAnyLayer()
                .whereLayer("engine")
                .mayOnlyBeAccessedByLayers("spark")
                .whereLayer("model")
                .mayOnlyBeAccessedByLayers("engine")
                .whereLayer("checkpoint")
                .mayOnlyBeAccessedByLayers("spark", "engine", "model")
                .whereLayer("tensor")
                .mayOnlyBeAccessedByLayers("engine", "model")
                .whereLayer("natives")
                .mayOnlyBeAccessedByLayers("tensor")
                .check(CLASSES);
    }

    @Test
    void onlyTheSparkLayerKnowsSpark() {
        noClasses()
                .that()
                .resideOutsideOfPackage("io.github.sparkmla.spark..")
                .should()
                .dependOnClassesThat()
                .resideInAPackage("org.apache.spark..")
                .check(CLASSES);
    }
}
