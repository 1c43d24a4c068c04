package io.github.sparkmla.model;

import io.github.sparkmla.checkpoint.ModelConfig;
import io.github.sparkmla.tensor.Arena;
import io.github.sparkmla.tensor.DType;
import io.github.sparkmla.tensor.Tensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;

/** The table of rotary angles. */
final class Rotary {
    private Rotary() {}

    /**
     * F32 [positions, R]: R/2 cosines, then R/2 sines, times YaRN's factor. The angle itself is a float32 product, as
     * in HF.
     */
    static Tensor table(Arena arena, ModelConfig config, int positions) {
        int half = config.qkRopeHeadDim() / 2;
        float[] frequencies = config.inverseFrequencies();
        float factor = config.ropeAttentionFactor();
        Tensor table = arena.allocate(DType.F32, positions, 2L * half);
        ByteBuffer bytes =
                ByteBuffer.allocateDirect(positions * 2 * half * Float.BYTES).order(ByteOrder.nativeOrder());
        FloatBuffer host = bytes.asFloatBuffer();
        for (int p = 0; p < positions; p++) {
            for (int i = 0; i < half; i++) {
                float angle = p * frequencies[i];
                host.put(p * 2 * half + i, (float) Math.cos(angle) * factor);
                host.put(p * 2 * half + half + i, (float) Math.sin(angle) * factor);
            }
        }
        arena.device().copy(bytes, table);
        return table;
    }
}
