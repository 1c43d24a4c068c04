package io.github.sparkmla.checkpoint;

import java.nio.file.Path;
import java.util.List;

/**
 * The architecture of a checkpoint, from its {@code config.json} and {@code generation_config.json}. Absent keys have
 * the defaults of Hugging Face transformers 5.18, which is the reference for every rule here.
 *
 * @param modelType {@code model_type}: deepseek_v2, deepseek_v3, kimi_k2, glm4_moe_lite or youtu
 * @param vocabSize rows of the embedding
 * @param hiddenSize width of the residual stream
 * @param numLayers decoder layers; layers of the checkpoint from this number on (multi-token prediction) are not run
 * @param numHeads query heads
 * @param qLoraRank width of the compressed query; 0 where the query is projected directly ({@code q_proj})
 * @param kvLoraRank width of the cached latent
 * @param qkNopeHeadDim per head, the part of query and key without position
 * @param qkRopeHeadDim per head, the rotated part of the query; the rotated key is shared by all heads
 * @param vHeadDim per head, the width of the value
 * @param intermediateSize width of a dense layer's feed-forward network
 * @param rmsNormEps of the decoder's norms; see {@link #loraNormEps()} for those inside attention
 * @param initializerRange standard deviation that training started from; only dummy weights use it
 * @param maxPositions longest sequence, in tokens
 * @param tieWordEmbeddings whether the LM head is the embedding
 * @param attentionBias whether q_a_proj, kv_a_proj_with_mqa and o_proj have a bias (q_proj, q_b_proj, kv_b_proj never)
 * @param rope the rotary embedding
 * @param moe the mixture of experts, null where every layer is dense
 * @param moeLayers for each layer whether it is one of experts; {@link #isMoe}
 * @param fp8 how F8_E4M3 weights are scaled, null where the checkpoint is not quantized
 * @param bosTokenId beginning of sequence, -1 for none
 * @param eosTokenIds any of these ends a sequence; may be empty
 */
public record ModelConfig(
        String modelType,
        int vocabSize,
        int hiddenSize,
        int numLayers,
        int numHeads,
        int qLoraRank,
        int kvLoraRank,
        int qkNopeHeadDim,
        int qkRopeHeadDim,
        int vHeadDim,
        int intermediateSize,
        float rmsNormEps,
        float initializerRange,
        int maxPositions,
        boolean tieWordEmbeddings,
        boolean attentionBias,
        Rope rope,
        Moe moe,
        List<Boolean> moeLayers,
        Fp8 fp8,
        int bosTokenId,
        List<Integer> eosTokenIds) {

    /**
     * Rotary position embedding.
     *
     * @param theta base of the frequencies
     * @param interleaved rotated pairs are (2i, 2i+1); otherwise (i, i + dim/2)
     * @param yarn context extension, null for none
     */
    public record Rope(double theta, boolean interleaved, Yarn yarn) {}

    /**
     * YaRN context extension.
     *
     * @param factor by how much the context was extended
     * @param originalMaxPositions context before the extension
     * @param betaFast rotations over the original context from which on a dimension is left alone
     * @param betaSlow rotations up to which a dimension is interpolated
     * @param mscale numerator's coefficient of the factor on cos and sin; 0 for none
     * @param mscaleAllDim denominator's coefficient, also that of the softmax scale; 0 for none
     * @param attentionFactor the factor on cos and sin where the checkpoint states it, else null
     * @param truncate whether the correction range is rounded outwards to whole dimensions
     */
    public record Yarn(
            double factor,
            int originalMaxPositions,
            double betaFast,
            double betaSlow,
            double mscale,
            double mscaleAllDim,
            Double attentionFactor,
            boolean truncate) {}

    /** How router logits become scores. */
    public enum Scoring {
        SOFTMAX,
        SIGMOID
    }

    /** How the experts of a group make the group's score. */
    public enum GroupScore {
        MAX,
        TOP2_SUM
    }

    /**
     * Mixture of experts. The bias only takes part in the choice of groups and experts; the weights are the unbiased
     * scores of the chosen.
     *
     * @param experts routed experts
     * @param sharedExperts experts that every token passes, stored as one network of this many times the width
     * @param topK routed experts a token
     * @param intermediateSize width of one expert
     * @param scoring of the router logits, in float32
     * @param groups groups of neighbouring experts; 1 for no grouping
     * @param topGroups groups that a token may choose from
     * @param groupScore how groups are ranked
     * @param normalize whether the chosen weights are divided by their sum plus 1e-20
     * @param scale what the weights are multiplied by at the end
     * @param hasCorrectionBias whether {@code gate.e_score_correction_bias} exists
     */
    public record Moe(
            int experts,
            int sharedExperts,
            int topK,
            int intermediateSize,
            Scoring scoring,
            int groups,
            int topGroups,
            GroupScore groupScore,
            boolean normalize,
            float scale,
            boolean hasCorrectionBias) {}

    /**
     * FP8 weights: weight = quantized value times {@code weight_scale_inv} (float32) of its block.
     *
     * @param block output rows and input columns of a block
     */
    public record Fp8(int block) {}

    /** Reads the configuration of a checkpoint folder; throws {@link CheckpointException}. */
    public static ModelConfig load(Path folder) {
        return ModelConfigReader.read(folder);
    }

    /** Width of a query or key head. */
    public int qkHeadDim() {
        return qkNopeHeadDim + qkRopeHeadDim;
    }

    /** Width of a cached token: the latent and the rotated key. */
    public int kvDim() {
        return kvLoraRank + qkRopeHeadDim;
    }

    /** Whether a layer's feed-forward network is a mixture of experts. */
    public boolean isMoe(int layer) {
        return moeLayers.get(layer);
    }

    /** Epsilon of q_a_layernorm and kv_a_layernorm: transformers builds them with 1e-6, whatever rms_norm_eps says. */
    public float loraNormEps() {
        return 1e-6f;
    }

    /** Radians a position for each of the {@code qkRopeHeadDim / 2} pairs. */
    public float[] inverseFrequencies() {
        return RopeMath.inverseFrequencies(rope, qkRopeHeadDim);
    }

    /** What cos and sin are multiplied by. */
    public float ropeAttentionFactor() {
        return RopeMath.attentionFactor(rope);
    }

    /** What the product of query and key is multiplied by before the softmax. */
    public float softmaxScale() {
        return RopeMath.softmaxScale(rope, qkHeadDim());
    }
}
