package io.github.sparkmla.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import io.github.sparkmla.checkpoint.ModelConfig.Fp8;
import io.github.sparkmla.checkpoint.ModelConfig.GroupScore;
import io.github.sparkmla.checkpoint.ModelConfig.Moe;
import io.github.sparkmla.checkpoint.ModelConfig.Scoring;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Set;

/**
 * Reads config.json the way transformers does, and refuses what transformers would silently ignore or fail on later.
 *
 * <p>Where transformers is odd, so is this: DeepSeek-V2's router ignores {@code norm_topk_prob}, and DeepSeek-V3's
 * normalises even a single expert's weight.
 */
final class ModelConfigReader {
    private static final int MAX_SIZE = 1 << 24;
    private static final int MAX_HEAD_DIM = 1 << 16;
    private static final int MAX_COUNT = 1 << 16;

    /** What transformers takes where the key is missing, for every model type. */
    private static final float INITIALIZER_RANGE = 0.02f;

    private final JsonObject json;
    private final Path generationFile;
    private final String modelType;

    private ModelConfigReader(Path folder) {
        this.json = JsonObject.read(folder.resolve("config.json"));
        this.generationFile = folder.resolve("generation_config.json");
        this.modelType = ModelDefaults.complete(json);
    }

    static ModelConfig read(Path folder) {
        return new ModelConfigReader(folder).read();
    }

    private ModelConfig read() {
        refuseWhatIsNotImplemented();
        int layers = json.integer("num_hidden_layers", 1, MAX_COUNT);
        List<Boolean> moeLayers = moeLayers(layers);
        ModelConfig config = new ModelConfig(
                modelType,
                size("vocab_size"),
                size("hidden_size"),
                layers,
                json.integer("num_attention_heads", 1, MAX_COUNT),
                json.integerOrNull("q_lora_rank", 1, MAX_SIZE).orElse(0),
                size("kv_lora_rank"),
                headDim("qk_nope_head_dim"),
                headDim("qk_rope_head_dim"),
                headDim("v_head_dim"),
                size("intermediate_size"),
                (float) json.number("rms_norm_eps", 0),
                json.hasValue("initializer_range") ? (float) json.number("initializer_range", -1) : INITIALIZER_RANGE,
                json.integer("max_position_embeddings", 1, Integer.MAX_VALUE),
                json.bool("tie_word_embeddings"),
                json.bool("attention_bias"),
                RopeReader.read(json, modelType),
                moeLayers.contains(true) ? moe() : null,
                moeLayers,
                fp8(),
                json.integerOrNull("bos_token_id", 0, Integer.MAX_VALUE).orElse(-1),
                eosTokenIds());
        checkWidths(config);
        checkRope(config);
        return config;
    }

    private int size(String key) {
        return json.integer(key, 1, MAX_SIZE);
    }

    private int headDim(String key) {
        return json.integer(key, 1, MAX_HEAD_DIM);
    }

    private void refuseWhatIsNotImplemented() {
        if (!"silu".equals(json.string("hidden_act"))) {
            throw json.wrong("hidden_act", "\"silu\"");
        }
        if (json.boolOrNull("mlp_bias")) {
            throw json.wrong("mlp_bias", "false: feed-forward networks with a bias are not implemented");
        }
        // Every head reads the one latent, so there is nothing to group.
        if (json.hasValue("num_key_value_heads")
                && json.integer("num_key_value_heads", 1, MAX_COUNT)
                        != json.integer("num_attention_heads", 1, MAX_COUNT)) {
            throw json.wrong(
                    "num_key_value_heads", "the number of attention heads, " + json.get("num_attention_heads"));
        }
    }

    /** Products that index memory as an int must fit one. */
    private void checkWidths(ModelConfig config) {
        checkWidth("qk_nope_head_dim", "num_attention_heads times a query head", config.numHeads(), config.qkHeadDim());
        int kvHead = config.qkNopeHeadDim() + config.vHeadDim();
        checkWidth("v_head_dim", "num_attention_heads times key and value", config.numHeads(), kvHead);
        if (config.moe() != null) {
            checkWidth(
                    "moe_intermediate_size",
                    "n_shared_experts times moe_intermediate_size",
                    config.moe().sharedExperts(),
                    config.moe().intermediateSize());
        }
        if (config.qkRopeHeadDim() % 2 != 0) {
            throw json.wrong("qk_rope_head_dim", "an even number");
        }
    }

    /** Each number of the rotary embedding may be sane and their combination not. */
    private void checkRope(ModelConfig config) {
        boolean finite = Float.isFinite(config.softmaxScale()) && Float.isFinite(config.ropeAttentionFactor());
        for (float frequency : config.inverseFrequencies()) {
            finite &= Float.isFinite(frequency);
        }
        if (!finite) {
            String key = json.hasValue("rope_scaling") ? "rope_scaling" : "rope_parameters";
            throw json.wrong(key, "parameters that give finite frequencies and scales");
        }
    }

    private void checkWidth(String key, String what, int count, int width) {
        if ((long) count * width > Integer.MAX_VALUE) {
            throw json.wrong(key, what + " to be less than 2^31, not " + (long) count * width);
        }
    }

    private List<Boolean> moeLayers(int layers) {
        if (modelType.equals("youtu")) {
            return Collections.nCopies(layers, false);
        }
        if (modelType.equals("glm4_moe_lite")) {
            return glmMoeLayers(layers);
        }
        // Every published model has 1.
        if (json.hasValue("moe_layer_freq") && json.integer("moe_layer_freq", 0, MAX_COUNT) != 1) {
            throw json.wrong("moe_layer_freq", "1: any other DeepSeek's own code heeds and transformers ignores");
        }
        int dense = Math.min(json.integer("first_k_dense_replace", 0, Integer.MAX_VALUE), layers);
        List<Boolean> moe = new ArrayList<>(Collections.nCopies(dense, false));
        moe.addAll(Collections.nCopies(layers - dense, true));
        return List.copyOf(moe);
    }

    /** By default every layer but the first; transformers does not look at first_k_dense_replace here. */
    private List<Boolean> glmMoeLayers(int layers) {
        List<Boolean> moe = new ArrayList<>();
        if (!json.hasValue("mlp_layer_types")) {
            moe.addAll(Collections.nCopies(layers, true));
            moe.set(0, false);
        } else {
            JsonNode types = json.get("mlp_layer_types");
            if (!types.isArray() || types.size() < layers) {
                throw json.wrong("mlp_layer_types", "a list of " + layers + " times \"dense\" or \"sparse\"");
            }
            for (int i = 0; i < layers; i++) {
                String type = types.get(i).asText();
                if (!Set.of("dense", "sparse").contains(type)) {
                    throw json.wrong("mlp_layer_types", "\"dense\" or \"sparse\" for layer " + i + ", not " + type);
                }
                moe.add(type.equals("sparse"));
            }
        }
        return List.copyOf(moe);
    }

    private Moe moe() {
        boolean v2 = modelType.equals("deepseek_v2");
        String alias = v2 ? "num_experts" : "num_local_experts";
        int experts = json.integer(json.has(alias) ? alias : "n_routed_experts", 1, MAX_COUNT);
        int topK = json.integer("num_experts_per_tok", 1, experts);
        requireMethod("scoring_func", v2 ? Set.of("softmax") : Set.of("sigmoid"));
        requireMethod("topk_method", v2 ? Set.of("greedy", "group_limited_greedy") : Set.of("noaux_tc"));
        boolean grouped = !v2 || json.string("topk_method").equals("group_limited_greedy");
        int groups = grouped ? json.integer("n_group", 1, experts) : 1;
        int topGroups = grouped ? json.integer("topk_group", 1, groups) : 1;
        checkGroups(experts, topK, groups, topGroups, v2 ? 1 : 2);
        return new Moe(
                experts,
                json.integer("n_shared_experts", 0, MAX_COUNT),
                topK,
                size("moe_intermediate_size"),
                v2 ? Scoring.SOFTMAX : Scoring.SIGMOID,
                groups,
                topGroups,
                v2 ? GroupScore.MAX : GroupScore.TOP2_SUM,
                !v2 && json.boolOrNull("norm_topk_prob"),
                (float) json.number("routed_scaling_factor", 0),
                !v2);
    }

    /** transformers does not read the key where the model type has one method only: another value is a contradiction. */
    private void requireMethod(String key, Set<String> methods) {
        if (json.hasValue(key) && !methods.contains(json.string(key))) {
            throw json.wrong(key, "\"" + String.join("\" or \"", methods) + "\" for " + modelType);
        }
    }

    private void checkGroups(int experts, int topK, int groups, int topGroups, int ranked) {
        if (experts % groups != 0) {
            throw json.wrong("n_group", "a divisor of the " + experts + " experts");
        }
        int groupSize = experts / groups;
        if (groupSize < ranked) {
            throw json.wrong("n_group", "at least " + ranked + " experts a group, not " + groupSize);
        }
        if (topK > topGroups * groupSize) {
            throw json.wrong(
                    "num_experts_per_tok",
                    "at most " + topGroups * groupSize + ", the experts of " + topGroups + " groups");
        }
    }

    private Fp8 fp8() {
        if (!json.hasValue("quantization_config")) {
            return null;
        }
        JsonObject quantization = json.object("quantization_config");
        if (!"fp8".equals(quantization.string("quant_method"))) {
            throw quantization.wrong("quant_method", "\"fp8\" (block-scaled e4m3) or no quantization_config");
        }
        JsonNode block = quantization.get("weight_block_size");
        if (block == null || !block.isArray() || block.size() != 2) {
            throw quantization.wrong("weight_block_size", "two integers, rows and columns of a block");
        }
        int rows = block.get(0).asInt();
        if (rows < 1 || rows > MAX_SIZE || !block.get(0).equals(block.get(1))) {
            throw quantization.wrong("weight_block_size", "two positive integers that are the same");
        }
        return new Fp8(rows);
    }

    private List<Integer> eosTokenIds() {
        if (Files.exists(generationFile)) {
            JsonObject generation = JsonObject.read(generationFile);
            if (generation.hasValue("eos_token_id")) {
                return tokenIds(generation, "eos_token_id");
            }
        }
        return json.hasValue("eos_token_id") ? tokenIds(json, "eos_token_id") : List.of();
    }

    private static List<Integer> tokenIds(JsonObject from, String key) {
        JsonNode value = from.get(key);
        List<Integer> ids = new ArrayList<>();
        for (JsonNode id : value.isArray() ? value : List.of(value)) {
            if (!id.isInt() || id.intValue() < 0) {
                throw from.wrong(key, "a token id or a list of token ids");
            }
            ids.add(id.intValue());
        }
        return List.copyOf(ids);
    }
}
