package io.github.sparkmla.tensor;

import io.github.sparkmla.natives.Mla;

/** Element types of tensors, as {@code mla_dtype} in mla.h. */
public enum DType {
    F32(Mla.MLA_F32, 4),
    BF16(Mla.MLA_BF16, 2),
    F16(Mla.MLA_F16, 2),
    F8_E4M3(Mla.MLA_F8_E4M3, 1),
    I32(Mla.MLA_I32, 4),
    I64(Mla.MLA_I64, 8),
    BF16_PANELS(Mla.MLA_BF16_PANELS, 2),
    F32_PANELS(Mla.MLA_F32_PANELS, 4);

    final int code;
    private final int bytes;

    DType(int code, int bytes) {
        this.code = code;
        this.bytes = bytes;
    }

    /** Bytes of one element. */
    public int bytes() {
        return bytes;
    }
}
