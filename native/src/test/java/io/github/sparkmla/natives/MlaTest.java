package io.github.sparkmla.natives;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.github.sparkmla.natives.Mla.mla_context;
import io.github.sparkmla.natives.Mla.mla_tensor;
import java.io.File;
import java.io.IOException;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.IntPointer;
import org.bytedeco.javacpp.Loader;
import org.bytedeco.javacpp.Pointer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** The generated bindings reach the library: structs, arrays of structs, NULL operands, messages. */
class MlaTest {
    private final mla_context context = new mla_context();

    @BeforeEach
    void createContext() {
        assertEquals(Mla.MLA_OK, Mla.mla_context_create("cpu", 0, 1, null, context));
    }

    @AfterEach
    void destroyContext() {
        Mla.mla_context_destroy(context);
    }

    @Test
    void gemmComputesTheProduct() {
        try (FloatPointer x = new FloatPointer(1, 2, 3, 4);
                FloatPointer w = new FloatPointer(5, 6, 7, 8, 9, 10);
                FloatPointer out = new FloatPointer(6)) {
            int status = Mla.mla_gemm(context, matrix(x, 2, 2), matrix(w, 3, 2), null, matrix(out, 2, 3));

            assertEquals(Mla.MLA_OK, status);
            float[] values = new float[6];
            out.get(values);
            assertArrayEquals(new float[] {17, 23, 29, 39, 53, 67}, values);
        }
    }

    @Test
    void groupedGemmTakesAnArrayOfTensors() {
        try (FloatPointer x = new FloatPointer(1, 2, 3, 4);
                FloatPointer first = new FloatPointer(1, 0, 0, 1);
                FloatPointer second = new FloatPointer(0, 10, 10, 0);
                IntPointer offsets = new IntPointer(0, 1, 2);
                FloatPointer out = new FloatPointer(4);
                mla_tensor weights = new mla_tensor(2)) {
            fill(weights.position(0), first, Mla.MLA_F32, 2, 2);
            fill(weights.position(1), second, Mla.MLA_F32, 2, 2);
            weights.position(0);
            mla_tensor groups = fill(new mla_tensor(), offsets, Mla.MLA_I32, 3);

            int status = Mla.mla_moe_gemm(
                    context, matrix(x, 2, 2), null, groups, weights, 2, Mla.MLA_IDENTITY, matrix(out, 2, 2));

            assertEquals(Mla.MLA_OK, status);
            float[] values = new float[4];
            out.get(values);
            assertArrayEquals(new float[] {1, 2, 40, 30}, values);
        }
    }

    @Test
    void anErrorBringsItsWords() {
        try (FloatPointer x = new FloatPointer(4);
                FloatPointer w = new FloatPointer(6);
                FloatPointer out = new FloatPointer(6)) {
            int status = Mla.mla_gemm(context, matrix(x, 2, 2), matrix(w, 2, 3), null, matrix(out, 2, 2));

            assertEquals(Mla.MLA_INVALID_ARGUMENT, status);
            String words = Mla.mla_last_error().getString();
            assertTrue(words.contains("w is F32 [2, 3]"), words);
        }
    }

    @Test
    void eventsAndGraphsAreHandles() {
        Mla.mla_event from = new Mla.mla_event();
        Mla.mla_event to = new Mla.mla_event();
        Mla.mla_graph graph = new Mla.mla_graph();
        assertEquals(Mla.MLA_OK, Mla.mla_event_create(context, from));
        assertEquals(Mla.MLA_OK, Mla.mla_event_create(context, to));
        try (FloatPointer milliseconds = new FloatPointer(1)) {
            assertEquals(Mla.MLA_OK, Mla.mla_event_record(context, from));
            assertEquals(Mla.MLA_OK, Mla.mla_event_record(context, to));
            assertEquals(Mla.MLA_OK, Mla.mla_event_synchronize(context, to));
            assertEquals(Mla.MLA_OK, Mla.mla_event_elapsed(context, from, to, milliseconds));
            assertTrue(milliseconds.get() >= 0);
        }
        Mla.mla_event_destroy(from);
        Mla.mla_event_destroy(to);

        assertEquals(Mla.MLA_UNSUPPORTED, Mla.mla_graph_begin(context));
        assertEquals(Mla.MLA_UNSUPPORTED, Mla.mla_graph_end(context, graph));
        assertTrue(graph.isNull());
    }

    @Test
    void cudaWithoutItsLibraryIsRefused() {
        mla_context cuda = new mla_context();

        assertEquals(Mla.MLA_NO_DEVICE, Mla.mla_context_create("cuda", 0, 0, null, cuda));
        assertTrue(cuda.isNull());
    }

    /** Loads on any machine; says in words why there is no device, and never becomes the CPU. */
    @Test
    void theCudaLibraryLoadsWithoutADriver() throws IOException {
        File library = Loader.cacheResource(Mla.class, "linux-x86_64/libmla_cuda.so");
        if (library == null) {
            assertNull(System.getenv("CI"), "CI builds the CUDA backend, but it is not beside the bindings");
            assumeTrue(false, "this build found no nvcc and has no CUDA backend");
        }
        mla_context cuda = new mla_context();

        int status = Mla.mla_context_create("cuda", 10_000, 0, library.getPath(), cuda);

        String words = Mla.mla_last_error().getString();
        assertEquals(Mla.MLA_NO_DEVICE, status, words);
        assertTrue(cuda.isNull());
        assertTrue(words.contains("driver") || words.contains("no CUDA device 10000"), words);
    }

    private static mla_tensor matrix(Pointer data, long rows, long columns) {
        return fill(new mla_tensor(), data, Mla.MLA_F32, rows, columns);
    }

    private static mla_tensor fill(mla_tensor tensor, Pointer data, int dtype, long... shape) {
        tensor.data(data).dtype(dtype).rank(shape.length);
        long stride = 1;
        for (int i = shape.length - 1; i >= 0; i--) {
            tensor.shape(i, shape[i]).stride(i, stride);
            stride *= shape[i];
        }
        return tensor;
    }
}
