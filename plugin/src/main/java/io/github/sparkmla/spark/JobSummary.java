package io.github.sparkmla.spark;

import static org.apache.spark.sql.functions.col;
import static org.apache.spark.sql.functions.count;
import static org.apache.spark.sql.functions.lit;
import static org.apache.spark.sql.functions.sum;
import static org.apache.spark.sql.functions.when;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import org.apache.spark.SparkContext;
import org.apache.spark.sql.Column;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Observation;
import org.apache.spark.sql.Row;

/** What a job did, counted while it wrote: an observation of Spark, so a retried task counts once. */
final class JobSummary {
    private final String outputCol;
    private final String output;
    private final Observation observation = new Observation();
    private final JobTimes times = new JobTimes();
    private final SparkContext context;
    private Map<String, Object> counts;

    JobSummary(SparkContext context, String outputCol, String output) {
        this.context = context;
        this.outputCol = outputCol;
        this.output = output;
    }

    Dataset<Row> observe(Dataset<Row> generated) {
        Column error = field(ResultColumn.ERROR);
        List<Column> counters = new ArrayList<>();
        counters.add(sum(field("prompt_tokens")).as("prompt_tokens"));
        counters.add(sum(field("completion_tokens")).as("completion_tokens"));
        for (BadRowException.Kind kind : BadRowException.Kind.values()) {
            counters.add(count(when(error.startsWith(kind.words), lit(1))).as(kind.name()));
        }
        context.addSparkListener(times);
        return generated.observe(observation, count(lit(1)).as("rows"), counters.toArray(Column[]::new));
    }

    private Column field(String name) {
        return col("`" + outputCol + "`").getField(name);
    }

    /** To be called when the observed rows have been written. */
    void finish() throws InterruptedException {
        times.finish();
        counts = observation.getAsJava();
        context.removeSparkListener(times);
    }

    /** Zero for a sum over no rows. */
    private long counted(String name) {
        Object value = counts.get(name);
        return value == null ? 0 : ((Number) value).longValue();
    }

    @Override
    public String toString() {
        List<BadRowException.Kind> found = new ArrayList<>(List.of(BadRowException.Kind.values()));
        found.removeIf(kind -> counted(kind.name()) == 0);
        String kinds = found.stream()
                .map(kind -> "%,d %s".formatted(counted(kind.name()), kind.words))
                .collect(Collectors.joining(", ", " (", ")"));
        long errors = found.stream().mapToLong(kind -> counted(kind.name())).sum();
        return """
                rows:           %,d
                errors:         %,d%s
                prompt tokens:  %,d
                output tokens:  %,d, %s
                time:           %.1f s%s
                output:         %s""".formatted(
                        counted("rows"),
                        errors,
                        errors == 0 ? "" : kinds,
                        counted("prompt_tokens"),
                        counted("completion_tokens"),
                        times.rates(counted("completion_tokens")),
                        times.total(),
                        times,
                        output);
    }
}
