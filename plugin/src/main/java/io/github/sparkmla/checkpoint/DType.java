package io.github.sparkmla.checkpoint;

/** The element types of the safetensors format that are whole bytes. */
public enum DType {
    BF16(2, true),
    F16(2, true),
    F32(4, true),
    F8_E4M3(1, true),
    F8_E5M2(1, false),
    F8_E8M0(1, false),
    F64(8, false),
    C64(8, false),
    BOOL(1, false),
    U8(1, false),
    I8(1, false),
    U16(2, false),
    I16(2, false),
    U32(4, false),
    I32(4, false),
    U64(8, false),
    I64(8, false);

    private final int bytes;
    private final boolean weight;

    DType(int bytes, boolean weight) {
        this.bytes = bytes;
        this.weight = weight;
    }

    /** Bytes of one element. */
    public int bytes() {
        return bytes;
    }

    /** Whether weights of this type can be run. */
    public boolean isWeight() {
        return weight;
    }
}
