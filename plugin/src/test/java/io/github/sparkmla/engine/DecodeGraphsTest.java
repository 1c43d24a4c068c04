package io.github.sparkmla.engine;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class DecodeGraphsTest {
    @ParameterizedTest
    @CsvSource({"1, 1", "2, 2", "3, 4", "5, 8", "16, 16", "17, 32", "32, 32", "33, 64", "97, 128", "1023, 1024"})
    void rowsArePaddedToAFewSizes(int sequences, int rows) {
        assertEquals(rows, DecodeGraphs.rows(sequences, 1024));
    }

    @Test
    void neverPastTheLargestStep() {
        for (int max = 1; max <= 200; max++) {
            for (int n = 1; n <= max; n++) {
                int rows = DecodeGraphs.rows(n, max);
                assertTrue(n <= rows && rows <= max, n + " of " + max + " gave " + rows);
            }
        }
    }

    @ParameterizedTest
    @CsvSource({"1, 2560, 16", "16, 2560, 16", "17, 2560, 64", "65, 2560, 256", "1025, 2560, 2560", "3, 5, 5"})
    void tableWidths(int blocks, int max, int width) {
        assertEquals(width, DecodeGraphs.width(blocks, max));
    }
}
