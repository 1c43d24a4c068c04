package io.github.sparkmla.model;

import io.github.sparkmla.tensor.Tensor;
import java.util.function.IntFunction;

/** Adds up the bytes of a model's weights on a GPU: BF16, float32 where a vector has to be exact. Makes no tensor. */
final class WeightBytes implements Weights.Source {
    private long bytes;

    long bytes() {
        return bytes;
    }

    @Override
    public Tensor matrix(long out, long in, String... names) {
        bytes += 2 * out * in * names.length;
        return null;
    }

    @Override
    public Tensor weight(long out, long in, String... names) {
        return matrix(out, in, names);
    }

    @Override
    public Tensor[] experts(int count, long out, long in, IntFunction<String[]> names) {
        for (int i = 0; i < count; i++) {
            matrix(out, in, names.apply(i));
        }
        return new Tensor[count];
    }

    @Override
    public Tensor vector(String name, long size, boolean exact) {
        bytes += (exact ? 4 : 2) * size;
        return null;
    }
}
