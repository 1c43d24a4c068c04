package io.github.sparkmla.model;

import io.github.sparkmla.checkpoint.Checkpoint;
import io.github.sparkmla.checkpoint.ModelConfig;
import io.github.sparkmla.tensor.Arena;
import io.github.sparkmla.tensor.DType;
import io.github.sparkmla.tensor.Device;
import io.github.sparkmla.tensor.Ops;
import io.github.sparkmla.tensor.Tensor;
import java.util.List;
import java.util.function.Function;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * A decoder with multi-head latent attention on a device: weights, paged KV cache and scratch memory. Everything is
 * allocated here, once; a step allocates nothing. Belongs to the device's thread.
 */
public final class MlaModel implements AutoCloseable {
    private static final Logger log = LoggerFactory.getLogger(MlaModel.class);

    private final ModelConfig config;
    private final Arena arena;
    private final Ops ops;
    private final Weights weights;
    private final List<LayerWeights> layers;
    private final StepInputs inputs;
    private final LatentAttention attention;
    private final FeedForward feedForward;
    private final Tensor residual; // F32 [T, H]
    private final Tensor normed; // [T, H]
    private final Tensor delta; // F32 [T, H], what a layer adds to the residual
    private final Tensor sampled; // [S, H]
    private final Tensor logits; // F32 [S, vocab]
    private Tensor cache; // [layers, blocks + 1, 64, L + R]; the last block is the dump
    private Tensor[] caches; // of each layer

    /**
     * What a model is sized for.
     *
     * @param maxTokens most tokens in a step
     * @param maxSequences most sequences in a step
     * @param maxModelLen longest sequence, in tokens
     * @param deterministic whether a sequence's result must not depend on the others of a step; always so on the CPU
     */
    public record Limits(int maxTokens, int maxSequences, int maxModelLen, boolean deterministic) {}

    /** Checks on any machine, reading headers only, that a checkpoint holds every weight that its config needs. */
    public static void check(Checkpoint checkpoint) {
        Weights.check(checkpoint);
    }

    /** Bytes of the weights on a GPU. */
    public static long weightBytes(ModelConfig config) {
        WeightBytes weights = new WeightBytes();
        Weights unused = Weights.of(config, weights);
        return weights.bytes();
    }

    /** Bytes of one cache block over all layers. */
    public static long kvBlockBytes(ModelConfig config, Device device) {
        return (long) StepInputs.BLOCK_TOKENS
                * config.kvDim()
                * config.numLayers()
                * activations(device).bytes();
    }

    /**
     * The CPU computes in float32, exactly as HF does there; a GPU in BF16, but for what is summed up over the layers and
     * what a norm reads: rounded there, it would decide more of the router's near ties by chance.
     */
    static DType activations(Device device) {
        return device.isCuda() ? DType.BF16 : DType.F32;
    }

    /** Loads the weights and allocates the memory of a step; {@link #allocateCache} follows. */
    public static MlaModel load(Checkpoint checkpoint, Device device, Limits limits) {
        return open(checkpoint.config(), device, limits, arena -> {
            try (WeightLoader loader = WeightLoader.loading(checkpoint, arena)) {
                Weights weights = Weights.of(checkpoint.config(), loader);
                if (!loader.unused().isEmpty()) {
                    log.warn(
                            "{}: tensors that the model does not use, by number: {}",
                            checkpoint.folder(),
                            loader.unused());
                }
                return weights;
            }
        });
    }

    /** The same with random weights, for measuring; see {@link DummyWeights}. */
    public static MlaModel dummy(ModelConfig config, Device device, Limits limits) {
        return open(config, device, limits, arena -> Weights.of(config, new DummyWeights(config, arena)));
    }

    private static MlaModel open(ModelConfig config, Device device, Limits limits, Function<Arena, Weights> weights) {
        Arena arena = new Arena(device);
        StepInputs inputs = null;
        try {
            device.setDeterministic(limits.deterministic);
            Weights loaded = weights.apply(arena);
            device.synchronize();
            inputs = new StepInputs(device, limits);
            return new MlaModel(config, arena, loaded, inputs, limits);
        } catch (RuntimeException | Error e) {
            if (inputs != null) {
                inputs.close();
            }
            arena.close();
            throw e;
        }
    }

    private MlaModel(ModelConfig config, Arena arena, Weights weights, StepInputs inputs, Limits limits) {
        this.config = config;
        this.arena = arena;
        this.ops = new Ops(arena.device());
        this.weights = weights;
        this.layers = weights.layers().stream()
                .map(layer -> LayerWeights.of(config, layer, arena))
                .toList();
        this.inputs = inputs;
        DType act = activations(arena.device());
        int tokens = limits.maxTokens;
        int sequences = limits.maxSequences;
        attention = new LatentAttention(arena, ops, config, inputs, limits);
        feedForward = new FeedForward(arena, ops, config, act, tokens);
        residual = arena.allocate(DType.F32, tokens, config.hiddenSize());
        normed = arena.allocate(act, tokens, config.hiddenSize());
        delta = arena.allocate(DType.F32, tokens, config.hiddenSize());
        sampled = arena.allocate(act, sequences, config.hiddenSize());
        logits = arena.allocate(DType.F32, sequences, config.vocabSize());
    }

    /** Allocates the KV cache, in place of the one before: {@code blocks} blocks, and the dump behind them. */
    public void allocateCache(int blocks) {
        freeCache();
        cache = arena.device()
                .allocate(
                        activations(arena.device()),
                        config.numLayers(),
                        blocks + 1L,
                        StepInputs.BLOCK_TOKENS,
                        config.kvDim());
        caches = cache.split();
    }

    /** Frees the KV cache. */
    public void freeCache() {
        if (cache != null) {
            cache.close();
            cache = null;
        }
    }

    /** The block that belongs to no sequence; what is written there is never read. */
    public int dumpBlock() {
        return (int) cache.size(1) - 1;
    }

    /** The model's operations: to profile them, or to go on with its logits. */
    public Ops ops() {
        return ops;
    }

    /** The step to fill before {@link #forward}. */
    public StepInputs inputs() {
        return inputs;
    }

    public ModelConfig config() {
        return config;
    }

    /**
     * Runs the step that {@link #inputs} has uploaded: appends its tokens to the cache and gives the logits F32 [sampled,
     * vocab] that follow them. The tensor is the model's own, good until the next step.
     */
    public Tensor forward() {
        begin(inputs.tokens());
        attention.begin(inputs);

        ops.section("embedding");
        inputs.gatherIds(ops);
        ops.embedding(weights.embedding(), inputs.tokenIds(), residual);
        for (int i = 0; i < layers.size(); i++) {
            LayerWeights layer = layers.get(i);
            // The residual takes in what the layer before has added, on the way to the norm.
            norm(i == 0 ? null : delta, layer.layer().inputNorm());
            attention.forward(layer, normed, inputs, caches[i], delta);
            norm(delta, layer.layer().postAttentionNorm());
            feedForward.forward(layer, normed, delta);
        }
        if (inputs.sampled() > 0) {
            norm(delta, weights.finalNorm());
            ops.section("logits");
            ops.embedding(normed, inputs.sampledRows(), sampled);
            ops.gemm(sampled, weights.lmHead(), logits);
        }
        return logits;
    }

    /** residual += added, where there is any; normed = norm(residual). */
    private void norm(Tensor added, Tensor weight) {
        ops.section("norm");
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
        freeCache();
        inputs.close();
        arena.close();
    }
}
