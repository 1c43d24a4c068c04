package io.github.sparkmla.tensor;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class DeviceTest {
    @TempDir
    Path folder;

    /** Old safetensors files do not align their data; kernels need whole elements. */
    @Test
    void mapsAFileAtAnyOffset() throws Exception {
        Path file = folder.resolve("data");
        for (int offset : new int[] {0, 1, 2, 3, 4, 7, 4096, 4099}) {
            ByteBuffer bytes = ByteBuffer.allocate(offset + 3 * 2 * 4).order(ByteOrder.LITTLE_ENDIAN);
            bytes.position(offset);
            for (int i = 0; i < 6; i++) {
                bytes.putFloat(offset + i / 8f);
            }
            Files.write(file, bytes.array());
            try (Device device = Device.open("cpu", 0, 1);
                    Tensor table = device.map(file, offset, DType.F32, 3, 2);
                    Staging staging = new Staging(device, 1)) {
                Staging.Section ids = staging.section(DType.I32, 1);
                Staging.Section row = staging.section(DType.F32, 1, 2);
                staging.allocate();
                ids.ints().put(0, 2);
                staging.upload(ids, 1);
                new Ops(device).embedding(table, ids.tensor(), row.tensor());
                staging.download(row, row, 1);
                device.synchronize();
                assertEquals(offset + 4 / 8f, row.floats().get(0), "offset " + offset);
                assertEquals(offset + 5 / 8f, row.floats().get(1), "offset " + offset);
            }
        }
    }

    @Test
    void refusesToLeaveTensorsBehind() {
        Device device = Device.open("cpu", 0, 1);
        Tensor tensor = device.allocate(DType.F32, 4, 4);
        assertEquals(64, device.openBytes());
        assertThrows(IllegalStateException.class, device::close);
        tensor.close();
        assertEquals(0, device.openBytes());
        device.close();
    }

    @Test
    void aRequestForAGpuNeverBecomesTheCpu() {
        NativeException e = assertThrows(NativeException.class, () -> Device.open("cuda", 0, 0));
        assertTrue(e.isNoDevice(), e.getMessage());
        try (Device device = Device.open("auto", 0, 0)) {
            assertTrue(device.name().startsWith("CPU"), device.name());
        }
    }

    @Test
    void nativeErrorsNameTheOperand() {
        try (Device device = Device.open("cpu", 0, 1);
                Tensor x = device.allocate(DType.F32, 2, 8);
                Tensor w = device.allocate(DType.F32, 4, 6);
                Tensor out = device.allocate(DType.F32, 2, 4)) {
            NativeException e =
                    assertThrows(NativeException.class, () -> new Ops(device).gemm(x, new Linear(w, null), out));
            assertTrue(e.getMessage().contains("w is F32 [4, 6]"), e.getMessage());
        }
    }
}
