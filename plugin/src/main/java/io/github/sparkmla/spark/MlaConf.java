package io.github.sparkmla.spark;

import io.github.sparkmla.engine.EngineSettings;
import io.github.sparkmla.engine.EngineSettings.LoadFormat;
import java.io.Serializable;
import java.util.Arrays;
import java.util.Comparator;
import java.util.EnumMap;
import java.util.Locale;
import java.util.Map;
import java.util.function.Function;
import java.util.stream.Collectors;
import org.apache.commons.text.similarity.LevenshteinDistance;
import org.apache.spark.network.util.JavaUtils;

/**
 * The configuration of Spark MLA: the one place that declares its keys. Read on the driver from the session's conf when
 * {@code transform} is called, checked there, and shipped to the tasks.
 *
 * <p>docs/configuration.md is generated from {@link Key} by {@link ConfigurationPage}.
 */
public final class MlaConf implements Serializable {
    /** Every key of this project starts with this. */
    static final String PREFIX = "spark.mla.";

    /** Rows in flight for each sequence of a batch: slack, so that one long row does not drain the batch behind it. */
    private static final int WINDOW_PER_SEQUENCE = 4;

    private static final int MAX_TOKENS = 1 << 20;

    /** The keys; at most twenty. */
    enum Key {
        DEVICE(
                "device",
                "auto",
                Type.oneOf("auto", "cpu", "cuda"),
                "Where the model runs. `auto` takes a GPU where the executor has one, else the CPU. `cuda` never falls"
                        + " back to the CPU: without a GPU the job fails."),
        CPU_THREADS(
                "cpu.threads",
                "0",
                Type.integer(0, 4096),
                "Threads of an engine on the CPU. 0 takes every core that the executor's process may use."),
        KV_MEMORY(
                "kv.memory",
                "auto",
                Type.autoOrBytes(1 << 20),
                "Memory of the KV cache of an engine. More memory keeps more sequences in a batch. `auto` is 256m on the"
                        + " CPU, and on a GPU what `spark.mla.memory.fraction` gives."),
        MEMORY_FRACTION(
                "memory.fraction",
                "0.9",
                Type.fraction(),
                "Part of the GPU memory that is free after weights and workspace, which the KV cache of an engine takes."
                        + " Two engines on one GPU need less than half each."),
        LOAD_FORMAT(
                "loadFormat",
                "safetensors",
                Type.oneOf("safetensors", "dummy"),
                "Where weights come from. `dummy` makes up random ones of the shapes in config.json, to measure a model"
                        + " without its weights."),
        DETERMINISTIC(
                "deterministic",
                "false",
                Type.oneOf("true", "false"),
                "On a GPU: whether a row's result is the same, bit for bit, whatever shares its batch. Costs speed. On the"
                        + " CPU it always is."),
        BATCH_MAX_SEQUENCES(
                "batch.maxSequences",
                "0",
                Type.integer(0, 65536),
                "Most sequences that an engine decodes in one step. 0 takes "
                        + EngineSettings.CUDA_SEQUENCES
                        + " on a GPU and "
                        + EngineSettings.CPU_SEQUENCES
                        + " on the CPU."),
        BATCH_MAX_TOKENS(
                "batch.maxTokens",
                "0",
                Type.integer(0, MAX_TOKENS),
                "Most tokens that an engine computes in one step, prefill and decode together. 0 takes "
                        + EngineSettings.CUDA_TOKENS
                        + " on a GPU and "
                        + EngineSettings.CPU_TOKENS
                        + " on the CPU."),
        PREFILL_CHUNK(
                "prefill.chunk",
                "0",
                Type.integer(0, MAX_TOKENS),
                "Most tokens of one prompt in one step: a long prompt is cut, so that decoding goes on beside it. 0"
                        + " leaves the limit to `spark.mla.batch.maxTokens`."),
        MAX_MODEL_LEN(
                "maxModelLen",
                "0",
                Type.integer(0, Integer.MAX_VALUE),
                "Most tokens of a prompt and its completion together. 0 takes the model's own limit."),
        TASK_WINDOW(
                "task.window",
                "0",
                Type.integer(0, 1 << 20),
                "Most rows that one task has in flight. Rows come back in input order, so a long row holds back those"
                        + " behind it: a wider window keeps the batch full meanwhile. 0 takes "
                        + WINDOW_PER_SEQUENCE
                        + " times `spark.mla.batch.maxSequences`, shared among the tasks that use the engine.");

        final String key;
        final String defaultValue;
        final Type type;
        final String doc;

        Key(String name, String defaultValue, Type type, String doc) {
            this.key = PREFIX + name;
            this.defaultValue = defaultValue;
            this.type = type;
            this.doc = doc;
        }
    }

    /** How a value is written, and what it may be. {@code parse} throws IllegalArgumentException on anything else. */
    record Type(String allowed, Function<String, Object> parse) {
        static Type oneOf(String... values) {
            String allowed = String.join(", ", values);
            return new Type("one of " + allowed, text -> {
                require(Arrays.asList(values).contains(text));
                return text;
            });
        }

        static Type integer(int min, int max) {
            String range = max == Integer.MAX_VALUE ? "at least " + min : min + " to " + max;
            return new Type("a whole number, " + range, text -> {
                int value = Integer.parseInt(text);
                require(value >= min && value <= max);
                return value;
            });
        }

        /** {@code auto} is 0. */
        static Type autoOrBytes(long min) {
            String allowed = "auto, or a size such as 256m or 4g, at least " + (min >> 20) + "m";
            return new Type(allowed, text -> {
                if (text.equals("auto")) {
                    return 0L;
                }
                long value = JavaUtils.byteStringAsBytes(text);
                require(value >= min);
                return value;
            });
        }

        static Type fraction() {
            return new Type("a number greater than 0, at most 1", text -> {
                double value = Double.parseDouble(text);
                require(value > 0 && value <= 1);
                return value;
            });
        }

        private static void require(boolean condition) {
            if (!condition) {
                throw new IllegalArgumentException();
            }
        }
    }

    private final EnumMap<Key, Serializable> values = new EnumMap<>(Key.class);

    /**
     * Reads and checks every {@code spark.mla.*} entry of a configuration; other entries are ignored.
     *
     * @throws IllegalArgumentException for a key that does not exist or a value that is not allowed, naming both
     */
    public static MlaConf of(Map<String, String> entries) {
        entries.keySet().stream()
                .filter(name -> name.startsWith(PREFIX))
                .sorted()
                .forEach(MlaConf::requireKnown);
        MlaConf conf = new MlaConf();
        for (Key key : Key.values()) {
            conf.values.put(key, parse(key, entries.getOrDefault(key.key, key.defaultValue)));
        }
        return conf;
    }

    private MlaConf() {}

    private static void requireKnown(String name) {
        if (Arrays.stream(Key.values()).noneMatch(key -> key.key.equals(name))) {
            throw new IllegalArgumentException("there is no configuration key " + name + "; did you mean "
                    + nearest(name) + "? Known keys: "
                    + Arrays.stream(Key.values()).map(key -> key.key).collect(Collectors.joining(", ")));
        }
    }

    private static String nearest(String name) {
        LevenshteinDistance distance = LevenshteinDistance.getDefaultInstance();
        return Arrays.stream(Key.values())
                .map(key -> key.key)
                .min(Comparator.comparing(key -> distance.apply(name, key)))
                .orElseThrow();
    }

    private static Serializable parse(Key key, String text) {
        try {
            return (Serializable) key.type.parse.apply(text.trim());
        } catch (IllegalArgumentException e) {
            throw new IllegalArgumentException(
                    key.key + " is '" + text + "', but must be " + key.type.allowed + " (default " + key.defaultValue
                            + ")",
                    e);
        }
    }

    private int integer(Key key) {
        return (Integer) values.get(key);
    }

    /** Where the model runs: auto, cpu or cuda. */
    public String device() {
        return (String) values.get(Key.DEVICE);
    }

    /** What an engine is started with on the GPU of this ordinal (0 where there is none); on the CPU it is no matter. */
    public EngineSettings engineSettings(int deviceOrdinal) {
        return new EngineSettings(
                (String) values.get(Key.DEVICE),
                device().equals("cpu") ? 0 : deviceOrdinal,
                integer(Key.CPU_THREADS),
                (Long) values.get(Key.KV_MEMORY),
                integer(Key.BATCH_MAX_SEQUENCES),
                integer(Key.BATCH_MAX_TOKENS),
                integer(Key.PREFILL_CHUNK),
                integer(Key.MAX_MODEL_LEN),
                loadFormat(),
                new EngineSettings.Gpu(
                        (Double) values.get(Key.MEMORY_FRACTION),
                        values.get(Key.DETERMINISTIC).equals("true"),
                        EngineSettings.Gpu.defaults().graphs()));
    }

    /** Where weights come from. */
    LoadFormat loadFormat() {
        return LoadFormat.valueOf(values.get(Key.LOAD_FORMAT).toString().toUpperCase(Locale.ROOT));
    }

    /** Most rows that one of {@code tasks} tasks of an engine, which decodes {@code maxSequences} at a time, has in flight. */
    public int window(int maxSequences, int tasks) {
        int asked = integer(Key.TASK_WINDOW);
        return asked > 0 ? asked : Math.max(1, WINDOW_PER_SEQUENCE * maxSequences / tasks);
    }
}
