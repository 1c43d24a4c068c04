package io.github.sparkmla.engine;

import io.github.sparkmla.tensor.NativeException;
import java.util.function.Predicate;

/** What a failure of the engine says about its device, for those who must not know the native layer. */
public final class DeviceFailure {
    private DeviceFailure() {}

    /** Whether the device is lost, and with it every context that this process has on it. */
    public static boolean isFatal(Throwable failure) {
        return causedBy(failure, NativeException::isFatal);
    }

    /** Whether something did not fit into the device's memory. */
    public static boolean isOutOfMemory(Throwable failure) {
        return causedBy(failure, NativeException::isOutOfMemory);
    }

    private static boolean causedBy(Throwable failure, Predicate<NativeException> what) {
        for (Throwable cause = failure; cause != null; cause = cause.getCause()) {
            if (cause instanceof NativeException found && what.test(found)) {
                return true;
            }
        }
        return false;
    }
}
