package io.github.sparkmla.spark;

import java.util.Arrays;
import java.util.Map;
import java.util.stream.Collectors;
import org.apache.spark.SparkConf;
import org.apache.spark.SparkEnv;
import scala.Tuple2;

/** Spark's own configuration as a map. */
final class SparkSettings {
    /** The name of the executor that a driver is to itself in local mode. */
    static final String DRIVER = "driver";

    private SparkSettings() {}

    static Map<String, String> of(SparkConf conf) {
        return Arrays.stream(conf.getAll()).collect(Collectors.toMap(Tuple2::_1, Tuple2::_2));
    }

    /** That of the driver or executor in this JVM; empty where there is none. */
    static Map<String, String> ofThisJvm() {
        return SparkEnv.get() == null ? Map.of() : of(SparkEnv.get().conf());
    }
}
