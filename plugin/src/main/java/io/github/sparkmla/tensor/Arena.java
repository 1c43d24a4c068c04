package io.github.sparkmla.tensor;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** Tensors that live and are freed together. */
public final class Arena implements AutoCloseable {
    private final Device device;
    private final List<Tensor> tensors = new ArrayList<>();

    public Arena(Device device) {
        this.device = device;
    }

    public Device device() {
        return device;
    }

    /** A new tensor, contents undefined. */
    public Tensor allocate(DType dtype, long... shape) {
        Tensor tensor = device.allocate(dtype, shape);
        tensors.add(tensor);
        return tensor;
    }

    /** A tensor over a part of a file, read-only; see {@link Device#map}. */
    public Tensor map(Path file, long offset, DType dtype, long... shape) {
        Tensor tensor = device.map(file, offset, dtype, shape);
        tensors.add(tensor);
        return tensor;
    }

    /**
     * A matrix [N, K], or a batch of them, for products alone, laid out as the device reads it fastest. It takes the place of
     * {@code weight}, which is freed unless it is a view; where nothing is to be gained it is {@code weight} itself.
     */
    public Tensor pack(Tensor weight) {
        Tensor packed = device.pack(weight);
        if (packed != weight) {
            int old = tensors.lastIndexOf(weight);
            if (old >= 0) {
                tensors.remove(old).close();
            }
            tensors.add(packed);
        }
        return packed;
    }

    /** Frees everything. */
    @Override
    public void close() {
        tensors.forEach(Tensor::close);
        tensors.clear();
    }
}
