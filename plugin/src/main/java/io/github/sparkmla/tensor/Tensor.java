package io.github.sparkmla.tensor;

import io.github.sparkmla.natives.Mla;
import java.util.Arrays;
import org.bytedeco.javacpp.Pointer;

/**
 * A tensor in a device's memory, or a view of one. Shapes are [outer, ..., inner], strides count elements. The tensor
 * that {@link Device} made owns the memory and frees it on close; views only point into it and need no close. The
 * outermost size may be changed within what was allocated, so that one tensor serves steps of any size.
 */
public final class Tensor implements AutoCloseable {
    /** Views hold no native memory but this struct, which JavaCPP would free by itself; nobody frees it twice. */
    final Mla.mla_tensor handle;

    private final Device device;
    private Mla.mla_buffer buffer;
    private long address;
    private final DType dtype;
    private final long[] shape;
    private final long[] stride;
    private final long maxOuter;

    Tensor(Device device, Mla.mla_buffer buffer, long address, DType dtype, long[] shape, long[] stride) {
        this.device = device;
        this.buffer = buffer;
        this.address = address;
        this.dtype = dtype;
        this.shape = shape.clone();
        this.stride = stride.clone();
        this.maxOuter = shape[0];
        this.handle = new Mla.mla_tensor();
        handle.data(new Address(address)).dtype(dtype.code).rank(shape.length);
        for (int d = 0; d < shape.length; d++) {
            handle.shape(d, shape[d]);
            handle.stride(d, stride[d]);
        }
    }

    /** A view with its own shape and strides, {@code offset} elements into this tensor. */
    public Tensor view(long offset, long[] shape, long[] stride) {
        return new Tensor(device, null, address + offset * dtype.bytes(), dtype, shape, stride);
    }

    /** A packed tensor of any type, {@code bytes} into this one's memory; the caller keeps it within. */
    public Tensor at(long bytes, DType type, long... shape) {
        return new Tensor(device, null, address + bytes, type, shape, packed(shape));
    }

    /** Outermost rows [from, from + rows), of the same shape else. */
    public Tensor rows(long from, long rows) {
        if (from < 0 || rows < 0 || from + rows > shape[0]) {
            throw new IllegalArgumentException("no rows " + from + " to " + (from + rows) + " in " + this);
        }
        long[] fewer = shape.clone();
        fewer[0] = rows;
        return view(from * stride[0], fewer, stride);
    }

    /** The outermost rows, one dimension less each. */
    public Tensor[] split() {
        Tensor[] rows = new Tensor[(int) shape[0]];
        for (int i = 0; i < rows.length; i++) {
            rows[i] = view(i * stride[0], tail(shape), tail(stride));
        }
        return rows;
    }

    private static long[] tail(long[] dimensions) {
        return Arrays.copyOfRange(dimensions, 1, dimensions.length);
    }

    /** The same elements under another shape; this tensor must be packed. */
    public Tensor reshape(long... shape) {
        if (elements(shape) != elements(this.shape) || !Arrays.equals(stride, packed(this.shape))) {
            throw new IllegalArgumentException("cannot reshape " + this + " to " + Arrays.toString(shape));
        }
        return view(0, shape, packed(shape));
    }

    /** Columns [from, to) of the innermost dimension. */
    public Tensor columns(long from, long to) {
        int last = shape.length - 1;
        if (from < 0 || to > shape[last] || from >= to) {
            throw new IllegalArgumentException("no columns " + from + " to " + to + " in " + this);
        }
        long[] narrowed = shape.clone();
        narrowed[last] = to - from;
        return view(from * stride[last], narrowed, stride);
    }

    /** Sets the outermost size for the coming calls, at most what was allocated. */
    public void resize(long outer) {
        resize(0, outer);
    }

    /** Sets the size of one dimension; the strides stay. The caller keeps it within the memory. */
    public void resize(int dimension, long size) {
        if (size < 0 || (dimension == 0 && size > maxOuter)) {
            throw new IllegalArgumentException("size " + size + " of dimension " + dimension + " is not within " + this
                    + ", outermost " + maxOuter);
        }
        shape[dimension] = size;
        handle.shape(dimension, size);
    }

    /** Makes this view of a matrix's memory packed, {@code columns} wide; the caller keeps it within the memory. */
    public void repack(long rows, long columns) {
        resize(rows);
        shape[1] = columns;
        stride[0] = columns;
        handle.shape(1, columns).stride(0, columns);
    }

    /** Another view of the same elements, to be resized or moved by itself. */
    public Tensor alias() {
        return view(0, shape, stride);
    }

    /** Makes this view begin {@code row} outermost rows after {@code base} and hold {@code rows} of them. */
    public void moveTo(Tensor base, long row, long rows) {
        address = base.address + row * base.stride[0] * dtype.bytes();
        handle.data(new Address(address));
        shape[0] = rows;
        handle.shape(0, rows);
    }

    public DType dtype() {
        return dtype;
    }

    long[] shape() {
        return shape.clone();
    }

    public long size(int dimension) {
        return shape[dimension];
    }

    /** Bytes of the elements. */
    public long bytes() {
        return dtype.bytes() * elements(shape);
    }

    /** Frees the memory, if this tensor owns it. */
    @Override
    public void close() {
        if (buffer != null) {
            device.release(buffer);
            buffer = null;
        }
    }

    @Override
    public String toString() {
        return dtype + Arrays.toString(shape);
    }

    static long elements(long[] shape) {
        long n = 1;
        for (long s : shape) {
            n = Math.multiplyExact(n, s);
        }
        return n;
    }

    static long[] packed(long[] shape) {
        long[] stride = new long[shape.length];
        long n = 1;
        for (int d = shape.length - 1; d >= 0; d--) {
            stride[d] = n;
            n *= shape[d];
        }
        return stride;
    }

    /** A bare address as JavaCPP wants it. */
    private static final class Address extends Pointer {
        Address(long address) {
            this.address = address;
        }
    }
}
