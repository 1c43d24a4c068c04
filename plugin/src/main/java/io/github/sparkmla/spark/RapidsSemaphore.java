package io.github.sparkmla.spark;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.util.Optional;
import org.apache.spark.TaskContext;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The RAPIDS Accelerator lets only a few tasks onto the GPU at a time, each holding a permit while its operators work
 * there. An operator above ours still holds it when it asks us for more rows, and generation takes minutes: so a task
 * gives its permit back before it waits, as RAPIDS itself does before it waits for Python or for a file. What goes up to
 * the GPU after us takes it again. By reflection, since RAPIDS need not be there.
 */
final class RapidsSemaphore {
    private static final Logger log = LoggerFactory.getLogger(RapidsSemaphore.class);
    private static final String PACKAGE = "com.nvidia.spark.rapids.";

    /** Looked up once: the executor's plugins, and with them RAPIDS, are there before any task. */
    private static final Optional<RapidsSemaphore> OF_THIS_JVM = find();

    private final Object semaphore;
    private final Method release;

    private RapidsSemaphore(Object semaphore, Method release) {
        this.semaphore = semaphore;
        this.release = release;
    }

    /** Gives back the permit of the calling task, if RAPIDS is there and the task has one. */
    static void release() {
        TaskContext task = TaskContext.get();
        if (task != null && OF_THIS_JVM.isPresent()) {
            OF_THIS_JVM.get().release(task);
        }
    }

    private static Optional<RapidsSemaphore> find() {
        // Not just on the class path: to ask for its semaphore would start it.
        if (!new RapidsSettings(SparkSettings.ofThisJvm()).isPlugin()) {
            return Optional.empty();
        }
        try {
            return Optional.of(of(Thread.currentThread().getContextClassLoader()));
        } catch (ReflectiveOperationException | LinkageError e) {
            log.warn(
                    "The RAPIDS Accelerator is here, but not as Spark MLA knows it: its tasks keep the GPU semaphore while"
                            + " they wait for completions",
                    e);
            return Optional.empty();
        }
    }

    /** The semaphore of the RAPIDS Accelerator that this loader finds. */
    static RapidsSemaphore of(ClassLoader loader) throws ReflectiveOperationException {
        // RAPIDS keeps its classes in folders for each Spark, which only its own loader finds.
        Class<?> shims = Class.forName(PACKAGE + "ShimReflectionUtils", true, loader);
        Class<?> type = (Class<?>) shims.getMethod("loadClass", String.class).invoke(null, PACKAGE + "GpuSemaphore$");
        Object semaphore = type.getField("MODULE$").get(null);
        return new RapidsSemaphore(semaphore, type.getMethod("releaseIfNecessary", TaskContext.class));
    }

    private void release(TaskContext task) {
        try {
            release.invoke(semaphore, task);
        } catch (InvocationTargetException | IllegalAccessException e) {
            throw new IllegalStateException("cannot give back the RAPIDS Accelerator's GPU semaphore", e);
        }
    }
}
