package io.github.sparkmla.spark;

import org.apache.spark.sql.SparkSessionExtensions;
import org.apache.spark.sql.SparkSessionExtensionsProvider;
import scala.runtime.BoxedUnit;

/**
 * Teaches sessions to plan {@link MlaGenerate}. Spark finds it by its services file when a session starts with the jar
 * on its class path; {@code spark.sql.extensions} may name it as well. Where neither happened, {@link MlaGenerator}
 * teaches the session that it is used in.
 */
public final class MlaExtensions implements SparkSessionExtensionsProvider {
    @Override
    public BoxedUnit apply(SparkSessionExtensions extensions) {
        extensions.injectPlannerStrategy(session -> new MlaStrategy());
        return BoxedUnit.UNIT;
    }
}
