package io.github.sparkmla.tensor;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

class StagingTest {
    private final Device device = Device.open("cpu", 0, 1);
    private final Staging staging = new Staging(device, 2);
    private final Staging.Section ids = staging.section(DType.I32, 5);
    private final Staging.Section seeds = staging.section(DType.I64, 3);
    private final Staging.Section top = staging.section(DType.F32, 4, 2);

    @BeforeEach
    void allocate() {
        staging.allocate();
        for (int i = 0; i < 8; i++) {
            ids.ints().put(i % 5, 10 + i % 5);
            seeds.longs().put(i % 3, Long.MIN_VALUE + i % 3);
            top.floats().put(i, i / 4f);
        }
    }

    @AfterEach
    void nothingIsLeft() {
        staging.close();
        assertEquals(0, device.openBytes());
        device.close();
    }

    @Test
    void oneCopyBringsEverySectionUpToTheLast() {
        staging.upload(top, 4);
        assertArrayEquals(new int[] {10, 11, 12, 13, 14}, HostTensors.ints(ids.tensor()));
        assertArrayEquals(
                new long[] {Long.MIN_VALUE, Long.MIN_VALUE + 1, Long.MIN_VALUE + 2}, HostTensors.longs(seeds.tensor()));
        assertArrayEquals(new float[] {0, 0.25f, 0.5f, 0.75f, 1, 1.25f, 1.5f, 1.75f}, HostTensors.floats(top.tensor()));
    }

    @Test
    void whatIsNotSentStaysOnTheDevice() {
        staging.upload(top, 4);
        top.floats().put(0, -1).put(3, -4);
        staging.upload(top, 1);
        assertArrayEquals(
                new float[] {-1, 0.25f, 0.5f, 0.75f, 1, 1.25f, 1.5f, 1.75f}, HostTensors.floats(top.tensor()));
    }

    @Test
    void whatTheDeviceHasComesBack() {
        staging.upload(top, 4);
        ids.ints().put(4, 0);
        top.floats().put(0, 99).put(7, 99);
        staging.download(top, top, 2);
        assertEquals(0, top.floats().get(0));
        assertEquals(99, top.floats().get(7), "past what was asked for");
        assertEquals(0, ids.ints().get(4), "before what was asked for");
        staging.download(ids, top, 4);
        assertEquals(14, ids.ints().get(4));
        assertEquals(1.75f, top.floats().get(7));
    }

    @Test
    void hostBuffersAreApart() {
        staging.use(1);
        ids.ints().put(0, -5);
        staging.upload(ids, 1);
        assertEquals(-5, HostTensors.ints(ids.tensor())[0]);
        staging.use(0);
        assertEquals(10, ids.ints().get(0));
        staging.download(ids, ids, 1);
        assertEquals(-5, ids.ints(0).get(0));
    }
}
