package io.github.sparkmla.examples;

import io.github.sparkmla.engine.EngineSettings;
import io.github.sparkmla.engine.EngineSettings.LoadFormat;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** The command line of {@link DecodeBenchmark}. */
final class BenchmarkOptions {
    static final String USAGE = """
            DecodeBenchmark --config FOLDER [options]
              --config FOLDER         with config.json, for example examples/benchmarks/shapes/deepseek-v2-lite
              --load-format FORMAT    dummy (default) or safetensors
              --device DEVICE         cuda (default), cpu or auto
              --ordinal N             which GPU (0)
              --batch N,N,...         sequences in flight (256,512,1024)
              --requests N            prompts a batch size (0: as many as the batch)
              --prompt-tokens N       (256)
              --output-tokens N       of every request (256)
              --log-normal            prompt lengths are log-normal with this mean, sigma 0.6
              --prefill-tokens N      also measures prompts of this length alone (4096; 0: does not)
              --prefill-prompts N     how many of them (32)
              --max-batch-tokens N    most tokens a step (8192)
              --kv-bytes N            of the KV cache (0: by --memory-fraction)
              --memory-fraction F     of the free GPU memory (0.9)
              --deterministic         rows do not depend on each other, bit for bit
              --no-graphs             decode steps run call by call
              --profile               also times one step of each kind by operation
              --read-gbps F           measured read ceiling of the memory, for the floor (3060: H100 80GB HBM3)
              --matmul-tflops F       measured ceiling of a BF16 product (780: the same)
              --threads N             of the CPU (0: all)
              --seed N                of prompt tokens and lengths (1)
            """;

    private static final Map<String, String> DEFAULTS = Map.ofEntries(
            Map.entry("load-format", "dummy"),
            Map.entry("device", "cuda"),
            Map.entry("ordinal", "0"),
            Map.entry("batch", "256,512,1024"),
            Map.entry("requests", "0"),
            Map.entry("prompt-tokens", "256"),
            Map.entry("output-tokens", "256"),
            Map.entry("prefill-tokens", "4096"),
            Map.entry("prefill-prompts", "32"),
            Map.entry("max-batch-tokens", "8192"),
            Map.entry("kv-bytes", "0"),
            Map.entry("memory-fraction", "0.9"),
            Map.entry("read-gbps", "3060"),
            Map.entry("matmul-tflops", "780"),
            Map.entry("threads", "0"),
            Map.entry("seed", "1"));
    private static final List<String> FLAGS = List.of("log-normal", "deterministic", "no-graphs", "profile");

    private final Map<String, String> values = new LinkedHashMap<>(DEFAULTS);

    /** Throws IllegalArgumentException with what is wrong. */
    BenchmarkOptions(String... args) {
        for (int i = 0; i < args.length; i++) {
            String name = args[i].startsWith("--") ? args[i].substring(2) : "";
            if (FLAGS.contains(name)) {
                values.put(name, "true");
            } else if (name.equals("config") || DEFAULTS.containsKey(name)) {
                if (i + 1 == args.length) {
                    throw new IllegalArgumentException(args[i] + " needs a value");
                }
                values.put(name, args[++i]);
            } else {
                throw new IllegalArgumentException("there is no option " + args[i]);
            }
        }
        if (!values.containsKey("config")) {
            throw new IllegalArgumentException("--config is missing");
        }
    }

    boolean flag(String name) {
        return values.containsKey(name);
    }

    int integer(String name) {
        return Integer.parseInt(values.get(name));
    }

    double number(String name) {
        return Double.parseDouble(values.get(name));
    }

    Path config() {
        return Path.of(values.get("config"));
    }

    List<Integer> batches() {
        return Arrays.stream(values.get("batch").split(",", -1))
                .map(Integer::valueOf)
                .toList();
    }

    /** An engine for the largest batch and the longest sequence. */
    EngineSettings settings() {
        int longest = Math.max(maxPromptTokens() + integer("output-tokens"), integer("prefill-tokens") + 1);
        return new EngineSettings(
                values.get("device"),
                integer("ordinal"),
                integer("threads"),
                Long.parseLong(values.get("kv-bytes")),
                Collections.max(batches()),
                integer("max-batch-tokens"),
                0,
                longest,
                LoadFormat.valueOf(values.get("load-format").toUpperCase(Locale.ROOT)),
                new EngineSettings.Gpu(number("memory-fraction"), flag("deterministic"), !flag("no-graphs")));
    }

    /** Log-normal lengths are cut here. */
    int maxPromptTokens() {
        return integer("prompt-tokens") * (flag("log-normal") ? 8 : 1);
    }
}
