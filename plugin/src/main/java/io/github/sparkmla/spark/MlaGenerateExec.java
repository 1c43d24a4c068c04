package io.github.sparkmla.spark;

import java.util.List;
import java.util.Objects;
import org.apache.spark.rdd.RDD;
import org.apache.spark.sql.catalyst.InternalRow;
import org.apache.spark.sql.catalyst.expressions.Attribute;
import org.apache.spark.sql.catalyst.expressions.AttributeSet;
import org.apache.spark.sql.catalyst.expressions.AttributeSet$;
import org.apache.spark.sql.catalyst.expressions.Expression;
import org.apache.spark.sql.catalyst.expressions.SortOrder;
import org.apache.spark.sql.catalyst.plans.physical.Partitioning;
import org.apache.spark.sql.execution.SparkPlan;
import org.apache.spark.sql.execution.metric.SQLMetric;
import org.apache.spark.sql.vectorized.ColumnarBatch;
import scala.collection.Iterator;
import scala.collection.immutable.IndexedSeq;
import scala.collection.immutable.Map;
import scala.collection.immutable.Seq;
import scala.jdk.javaapi.CollectionConverters;

/**
 * The operator: generates for each row of its child, in order, and returns the columns of the child and of the result
 * that are needed above. Takes and returns rows. Where its child has columns (in host memory) it can also take and return
 * columns, if that is what the operator above wants: the RAPIDS Accelerator does, and puts its copies from and to the GPU
 * around it.
 */
public final class MlaGenerateExec extends SparkPlan {
    private static final long serialVersionUID = 1L;

    private final Expression prompt;
    private final Seq<Expression> key;
    private final GenerateSpec spec;
    private final Seq<Attribute> results;
    private final Seq<Attribute> output;
    private final SparkPlan child;
    private transient GenerateMetrics metrics;

    /**
     * For {@link MlaStrategy}, and for Spark, which copies a node by reflection.
     *
     * @param key one expression, or none where the prompt keys a row's randomness
     * @param results a column for each field of the result
     * @param output those of the child's columns and of the results that are returned
     */
    public MlaGenerateExec(
            Expression prompt,
            Seq<Expression> key,
            GenerateSpec spec,
            Seq<Attribute> results,
            Seq<Attribute> output,
            SparkPlan child) {
        this.prompt = prompt;
        this.key = key;
        this.spec = spec;
        this.results = results;
        this.output = output;
        this.child = child;
    }

    @Override
    public boolean supportsColumnar() {
        return child.supportsColumnar() && ColumnBatches.canHold(schema());
    }

    @Override
    public boolean supportsRowBased() {
        return true;
    }

    @Override
    public RDD<InternalRow> doExecute() {
        GenerateTask task = task();
        return child.execute().toJavaRDD().mapPartitions(task::generate, true).rdd();
    }

    @Override
    public RDD<ColumnarBatch> doExecuteColumnar() {
        GenerateTask task = task();
        ColumnBatches batches = new ColumnBatches(child.schema(), schema(), conf().columnBatchSize());
        return child.executeColumnar()
                .toJavaRDD()
                .mapPartitions(input -> batches.of(task.generate(batches.rows(input))), true)
                .rdd();
    }

    private GenerateTask task() {
        InputColumns columns = new InputColumns(prompt, key, child.output());
        return new GenerateTask(spec, columns, output, ScalaSeq.concat(child.output(), results), sqlMetrics());
    }

    /** The same ones however often they are asked for: Spark shows those that it has seen first. */
    private synchronized GenerateMetrics sqlMetrics() {
        if (metrics == null) {
            metrics = new GenerateMetrics(sparkContext());
        }
        return metrics;
    }

    @Override
    public Map<String, SQLMetric> metrics() {
        return sqlMetrics().byName();
    }

    @Override
    public Seq<Attribute> output() {
        return output;
    }

    @Override
    public AttributeSet producedAttributes() {
        return AttributeSet$.MODULE$.apply(ScalaSeq.<Expression>widen(results));
    }

    @Override
    public Partitioning outputPartitioning() {
        return child.outputPartitioning();
    }

    @Override
    public Seq<SortOrder> outputOrdering() {
        return child.outputOrdering();
    }

    @Override
    public Seq<SparkPlan> children() {
        return ScalaSeq.of(child);
    }

    @Override
    public SparkPlan withNewChildrenInternal(IndexedSeq<SparkPlan> newChildren) {
        return new MlaGenerateExec(prompt, key, spec, results, output, newChildren.head());
    }

    /** What explain shows after the name. */
    @Override
    public Iterator<Object> stringArgs() {
        return CollectionConverters.<Object>asScala(
                List.<Object>of(prompt, key, spec.model(), output).iterator());
    }

    @Override
    public int productArity() {
        return 6;
    }

    @Override
    public Object productElement(int n) {
        return switch (n) {
            case 0 -> prompt;
            case 1 -> key;
            case 2 -> spec;
            case 3 -> results;
            case 4 -> output;
            case 5 -> child;
            default -> throw new IndexOutOfBoundsException(n);
        };
    }

    @Override
    public boolean canEqual(Object other) {
        return other instanceof MlaGenerateExec;
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof MlaGenerateExec that
                && prompt.equals(that.prompt)
                && key.equals(that.key)
                && spec.equals(that.spec)
                && results.equals(that.results)
                && output.equals(that.output)
                && child.equals(that.child);
    }

    @Override
    public int hashCode() {
        return Objects.hash(prompt, key, spec, results, output, child);
    }
}
