package io.github.sparkmla.tensor;

import io.github.sparkmla.natives.Mla;

/** A native call that did not return {@code MLA_OK}; the message is the library's own. */
public final class NativeException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    private final int status;

    NativeException(int status, String message) {
        super(message);
        this.status = status;
    }

    /** The device is out of memory; the context is still usable. */
    public boolean isOutOfMemory() {
        return status == Mla.MLA_OUT_OF_MEMORY;
    }

    /** There is no such device or backend here. */
    public boolean isNoDevice() {
        return status == Mla.MLA_NO_DEVICE;
    }

    /** The device is lost, and with it the process. */
    public boolean isFatal() {
        return status == Mla.MLA_DEVICE_ERROR;
    }

    /** Throws for any status but {@code MLA_OK}. */
    static void check(int status) {
        if (status != Mla.MLA_OK) {
            throw new NativeException(status, Mla.mla_last_error().getString());
        }
    }
}
