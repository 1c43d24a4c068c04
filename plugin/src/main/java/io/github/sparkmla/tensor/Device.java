package io.github.sparkmla.tensor;

import static io.github.sparkmla.tensor.NativeException.check;

import io.github.sparkmla.natives.Mla;
import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.Loader;
import org.bytedeco.javacpp.LongPointer;
import org.bytedeco.javacpp.Pointer;

/**
 * A native context: one device, its stream and its scratch memory. Owned by one thread at a time. Every tensor that it
 * allocated or mapped must be closed first; {@link #close} refuses to leave any behind.
 */
public final class Device implements AutoCloseable {
    /** The CUDA backend in the jar, beside the bindings' own libraries; not there where the build had no CUDA. */
    private static final String CUDA_LIBRARY = "/io/github/sparkmla/natives/linux-x86_64/libmla_cuda.so";

    final Mla.mla_context context;
    private final String kind;
    private long openBuffers;
    private long openBytes;

    private Device(Mla.mla_context context, String kind) {
        this.context = context;
        this.kind = kind;
    }

    /**
     * Opens a device.
     *
     * @param kind {@code cpu}, {@code cuda}, or {@code auto}: cuda where there is one, else cpu
     * @param ordinal which CUDA device
     * @param threads CPU threads of the context, 0 for all that the process may use
     */
    public static Device open(String kind, int ordinal, int threads) {
        return switch (kind) {
            case "cpu", "cuda" -> create(kind, ordinal, threads);
            case "auto" -> {
                try {
                    yield create("cuda", ordinal, threads);
                } catch (NativeException e) {
                    if (!e.isNoDevice()) {
                        throw e;
                    }
                    yield create("cpu", 0, threads);
                }
            }
            default -> throw new IllegalArgumentException("device must be auto, cpu or cuda, got '" + kind + "'");
        };
    }

    private static Device create(String kind, int ordinal, int threads) {
        Mla.mla_context context = new Mla.mla_context();
        check(Mla.mla_context_create(kind, ordinal, threads, kind.equals("cuda") ? cudaLibrary() : null, context));
        return new Device(context, kind);
    }

    /** The file of the CUDA backend, taken out of the jar into JavaCPP's cache; null where there is none. */
    private static String cudaLibrary() {
        try {
            File library = Loader.cacheResource(Mla.class, CUDA_LIBRARY);
            return library == null ? null : library.getPath();
        } catch (IOException e) {
            throw new UncheckedIOException(
                    "cannot take the CUDA backend out of the jar into JavaCPP's cache folder", e);
        }
    }

    /** Whether this is a GPU. */
    public boolean isCuda() {
        return kind.equals("cuda");
    }

    /** The device's own name. */
    public String name() {
        return info().name;
    }

    /** Bytes of memory that nobody has taken, of the GPU or of the host. */
    public long freeBytes() {
        return info().freeBytes;
    }

    private record Info(long freeBytes, String name) {}

    private Info info() {
        try (LongPointer free = new LongPointer(1);
                LongPointer total = new LongPointer(1);
                BytePointer name = new BytePointer(256)) {
            check(Mla.mla_device_info(context, free, total, name, 256));
            return new Info(free.get(), name.limit(0).getString()); // limit 0: up to the NUL
        }
    }

    /** Whether a row's result must not depend on the other rows of a call; always so on the CPU. */
    public void setDeterministic(boolean on) {
        check(Mla.mla_set_deterministic(context, on ? 1 : 0));
    }

    /** A new tensor, contents undefined. */
    public Tensor allocate(DType dtype, long... shape) {
        long bytes = Math.max(dtype.bytes(), dtype.bytes() * Tensor.elements(shape));
        Mla.mla_buffer buffer = new Mla.mla_buffer();
        check(Mla.mla_buffer_create(context, bytes, buffer));
        return owned(buffer, bytes, dtype, shape);
    }

    /** A tensor over a part of a file, read-only. On the CPU nothing is copied: the file is mapped. */
    public Tensor map(Path file, long offset, DType dtype, long... shape) {
        long bytes = dtype.bytes() * Tensor.elements(shape);
        Mla.mla_buffer buffer = new Mla.mla_buffer();
        check(Mla.mla_buffer_map(context, file.toString(), offset, bytes, buffer));
        if (offset % dtype.bytes() == 0) {
            return owned(buffer, bytes, dtype, shape);
        }
        // Kernels read whole elements; a file that does not align them is rare enough to be copied.
        try {
            Tensor copy = allocate(dtype, shape);
            check(Mla.mla_copy_from_host(context, copy.handle.data(), Mla.mla_buffer_data(buffer), bytes));
            return copy;
        } finally {
            Mla.mla_buffer_destroy(buffer);
        }
    }

    /** See {@link Arena#pack}; frees nothing. */
    Tensor pack(Tensor weight) {
        long bytes;
        try (LongPointer wanted = new LongPointer(1)) {
            check(Mla.mla_packed_bytes(context, weight.handle, wanted));
            bytes = wanted.get();
        }
        if (bytes == 0) {
            return weight;
        }
        Mla.mla_buffer buffer = new Mla.mla_buffer();
        check(Mla.mla_buffer_create(context, bytes, buffer));
        DType panels = weight.dtype() == DType.BF16 ? DType.BF16_PANELS : DType.F32_PANELS;
        Tensor packed = owned(buffer, bytes, panels, weight.shape());
        check(Mla.mla_pack(context, weight.handle, packed.handle));
        return packed;
    }

    /** Fills {@code to}, packed, with the bytes of {@code from}, a tensor of the same size in the host's memory. */
    public void copy(Tensor from, Tensor to) {
        check(Mla.mla_copy_from_host(context, to.handle.data(), from.handle.data(), to.bytes()));
    }

    /** Fills {@code to}, packed, with the bytes of a direct buffer. */
    public void copy(ByteBuffer from, Tensor to) {
        check(Mla.mla_copy_from_host(context, to.handle.data(), new Pointer(from), to.bytes()));
    }

    /** Host memory that the device copies from and to directly. */
    Mla.mla_buffer hostBuffer(long bytes) {
        Mla.mla_buffer buffer = new Mla.mla_buffer();
        check(Mla.mla_host_buffer_create(context, bytes, buffer));
        openBuffers++;
        openBytes += bytes;
        return buffer;
    }

    private Tensor owned(Mla.mla_buffer buffer, long bytes, DType dtype, long[] shape) {
        openBuffers++;
        openBytes += bytes;
        return new Tensor(this, buffer, Mla.mla_buffer_data(buffer).address(), dtype, shape, Tensor.packed(shape));
    }

    void release(Mla.mla_buffer buffer) {
        openBuffers--;
        openBytes -= Mla.mla_buffer_bytes(buffer);
        Mla.mla_buffer_destroy(buffer);
    }

    /** Bytes of the tensors that are open, mapped files included. */
    public long openBytes() {
        return openBytes;
    }

    /** Waits until all work of the device is done. */
    public void synchronize() {
        check(Mla.mla_synchronize(context));
    }

    /** Frees the context. Throws when tensors are still open: a leak is a bug to be seen, not to be cleaned up. */
    @Override
    public void close() {
        if (openBuffers != 0) {
            throw new IllegalStateException(openBuffers + " tensors of this device are still open");
        }
        Mla.mla_context_destroy(context);
    }
}
