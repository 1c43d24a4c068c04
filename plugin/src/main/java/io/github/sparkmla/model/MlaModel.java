package io.github.sparkmla.model;

import io.github.sparkmla.checkpoint.Checkpoint;
import io.github.sparkmla.checkpoint.ModelConfig;
import io.github.sparkmla.tensor.Arena;
import io.github.sparkmla.tensor.DType;
import io.github.sparkmla.tensor.Device;
import io.github.sparkmla.tensor.Ops;
import io.github.sparkmla.tensor.Tensor;
import java.util.ArrayList;
import java.util.List;

/**
 * A decoder with multi-head latent attention on a device: weights, paged KV cache and scratch memory. Everything is
 * allocated here, once; a step allocates nothing. Belongs to the device's thread.
 */
public final class MlaModel implements AutoCloseable {
    private final ModelConfig config;
    private final Arena arena;
    private final Ops ops;
    private final Weights weights;
    private final List<LayerWeights> layers;
    private final List<Tensor> caches = new ArrayList<>();
    private final StepInputs inputs;
    private final LatentAttention attention;
    private final FeedForward feedForward;
    private final Tensor residual; // [T, H]
    private final Tensor normed; // [T, H]
    private final Tensor delta; // [T, H]
    private final Tensor sampled; // [S, H]
    private final Tensor logits; // F32 [S, vocab]

    /**
     * What a model is sized for.
     *
     * @param kvBlocks blocks of 64 tokens in the cache
     * @param maxTokens most tokens in a step
     * @param maxSequences most sequences in a step
     * @param maxModelLen longest sequence, in tokens
     */
    public record Limits(int kvBlocks, int maxTokens, int maxSequences, int maxModelLen) {}

    /** Checks on any machine, reading headers only, that a checkpoint holds every weight that its config needs. */
    public static void check(Checkpoint checkpoint) {
        Weights.check(checkpoint);
    }

    /** Bytes of one cache block over all layers. */
    public static long kvBlockBytes(ModelConfig config, Device device) {
        return (long) StepInputs.BLOCK_TOKENS
                * config.kvDim()
                * config.numLayers()
                * activations(device).bytes();
    }

    /** The CPU computes in float32, exactly as HF does there; a GPU in BF16. */
    private static DType activations(Device device) {
        return device.isCuda() ? DType.BF16 : DType.F32;
    }

    /** Loads the weights and allocates all else. */
    public static MlaModel load(Checkpoint checkpoint, Device device, Limits limits) {
        Arena arena = new Arena(device);
        try {
            return new MlaModel(checkpoint, arena, limits);
        } catch (RuntimeException | Error e) {
            arena.close();
            throw e;
        }
    }

    private MlaModel(Checkpoint checkpoint, Arena arena, Limits limits) {
        this.config = checkpoint.config();
        this.arena = arena;
        this.ops = new Ops(arena.device());
        this.weights = WeightLoader.loading(checkpoint, arena).weights();
        this.layers = weights.layers().stream()
                .map(layer -> LayerWeights.of(config, layer))
                .toList();
        DType act = activations(arena.device());
        int tokens = limits.maxTokens;
        int sequences = limits.maxSequences;
        for (int i = 0; i < config.numLayers(); i++) {
            caches.add(arena.allocate(act, limits.kvBlocks, StepInputs.BLOCK_TOKENS, config.kvDim()));
        }
        inputs = new StepInputs(arena, limits);
        attention = new LatentAttention(arena, ops, config, inputs, act, limits);
        feedForward = new FeedForward(arena, ops, config, act, tokens);
        residual = arena.allocate(act, tokens, config.hiddenSize());
        normed = arena.allocate(act, tokens, config.hiddenSize());
        delta = arena.allocate(act, tokens, config.hiddenSize());
        sampled = arena.allocate(act, sequences, config.hiddenSize());
        logits = arena.allocate(DType.F32, sequences, config.vocabSize());
    }

    /** The step to fill before {@link #forward}. */
    public StepInputs inputs() {
        return inputs;
    }

    public ModelConfig config() {
        return config;
    }

    /**
     * Runs the step in {@link #inputs}: appends its tokens to the cache and gives the logits F32 [sampled, vocab] that
     * follow them. The tensor is the model's own, good until the next step.
     */
    public Tensor forward() {
        inputs.upload();
        begin(inputs.tokens());
        attention.begin(inputs);

        ops.embedding(weights.embedding(), inputs.tokenIds(), residual);
        for (int i = 0; i < layers.size(); i++) {
            LayerWeights layer = layers.get(i);
            // The residual takes in what the layer before has added, on the way to the norm.
            norm(i == 0 ? null : delta, layer.layer().inputNorm());
            attention.forward(layer, normed, inputs, caches.get(i), delta);
            norm(delta, layer.layer().postAttentionNorm());
            feedForward.forward(layer, normed, delta);
        }
        norm(delta, weights.finalNorm());
        ops.embedding(normed, inputs.sampledRows(), sampled);
        ops.gemm(sampled, weights.lmHead(), logits);
        return logits;
    }

    /** residual += added, where there is any; normed = norm(residual). */
    private void norm(Tensor added, Tensor weight) {
        if (added == null) {
            ops.rmsNorm(residual, null, weight, config.rmsNormEps(), normed);
        } else {
            ops.rmsNorm(added, residual, weight, config.rmsNormEps(), normed);
        }
    }

    private void begin(int tokens) {
        residual.resize(tokens);
        normed.resize(tokens);
        delta.resize(tokens);
        sampled.resize(inputs.sampled());
        logits.resize(inputs.sampled());
        feedForward.begin(tokens);
    }

    @Override
    public void close() {
        arena.close();
    }
}
