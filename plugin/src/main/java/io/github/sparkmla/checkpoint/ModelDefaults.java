package io.github.sparkmla.checkpoint;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.Map;
import java.util.TreeMap;

/**
 * What transformers 5.18 puts where a config.json lacks a key, by model type (its configuration classes). The sizes
 * without which there is no model (vocabulary, hidden size, layers, heads) have no default here: a missing one is an
 * error rather than somebody else's model.
 */
final class ModelDefaults {
    private static final String DEEPSEEK_V2 = """
            {"intermediate_size": 11008, "hidden_act": "silu", "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
             "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": false, "attention_bias": false,
             "mlp_bias": false, "first_k_dense_replace": 0, "kv_lora_rank": 512, "q_lora_rank": 1536, "n_group": null,
             "n_routed_experts": 64, "n_shared_experts": 2, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
             "routed_scaling_factor": 1.0, "topk_group": null, "topk_method": "greedy", "v_head_dim": 128,
             "moe_intermediate_size": 1407}
            """;

    private static final String DEEPSEEK_V3 = """
            {"intermediate_size": 18432, "hidden_act": "silu", "max_position_embeddings": 4096, "rms_norm_eps": 1e-6,
             "bos_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": false, "attention_bias": false,
             "first_k_dense_replace": 3, "kv_lora_rank": 512, "q_lora_rank": 1536, "n_group": 8,
             "n_routed_experts": 256, "n_shared_experts": 1, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
             "routed_scaling_factor": 2.5, "topk_group": 4, "v_head_dim": 128, "moe_intermediate_size": 2048,
             "num_experts_per_tok": 8, "norm_topk_prob": true, "rope_interleave": true}
            """;

    private static final String GLM4_MOE_LITE = """
            {"intermediate_size": 10240, "hidden_act": "silu", "max_position_embeddings": 202752, "rms_norm_eps": 1e-5,
             "bos_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": false, "attention_bias": false,
             "mlp_layer_types": null, "kv_lora_rank": 512, "q_lora_rank": 768, "n_group": 1, "n_routed_experts": 64,
             "n_shared_experts": 1, "qk_nope_head_dim": 192, "qk_rope_head_dim": 64, "routed_scaling_factor": 1.8,
             "topk_group": 1, "v_head_dim": 256, "moe_intermediate_size": 1536, "num_experts_per_tok": 4,
             "norm_topk_prob": true, "rope_interleave": true}
            """;

    private static final String YOUTU = """
            {"intermediate_size": 6144, "hidden_act": "silu", "max_position_embeddings": 131072, "rms_norm_eps": 1e-6,
             "bos_token_id": 128000, "eos_token_id": 128001, "tie_word_embeddings": true, "attention_bias": false,
             "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
             "v_head_dim": 128, "rope_interleave": true}
            """;

    /** Kimi-K2 has no class of its own in transformers: its checkpoints are DeepSeek-V3's architecture. */
    private static final Map<String, String> BY_MODEL_TYPE = new TreeMap<>(Map.of(
            "deepseek_v2", DEEPSEEK_V2,
            "deepseek_v3", DEEPSEEK_V3,
            "kimi_k2", DEEPSEEK_V3,
            "glm4_moe_lite", GLM4_MOE_LITE,
            "youtu", YOUTU));

    private ModelDefaults() {}

    /** Adds the keys that {@code config} lacks, and returns its model type. */
    static String complete(JsonObject config) {
        String modelType = config.string("model_type");
        String defaults = BY_MODEL_TYPE.get(modelType);
        if (defaults == null) {
            throw config.wrong("model_type", "one of " + String.join(", ", BY_MODEL_TYPE.keySet()));
        }
        try {
            ObjectNode completed = JsonObject.MAPPER.readValue(defaults, ObjectNode.class);
            completed.setAll(config.node());
            config.node().setAll(completed);
            return modelType;
        } catch (JsonProcessingException e) {
            throw new IllegalStateException(e);
        }
    }
}
