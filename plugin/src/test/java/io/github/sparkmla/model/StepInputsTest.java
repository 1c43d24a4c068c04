package io.github.sparkmla.model;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.sparkmla.tensor.Device;
import io.github.sparkmla.tensor.HostTensors;
import io.github.sparkmla.tensor.Ops;
import io.github.sparkmla.tensor.Tensor;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

class StepInputsTest {
    private final Device device = Device.open("cpu", 0, 1);
    private final StepInputs inputs = new StepInputs(device, new MlaModel.Limits(512, 8, 1000, true));

    @AfterEach
    void close() {
        inputs.close();
        device.close();
    }

    private static int[] tokens(int first, int count) {
        int[] ids = new int[count];
        for (int i = 0; i < count; i++) {
            ids[i] = first + i;
        }
        return ids;
    }

    /** Two decoding sequences of 130 and 64 tokens, then a prefill of tokens 60 to 66. */
    private void threeSequences() {
        inputs.clear(0);
        inputs.add(tokens(1000, 130), 129, 130, true, -1, new int[] {7, 3, 9, 0});
        inputs.draw(130, 0.5f, 40, 0.9f, 77);
        inputs.add(tokens(2000, 64), 63, 64, true, -1, new int[] {5});
        inputs.draw(64, 0, 0, 1, 78);
        inputs.add(tokens(3000, 66), 60, 66, false, -1, new int[] {2, 4});
        inputs.draw(66, 0, 0, 1, 79);
    }

    private int[] ids() {
        inputs.gatherIds(new Ops(device));
        return HostTensors.ints(inputs.tokenIds());
    }

    @Test
    void aStepIsPackedToItsOwnWidth() {
        threeSequences();
        assertEquals(3, inputs.tableWidth());
        inputs.upload(3);
        assertArrayEquals(new int[] {1129, 2063, 3060, 3061, 3062, 3063, 3064, 3065}, ids());
        assertArrayEquals(new int[] {129, 63, 60, 61, 62, 63, 64, 65}, HostTensors.ints(inputs.positions()));
        assertArrayEquals(
                new long[] {
                    9 * 64 + 1, 5 * 64 + 63, 2 * 64 + 60, 2 * 64 + 61, 2 * 64 + 62, 2 * 64 + 63, 4 * 64, 4 * 64 + 1
                },
                HostTensors.longs(inputs.slots()));
        Tensor decodes = inputs.decodeBlockTable();
        assertEquals("I32[2, 3]", decodes.toString());
        int[] table = HostTensors.ints(decodes);
        assertArrayEquals(new int[] {7, 3, 9}, new int[] {table[0], table[1], table[2]});
        assertEquals(5, table[3]);
        Tensor prefills = inputs.prefillBlockTable();
        assertEquals("I32[1, 3]", prefills.toString());
        assertEquals(2, HostTensors.ints(prefills)[0]);
        assertEquals(4, HostTensors.ints(prefills)[1]);
        assertArrayEquals(new int[] {130, 64}, HostTensors.ints(inputs.decodeSeqLens()));
        assertArrayEquals(new int[] {66}, HostTensors.ints(inputs.prefillSeqLens()));
        assertArrayEquals(new int[] {0, 6}, HostTensors.ints(inputs.queryStart()));
        assertArrayEquals(new int[] {0, 1, 7}, HostTensors.ints(inputs.sampledRows()));
        assertArrayEquals(
                new long[] {77, 78, 79}, HostTensors.longs(inputs.draws().seed()));
        assertArrayEquals(
                new int[] {130, 64, 66}, HostTensors.ints(inputs.draws().position()));
        assertArrayEquals(
                new float[] {0.5f, 0, 0}, HostTensors.floats(inputs.draws().temperature()));
    }

    @Test
    void aWiderTableHasTheSameRows() {
        threeSequences();
        inputs.upload(16);
        assertEquals("I32[2, 16]", inputs.decodeBlockTable().toString());
        assertEquals(5, HostTensors.ints(inputs.decodeBlockTable())[16]);
        assertEquals(2, HostTensors.ints(inputs.prefillBlockTable())[0]);
    }

    @Test
    void emptyRowsReadNothingAndWriteToTheDump() {
        inputs.clear(0);
        inputs.add(tokens(1000, 130), 129, 130, true, -1, new int[] {7, 3, 9});
        inputs.draw(130, 0, 0, 1, 77);
        inputs.pad(4, 11);
        inputs.upload(4);
        assertEquals(4, inputs.tokens());
        assertEquals(4, inputs.sampled());
        assertEquals(0, inputs.prefills());
        assertArrayEquals(new int[] {130, 0, 0, 0}, HostTensors.ints(inputs.decodeSeqLens()));
        assertArrayEquals(new int[] {1129, 0, 0, 0}, ids());
        assertArrayEquals(
                new long[] {9 * 64 + 1, 11 * 64 + 1, 11 * 64 + 2, 11 * 64 + 3}, HostTensors.longs(inputs.slots()));
        assertEquals(0, HostTensors.ints(inputs.sampledRows())[0]);
    }

    /** The largest ids have bits that would be a number's payload; none of them may change on the way. */
    @Test
    void tokensThatTheStepBeforeDrewComeFromTheDevice() {
        int[] drawn = {0x7F812345, 163_839, -1, 5};
        threeSequences();
        inputs.upload(3);
        inputs.drawnIds().resize(4);
        HostTensors.put(inputs.drawnIds(), drawn);
        inputs.clear(1);
        inputs.add(tokens(1000, 131), 130, 131, true, 2, new int[] {7, 3, 9});
        inputs.draw(131, 0, 0, 1, 77);
        inputs.add(tokens(2000, 66), 64, 66, false, 0, new int[] {5, 6});
        inputs.draw(66, 0, 0, 1, 78);
        inputs.add(tokens(3000, 70), 66, 70, false, 1, new int[] {2, 4});
        inputs.upload(3);
        assertArrayEquals(new int[] {-1, 2064, 0x7F812345, 3066, 3067, 3068, 163_839}, ids());
        inputs.fetchDrawn(2);
        assertEquals(0x7F812345, inputs.drawn(1, 0));
        assertEquals(163_839, inputs.drawn(1, 1));
    }

    @Test
    void theLastTokenOfAPromptPrefillsAlone() {
        threeSequences();
        inputs.add(tokens(4000, 5), 4, 5, false, -1, new int[] {8});
        inputs.upload(3);
        assertEquals(2, inputs.prefills());
        assertArrayEquals(new int[] {0, 6, 7}, HostTensors.ints(inputs.queryStart()));
        assertArrayEquals(new int[] {66, 5}, HostTensors.ints(inputs.prefillSeqLens()));
    }

    /** A token that is computed again draws nothing; a graph's draws are as many as its rows all the same. */
    @Test
    void drawsAreFilledUp() {
        inputs.clear(0);
        inputs.add(tokens(1000, 130), 70, 71, true, -1, new int[] {7, 3});
        inputs.add(tokens(2000, 64), 63, 64, true, -1, new int[] {5});
        inputs.draw(64, 0.5f, 0, 1, 78);
        inputs.pad(4, 11);
        inputs.upload(4);
        assertEquals(4, inputs.sampled());
        assertArrayEquals(new int[] {71, 64, 0, 0}, HostTensors.ints(inputs.decodeSeqLens()));
        int[] rows = HostTensors.ints(inputs.sampledRows());
        assertEquals(1, rows[0]);
        for (int row : rows) {
            assertTrue(row >= 0 && row < 4, "row " + row);
        }
        assertArrayEquals(
                new long[] {78, 0, 0, 0}, HostTensors.longs(inputs.draws().seed()));
    }

    @Test
    void whatDecodesComesFirstWithOneToken() {
        threeSequences();
        assertThrows(IllegalStateException.class, () -> inputs.add(tokens(0, 5), 4, 5, true, -1, new int[] {1}));
        inputs.clear(0);
        assertThrows(IllegalStateException.class, () -> inputs.add(tokens(0, 5), 3, 5, true, -1, new int[] {1}));
    }
}
