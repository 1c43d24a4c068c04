package io.github.sparkmla.checkpoint;

import io.github.sparkmla.checkpoint.ModelConfig.Rope;
import io.github.sparkmla.checkpoint.ModelConfig.Yarn;

/**
 * The numbers of rotary embedding and YaRN, as transformers computes them ({@code modeling_rope_utils} and
 * {@code yarn_apply_mscale} of the DeepSeek models).
 *
 * <p>YaRN acts on the magnitude twice: once on cos and sin, by the quotient of two mscales (1 for every published
 * DeepSeek model), and once on the softmax scale, by the square of the mscale of {@code mscale_all_dim}.
 */
final class RopeMath {
    private RopeMath() {}

    static float[] inverseFrequencies(Rope rope, int dim) {
        float[] frequencies = new float[dim / 2];
        for (int i = 0; i < frequencies.length; i++) {
            double rotated = Math.pow(rope.theta(), -2.0 * i / dim);
            frequencies[i] = (float) (rope.yarn() == null ? rotated : rotated * interpolation(rope, dim, i));
        }
        return frequencies;
    }

    /** Between 1 (fast dimensions keep their frequency) and 1/factor (slow ones are stretched over the longer context). */
    private static double interpolation(Rope rope, int dim, int pair) {
        Yarn yarn = rope.yarn();
        double low = correctionDim(yarn.betaFast(), rope, dim);
        double high = correctionDim(yarn.betaSlow(), rope, dim);
        if (yarn.truncate()) {
            low = Math.floor(low);
            high = Math.ceil(high);
        }
        low = Math.max(low, 0);
        high = Math.min(high, dim - 1);
        double width = low == high ? 0.001 : high - low;
        double ramp = Math.min(Math.max((pair - low) / width, 0), 1);
        return ramp / yarn.factor() + 1 - ramp;
    }

    /** The (fractional) pair that turns {@code rotations} times over the original context. */
    private static double correctionDim(double rotations, Rope rope, int dim) {
        double positions = rope.yarn().originalMaxPositions();
        return dim * Math.log(positions / (rotations * 2 * Math.PI)) / (2 * Math.log(rope.theta()));
    }

    static float attentionFactor(Rope rope) {
        Yarn yarn = rope.yarn();
        if (yarn == null) {
            return 1;
        }
        if (yarn.attentionFactor() != null) {
            return yarn.attentionFactor().floatValue();
        }
        // Only both together count; with one of them missing transformers falls back to the paper's 0.1 ln s + 1.
        if (yarn.mscale() != 0 && yarn.mscaleAllDim() != 0) {
            return (float) (mscale(yarn.factor(), yarn.mscale()) / mscale(yarn.factor(), yarn.mscaleAllDim()));
        }
        return (float) mscale(yarn.factor(), 1);
    }

    static float softmaxScale(Rope rope, int qkHeadDim) {
        double scale = 1 / Math.sqrt(qkHeadDim);
        Yarn yarn = rope.yarn();
        if (yarn != null && yarn.mscaleAllDim() != 0) {
            double mscale = mscale(yarn.factor(), yarn.mscaleAllDim());
            scale *= mscale * mscale;
        }
        return (float) scale;
    }

    private static double mscale(double factor, double coefficient) {
        return factor <= 1 ? 1 : 0.1 * coefficient * Math.log(factor) + 1;
    }
}
