package io.github.sparkmla.tensor;

import static io.github.sparkmla.tensor.NativeException.check;

import io.github.sparkmla.natives.Mla;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.nio.LongBuffer;
import java.util.ArrayList;
import java.util.List;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.Pointer;

/**
 * What crosses between Java and the device at every step: sections side by side in one host buffer that the device copies
 * directly, and the same in device memory, so that any number of small tensors crosses in one copy. Sections are declared
 * first, then {@link #allocate} gives them memory. Their addresses on the device stay the same, whatever is copied.
 *
 * <p>There may be several host buffers, of which one is in use: so the host prepares a step while the one before is still
 * on its way.
 */
public final class Staging implements AutoCloseable {
    /** Sections begin at multiples of this, as kernels like them. */
    private static final int ALIGNMENT = 256;

    private final Device device;
    private final Mla.mla_buffer[] hosts;
    private final List<Section> sections = new ArrayList<>();
    private long bytes;
    private Tensor memory;
    private int used;

    /** With so many host buffers. */
    public Staging(Device device, int hostBuffers) {
        this.device = device;
        this.hosts = new Mla.mla_buffer[hostBuffers];
    }

    /** Declares the next section. */
    public Section section(DType dtype, long... shape) {
        Section section = new Section(dtype, shape, bytes);
        sections.add(section);
        bytes = (section.end() + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        return section;
    }

    /** Gives all sections their memory. */
    public void allocate() {
        memory = device.allocate(DType.I32, bytes / DType.I32.bytes());
        sections.forEach(section -> section.place(memory, hosts.length));
        for (int i = 0; i < hosts.length; i++) {
            hosts[i] = device.hostBuffer(bytes);
            ByteBuffer whole = new BytePointer(Mla.mla_buffer_data(hosts[i]))
                    .capacity(bytes)
                    .asByteBuffer()
                    .order(ByteOrder.nativeOrder());
            for (Section section : sections) {
                section.hosts[i] = section.of(whole);
            }
        }
    }

    /** Takes this host buffer, counted from 0, until told otherwise. */
    public void use(int hostBuffer) {
        used = hostBuffer;
        sections.forEach(section -> section.used = hostBuffer);
    }

    /**
     * Sends everything up to the end of the first {@code rows} of {@code last}, ordered on the stream. The host buffer
     * must stay as it is until the device has done it.
     */
    public void upload(Section last, long rows) {
        check(Mla.mla_copy_from_host_async(
                device.context, memory.handle.data(), Mla.mla_buffer_data(hosts[used]), last.end(rows)));
    }

    /**
     * Fetches everything from {@code first} to the end of the first {@code rows} of {@code last}; there once the device is
     * done.
     */
    public void download(Section first, Section last, long rows) {
        Pointer to = Mla.mla_buffer_data(hosts[used]);
        Pointer there = new BytePointer(to).position(first.offset);
        check(Mla.mla_copy_to_host_async(
                device.context, there, first.tensor.handle.data(), last.end(rows) - first.offset));
    }

    @Override
    public void close() {
        if (memory != null) {
            memory.close();
            for (Mla.mla_buffer host : hosts) {
                device.release(host);
            }
            memory = null;
        }
    }

    /** One tensor with its host copy. */
    public static final class Section {
        private final DType dtype;
        private final long[] shape;
        private final long offset;
        private Tensor tensor;
        private Host[] hosts;
        private int used;

        /** A host buffer's part. */
        private record Host(IntBuffer ints, LongBuffer longs, FloatBuffer floats) {}

        private Section(DType dtype, long[] shape, long offset) {
            this.dtype = dtype;
            this.shape = shape;
            this.offset = offset;
        }

        private long end() {
            return end(shape[0]);
        }

        private long end(long rows) {
            return offset + Tensor.elements(shape) / shape[0] * rows * dtype.bytes();
        }

        private void place(Tensor memory, int hostBuffers) {
            tensor = memory.at(offset, dtype, shape);
            hosts = new Host[hostBuffers];
        }

        private Host of(ByteBuffer whole) {
            ByteBuffer part = whole.slice((int) offset, (int) (end() - offset)).order(ByteOrder.nativeOrder());
            return new Host(part.asIntBuffer(), part.asLongBuffer(), part.asFloatBuffer());
        }

        /** The device's copy. */
        public Tensor tensor() {
            return tensor;
        }

        /** Where this begins, in elements from the start of the first section, were all of this type. */
        public int index() {
            return (int) (offset / dtype.bytes());
        }

        /** The host copy in use as ints; use absolute indices. */
        public IntBuffer ints() {
            return hosts[used].ints;
        }

        /** The copy in this host buffer as ints; use absolute indices. */
        public IntBuffer ints(int hostBuffer) {
            return hosts[hostBuffer].ints;
        }

        /** The copy in this host buffer as floats; use absolute indices. */
        public FloatBuffer floats(int hostBuffer) {
            return hosts[hostBuffer].floats;
        }

        /** The host copy in use as longs; use absolute indices. */
        public LongBuffer longs() {
            return hosts[used].longs;
        }

        /** The host copy in use as floats; use absolute indices. */
        public FloatBuffer floats() {
            return hosts[used].floats;
        }
    }
}
