package io.github.sparkmla.spark;

import java.util.List;
import java.util.Objects;
import java.util.stream.Stream;
import org.apache.spark.sql.catalyst.expressions.Alias;
import org.apache.spark.sql.catalyst.expressions.Attribute;
import org.apache.spark.sql.catalyst.expressions.AttributeReference;
import org.apache.spark.sql.catalyst.expressions.AttributeSet;
import org.apache.spark.sql.catalyst.expressions.AttributeSet$;
import org.apache.spark.sql.catalyst.expressions.CreateNamedStruct;
import org.apache.spark.sql.catalyst.expressions.Expression;
import org.apache.spark.sql.catalyst.expressions.Literal;
import org.apache.spark.sql.catalyst.expressions.NamedExpression;
import org.apache.spark.sql.catalyst.expressions.NamedExpression$;
import org.apache.spark.sql.catalyst.plans.logical.LogicalPlan;
import org.apache.spark.sql.catalyst.plans.logical.Project;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.Metadata;
import org.apache.spark.sql.types.StructField;
import org.apache.spark.unsafe.types.UTF8String;
import scala.collection.immutable.IndexedSeq;
import scala.collection.immutable.Seq;

/**
 * The logical node: the child's columns, then the fields of {@link ResultColumn#TYPE}, each a column of its own. A
 * projection above packs the fields into the one struct that users see, so the optimizer can drop the fields, and the
 * input columns, that nobody reads. {@link MlaStrategy} plans it.
 *
 * <p>Prompt and key are expressions of the node and not positions, because the optimizer prunes and renames columns.
 */
public final class MlaGenerate extends LogicalPlan {
    private static final long serialVersionUID = 1L;

    private final Expression prompt;
    private final Seq<Expression> key;
    private final GenerateSpec spec;
    private final Seq<Attribute> results;
    private final LogicalPlan child;

    /**
     * For {@link #over}, and for Spark, which copies a node by reflection.
     *
     * @param key one expression, or none where the prompt keys a row's randomness
     * @param results a column for each field of the result
     */
    public MlaGenerate(
            Expression prompt, Seq<Expression> key, GenerateSpec spec, Seq<Attribute> results, LogicalPlan child) {
        this.prompt = prompt;
        this.key = key;
        this.spec = spec;
        this.results = results;
        this.child = child;
    }

    /** The plan of a transformation: the child's columns and the result, as one struct column of this name. */
    static LogicalPlan over(
            LogicalPlan child, Expression prompt, Seq<Expression> key, GenerateSpec spec, String outputCol) {
        List<Attribute> results = List.of(ResultColumn.TYPE.fields()).stream()
                .map(MlaGenerate::column)
                .toList();
        List<Expression> struct = results.stream()
                .flatMap(column -> Stream.of(
                        new Literal(UTF8String.fromString(column.name()), DataTypes.StringType), (Expression) column))
                .toList();
        NamedExpression packed = new Alias(
                new CreateNamedStruct(ScalaSeq.of(struct)),
                outputCol,
                NamedExpression$.MODULE$.newExprId(),
                ScalaSeq.of(),
                scala.Option.empty(),
                ScalaSeq.of());
        LogicalPlan generate = new MlaGenerate(prompt, key, spec, ScalaSeq.of(results), child);
        return new Project(ScalaSeq.append(child.output(), packed), generate);
    }

    private static Attribute column(StructField field) {
        return new AttributeReference(
                field.name(),
                field.dataType(),
                field.nullable(),
                Metadata.empty(),
                NamedExpression$.MODULE$.newExprId(),
                ScalaSeq.of());
    }

    Expression prompt() {
        return prompt;
    }

    Seq<Expression> key() {
        return key;
    }

    GenerateSpec spec() {
        return spec;
    }

    Seq<Attribute> results() {
        return results;
    }

    LogicalPlan child() {
        return child;
    }

    @Override
    public Seq<Attribute> output() {
        return ScalaSeq.concat(child.output(), results);
    }

    @Override
    public AttributeSet producedAttributes() {
        return AttributeSet$.MODULE$.apply(ScalaSeq.<Expression>widen(results));
    }

    @Override
    public Seq<LogicalPlan> children() {
        return ScalaSeq.of(child);
    }

    @Override
    public LogicalPlan withNewChildrenInternal(IndexedSeq<LogicalPlan> newChildren) {
        return new MlaGenerate(prompt, key, spec, results, newChildren.head());
    }

    @Override
    public int productArity() {
        return 5;
    }

    @Override
    public Object productElement(int n) {
        return switch (n) {
            case 0 -> prompt;
            case 1 -> key;
            case 2 -> spec;
            case 3 -> results;
            case 4 -> child;
            default -> throw new IndexOutOfBoundsException(n);
        };
    }

    @Override
    public boolean canEqual(Object other) {
        return other instanceof MlaGenerate;
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof MlaGenerate that
                && prompt.equals(that.prompt)
                && key.equals(that.key)
                && spec.equals(that.spec)
                && results.equals(that.results)
                && child.equals(that.child);
    }

    @Override
    public int hashCode() {
        return Objects.hash(prompt, key, spec, results, child);
    }
}
