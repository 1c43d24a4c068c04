package io.github.sparkmla.spark;

import io.github.sparkmla.engine.EngineSettings;
import java.io.Serializable;
import java.nio.file.Path;
import java.util.Collections;
import java.util.Iterator;
import org.apache.spark.TaskContext;
import org.apache.spark.sql.catalyst.InternalRow;
import org.apache.spark.sql.catalyst.expressions.Attribute;
import org.apache.spark.sql.catalyst.expressions.UnsafeProjection;
import org.apache.spark.util.TaskCompletionListener;
import scala.collection.immutable.Seq;

/**
 * The work of the operator on one partition, on the executor's shared engine.
 *
 * @param input where a row has its prompt
 * @param output the columns to return
 * @param generated what they are chosen from: the input's columns, then the fields of the result
 */
record GenerateTask(
        GenerateSpec spec, InputColumns input, Seq<Attribute> output, Seq<Attribute> generated, GenerateMetrics metrics)
        implements Serializable {

    /** The rows with what was generated for them. A row is good until the next is asked for, as in all of Spark. */
    Iterator<InternalRow> generate(Iterator<InternalRow> rows) {
        TaskContext context = TaskContext.get();
        EngineSettings settings = spec.conf().engineSettings(SparkMlaPlugin.gpuOrdinal(context.resourcesJMap()));
        // The model loads while Spark computes the first rows.
        Engines.Lease lease = Engines.ofThisJvm().lease(new Engines.Key(Path.of(spec.model()), settings));
        // Whatever ends the task (success, failure, kill, a LIMIT that needs no more rows) ends what it has in flight.
        context.addTaskCompletionListener((TaskCompletionListener) ended -> lease.close());
        UnsafeProjection projection = UnsafeProjection.create(ScalaSeq.of(ScalaSeq.toJava(output)), generated);
        if (!rows.hasNext()) {
            return Collections.emptyIterator(); // an empty partition waits for no model
        }
        awaitModel(lease, context);
        String partition = "partition " + context.partitionId();
        TaskProgress progress = new TaskProgress("Generation of " + partition, metrics, System::nanoTime);
        GenerateIterator results =
                new GenerateIterator(rows, spec, input, lease, context::killTaskIfInterrupted, progress, partition);
        context.addTaskCompletionListener((TaskCompletionListener) ended -> results.close());
        return new Iterator<>() {
            @Override
            public boolean hasNext() {
                return results.hasNext();
            }

            @Override
            public InternalRow next() {
                return projection.apply(results.next());
            }
        };
    }

    private void awaitModel(Engines.Lease lease, TaskContext context) {
        long start = System.nanoTime();
        lease.await(context::killTaskIfInterrupted);
        metrics.loaded(System.nanoTime() - start);
    }
}
