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

    /** Frees everything. */
    @Override
    public void close() {
        tensors.forEach(Tensor::close);
        tensors.clear();
    }
}
