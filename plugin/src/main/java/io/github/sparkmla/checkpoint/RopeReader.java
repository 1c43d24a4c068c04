package io.github.sparkmla.checkpoint;

import io.github.sparkmla.checkpoint.ModelConfig.Rope;
import io.github.sparkmla.checkpoint.ModelConfig.Yarn;

/** Reads the rotary embedding, in the old form (rope_theta, rope_scaling) or the new one (rope_parameters). */
final class RopeReader {
    private static final double DEFAULT_THETA = 10_000;

    private RopeReader() {}

    static Rope read(JsonObject config, String modelType) {
        requireWholeSlice(config, "partial_rotary_factor");
        requireHeadDim(config, modelType);
        JsonObject rope = parameters(config);
        if (rope == null) {
            return new Rope(theta(config, config), interleaved(config), null);
        }
        requireWholeSlice(rope, "partial_rotary_factor");
        return new Rope(theta(rope, config), interleaved(config), yarn(rope, config));
    }

    /** A non-empty rope_scaling goes before rope_parameters, as in transformers. */
    private static JsonObject parameters(JsonObject config) {
        for (String key : new String[] {"rope_scaling", "rope_parameters"}) {
            if (config.hasValue(key) && !config.object(key).node().isEmpty()) {
                return config.object(key);
            }
        }
        return null;
    }

    private static double theta(JsonObject rope, JsonObject config) {
        JsonObject holder = rope.has("rope_theta") ? rope : config;
        // The base's logarithm is a divisor.
        return holder.has("rope_theta") ? holder.number("rope_theta", 1) : DEFAULT_THETA;
    }

    /** DeepSeek-V2 has no such key in transformers: its pairs are always interleaved. */
    private static boolean interleaved(JsonObject config) {
        return config.string("model_type").equals("deepseek_v2") || config.boolOrNull("rope_interleave");
    }

    private static void requireWholeSlice(JsonObject holder, String key) {
        if (holder.hasValue(key) && holder.number(key, 0) != 1) {
            throw holder.wrong(key, "1: the whole rope slice is rotated");
        }
    }

    /** In transformers a stray head_dim replaces the rope slice's width, except for DeepSeek-V2, which ignores it. */
    private static void requireHeadDim(JsonObject config, String modelType) {
        if (!modelType.equals("deepseek_v2")
                && config.hasValue("head_dim")
                && !config.get("head_dim").equals(config.get("qk_rope_head_dim"))) {
            throw config.wrong("head_dim", "qk_rope_head_dim, " + config.get("qk_rope_head_dim"));
        }
    }

    private static Yarn yarn(JsonObject rope, JsonObject config) {
        String key = rope.has("rope_type") || !rope.has("type") ? "rope_type" : "type";
        String type = rope.has(key) ? rope.string(key) : "default";
        if (type.equals("default")) {
            return null;
        }
        if (!type.equals("yarn")) {
            throw rope.wrong(key, "\"default\" or \"yarn\"");
        }
        return new Yarn(
                rope.number("factor", 0),
                originalMaxPositions(rope, config),
                positiveOr(rope, "beta_fast", 32),
                positiveOr(rope, "beta_slow", 1),
                positiveOr(rope, "mscale", 0),
                positiveOr(rope, "mscale_all_dim", 0),
                rope.hasValue("attention_factor") ? (Double) rope.number("attention_factor", 0) : null,
                !rope.has("truncate") || rope.boolOrNull("truncate"));
    }

    /** The outermost key wins; without any the extension is a no-op of its ratio, as in transformers. */
    private static int originalMaxPositions(JsonObject rope, JsonObject config) {
        String key = "original_max_position_embeddings";
        if (config.has(key)) {
            return config.integer(key, 1, Integer.MAX_VALUE);
        }
        return rope.has(key)
                ? rope.integer(key, 1, Integer.MAX_VALUE)
                : config.integer("max_position_embeddings", 1, Integer.MAX_VALUE);
    }

    /** Missing, null and 0 are all "not given" to transformers. */
    private static double positiveOr(JsonObject rope, String key, double fallback) {
        boolean given = rope.hasValue(key)
                && !(rope.get(key).isNumber() && rope.get(key).doubleValue() == 0);
        return given ? rope.number(key, 0) : fallback;
    }
}
