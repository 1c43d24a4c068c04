package io.github.sparkmla.model;

import io.github.sparkmla.checkpoint.ModelConfig;
import io.github.sparkmla.tensor.Arena;
import io.github.sparkmla.tensor.DType;
import io.github.sparkmla.tensor.Ops;
import io.github.sparkmla.tensor.Tensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.function.IntFunction;

/**
 * Weights for measuring a model's shape without its checkpoint: seeded normal values with the config's {@code
 * initializer_range}, norms of 1, biases of 0; matrices in BF16.
 */
final class DummyWeights implements Weights.Source {
    private static final short ONE = 0x3F80; // BF16

    private final Arena arena;
    private final Ops ops;
    private final float std;
    private long seed;

    DummyWeights(ModelConfig config, Arena arena) {
        this.arena = arena;
        this.ops = new Ops(arena.device());
        this.std = config.initializerRange();
    }

    @Override
    public Tensor matrix(long out, long in, String... names) {
        Tensor matrix = arena.allocate(DType.BF16, names.length * out, in);
        ops.fillNormal(matrix, std, seed++);
        return matrix;
    }

    @Override
    public Tensor weight(long out, long in, String... names) {
        return arena.pack(matrix(out, in, names));
    }

    @Override
    public Tensor[] experts(int count, long out, long in, IntFunction<String[]> names) {
        long rows = names.apply(0).length * out;
        Tensor all = arena.allocate(DType.BF16, count, rows, in);
        ops.fillNormal(all, std, seed++);
        return all.split();
    }

    @Override
    public Tensor vector(String name, long size, boolean exact) {
        Tensor vector = arena.allocate(exact ? DType.F32 : DType.BF16, size);
        ByteBuffer values = ByteBuffer.allocateDirect((int) vector.bytes()).order(ByteOrder.nativeOrder()); // zeros
        if (name.contains("norm")) {
            for (int i = 0; i < size; i++) {
                values.putShort(2 * i, ONE);
            }
        }
        arena.device().copy(values, vector);
        return vector;
    }
}
