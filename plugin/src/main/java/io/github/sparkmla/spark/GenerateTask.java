package io.github.sparkmla.spark;

import io.github.sparkmla.engine.EngineSettings;
import java.nio.file.Path;
import java.util.Iterator;
import org.apache.spark.TaskContext;
import org.apache.spark.api.java.function.MapPartitionsFunction;
import org.apache.spark.sql.Row;
import org.apache.spark.util.TaskCompletionListener;

/** The operator: generates for the rows of one partition, on the executor's shared engine. */
final class GenerateTask implements MapPartitionsFunction<Row, Row> {
    private final GenerateSpec spec;

    GenerateTask(GenerateSpec spec) {
        this.spec = spec;
    }

    @Override
    public Iterator<Row> call(Iterator<Row> input) {
        if (!input.hasNext()) {
            return input; // an empty partition needs no model
        }
        TaskContext context = TaskContext.get();
        Engines.Lease lease = lease(context);
        // Whatever ends the task (success, failure, kill, a LIMIT that needs no more rows) ends what it has in flight.
        context.addTaskCompletionListener((TaskCompletionListener) ended -> lease.close());
        GenerateIterator rows = new GenerateIterator(
                input, spec, lease, context::killTaskIfInterrupted, "partition " + context.partitionId());
        context.addTaskCompletionListener((TaskCompletionListener) ended -> rows.close());
        return rows;
    }

    private Engines.Lease lease(TaskContext context) {
        EngineSettings settings = spec.conf().engineSettings(SparkMlaPlugin.gpuOrdinal(context.resourcesJMap()));
        return Engines.ofThisJvm()
                .lease(new Engines.Key(Path.of(spec.model()), settings), context::killTaskIfInterrupted);
    }
}
