package io.github.sparkmla.spark;

import java.util.List;
import org.apache.spark.sql.catalyst.expressions.And;
import org.apache.spark.sql.catalyst.expressions.Attribute;
import org.apache.spark.sql.catalyst.expressions.AttributeSet;
import org.apache.spark.sql.catalyst.expressions.AttributeSet$;
import org.apache.spark.sql.catalyst.expressions.Expression;
import org.apache.spark.sql.catalyst.expressions.NamedExpression;
import org.apache.spark.sql.catalyst.planning.PhysicalOperation$;
import org.apache.spark.sql.catalyst.plans.logical.LogicalPlan;
import org.apache.spark.sql.classic.SparkSession;
import org.apache.spark.sql.execution.FilterExec;
import org.apache.spark.sql.execution.ProjectExec;
import org.apache.spark.sql.execution.SparkPlan;
import org.apache.spark.sql.execution.SparkStrategy;
import scala.collection.immutable.Seq;
import scala.jdk.javaapi.CollectionConverters;

/**
 * Plans {@link MlaGenerate}, together with the projections and filters right above it: their references say which
 * columns the operator has to return at all. What is not returned need not be converted, and an array or a struct
 * that is returned keeps RAPIDS from taking the rows in columns.
 */
final class MlaStrategy extends SparkStrategy {
    private static final long serialVersionUID = 1L;

    /** Makes a session able to plan the node where {@link MlaExtensions} did not. */
    static synchronized void ensureIn(SparkSession session) {
        List<SparkStrategy> known =
                CollectionConverters.asJava(session.sessionState().planner().strategies());
        if (known.stream().noneMatch(MlaStrategy.class::isInstance)) {
            var methods = session.experimental();
            methods.extraStrategies_$eq(ScalaSeq.append(methods.extraStrategies(), new MlaStrategy()));
        }
    }

    @Override
    public Seq<SparkPlan> apply(LogicalPlan plan) {
        var operation = PhysicalOperation$.MODULE$.unapply(plan);
        if (operation.isEmpty() || !(operation.get()._3() instanceof MlaGenerate generate)) {
            return ScalaSeq.of();
        }
        Seq<NamedExpression> projections = operation.get()._1();
        Seq<Expression> filters = operation.get()._2();
        SparkPlan planned =
                plan(generate, references(ScalaSeq.widen(projections)).$plus$plus(references(filters)));
        if (!filters.isEmpty()) {
            planned = new FilterExec(
                    ScalaSeq.<Expression>toJava(filters).stream()
                            .reduce(And::new)
                            .orElseThrow(),
                    planned);
        }
        return ScalaSeq.of(projections.equals(planned.output()) ? planned : new ProjectExec(projections, planned));
    }

    private static AttributeSet references(Seq<Expression> expressions) {
        return AttributeSet$.MODULE$.apply(expressions);
    }

    private SparkPlan plan(MlaGenerate generate, AttributeSet needed) {
        List<Attribute> output = ScalaSeq.toJava(generate.output());
        output.removeIf(column -> !needed.contains(column));
        return new MlaGenerateExec(
                generate.prompt(),
                generate.key(),
                generate.spec(),
                generate.results(),
                ScalaSeq.of(output),
                planLater(generate.child()));
    }
}
