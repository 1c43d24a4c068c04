package io.github.sparkmla.spark;

import org.apache.spark.scheduler.AccumulableInfo;
import org.apache.spark.scheduler.SparkListener;
import org.apache.spark.scheduler.SparkListenerTaskEnd;
import scala.jdk.javaapi.CollectionConverters;

/** Where the time of a job goes, by the ends of its tasks that generated. From its making to {@link #finish}, in seconds. */
final class JobTimes extends SparkListener {
    private final long start = System.currentTimeMillis(); // the clock of Spark's events
    private long end;
    private long firstLaunch = Long.MAX_VALUE;
    private long lastFinish = Long.MIN_VALUE;
    private double load;

    @Override
    public synchronized void onTaskEnd(SparkListenerTaskEnd event) {
        for (AccumulableInfo metric :
                CollectionConverters.asJava(event.taskInfo().accumulables())) {
            if (metric.name().contains(GenerateMetrics.Metric.LOAD_TIME.words)
                    && metric.update().get() instanceof Long nanos) {
                firstLaunch = Math.min(firstLaunch, event.taskInfo().launchTime());
                lastFinish = Math.max(lastFinish, event.taskInfo().finishTime());
                load = Math.max(load, nanos / 1e9);
            }
        }
    }

    /** The job is done. What is told of it is right once its last events have been heard, as an observation waits for. */
    synchronized void finish() {
        end = System.currentTimeMillis();
    }

    synchronized double total() {
        return (end - start) / 1e3;
    }

    private boolean nothingGenerated() {
        return firstLaunch > lastFinish;
    }

    /** With the model loaded: from the first task's start to the last one's end. */
    private double generation() {
        return (lastFinish - firstLaunch) / 1e3 - load;
    }

    /** So many tokens a second, of the whole job and, if there are any, of its generation, in words. */
    synchronized String rates(long tokens) {
        String whole = "%,.1f a second".formatted(tokens / total());
        return tokens == 0 || nothingGenerated()
                ? whole
                : whole + "; %,.1f while generating".formatted(tokens / generation());
    }

    /** In words; empty where no task generated. */
    @Override
    public synchronized String toString() {
        return nothingGenerated()
                ? ""
                : " (%.1f s to plan, %.1f to load the model, %.1f to generate, %.1f to commit)"
                        .formatted((firstLaunch - start) / 1e3, load, generation(), (end - lastFinish) / 1e3);
    }
}
