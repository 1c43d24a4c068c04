package io.github.sparkmla.spark;

import io.github.sparkmla.engine.DeviceFailure;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.TimeUnit;
import org.apache.spark.SparkEnv;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * A GPU that is lost to a process stays so until the process ends: every later call on it fails. So the executor ends,
 * and Spark runs its tasks elsewhere. A driver that is its own executor (local mode) goes on, for its user's sake, and
 * its job fails.
 */
final class FatalDevice {
    private static final Logger log = LoggerFactory.getLogger(FatalDevice.class);

    /** The executor's exit code; the RAPIDS Accelerator's is 20, and Spark's own are below 100 too. */
    static final int EXIT_CODE = 120;

    private static final long LAST_WORDS_SECONDS = 10;

    private FatalDevice() {}

    /** Ends the executor where this failure says that the device is lost. */
    static void exitIfLost(Throwable failure) {
        if (DeviceFailure.isFatal(failure)) {
            exit(failure);
        }
    }

    private static void exit(Throwable failure) {
        log.error("The GPU is lost to this process. Its state:\n{}", deviceState(), failure);
        SparkEnv env = SparkEnv.get();
        if (env == null || env.executorId().equals(SparkSettings.DRIVER)) {
            log.error("This is the driver, which goes on; restart it to use the GPU again");
            return;
        }
        log.error("Executor {} ends with exit code {}; Spark runs its tasks elsewhere", env.executorId(), EXIT_CODE);
        // Not System.exit: shutdown hooks would call into the lost device, and may never return from there.
        Runtime.getRuntime().halt(EXIT_CODE);
    }

    private static String deviceState() {
        try {
            Process process =
                    new ProcessBuilder("nvidia-smi").redirectErrorStream(true).start();
            if (!process.waitFor(LAST_WORDS_SECONDS, TimeUnit.SECONDS)) {
                process.destroyForcibly();
                return "nvidia-smi does not answer";
            }
            return new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        } catch (IOException e) {
            return "nvidia-smi cannot be run: " + e.getMessage();
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            return "interrupted before nvidia-smi answered";
        }
    }
}
