package io.github.sparkmla.examples;

import java.util.Iterator;
import org.apache.spark.api.java.function.MapPartitionsFunction;
import org.apache.spark.sql.Row;
import org.apache.spark.util.CollectionAccumulator;

/** Passes the ids of generated rows on, checks that they come in order and without error, and samples the heap. */
final class HeapProbe implements MapPartitionsFunction<Row, Long> {
    private final int every;
    private final CollectionAccumulator<Long> growth;

    /**
     * @param every rows between two samples
     * @param growth gets, for each partition, by how many bytes the heap in use after a full collection grew between the
     *     second sample and the last
     */
    HeapProbe(int every, CollectionAccumulator<Long> growth) {
        this.every = every;
        this.growth = growth;
    }

    @Override
    public Iterator<Long> call(Iterator<Row> rows) {
        return new Iterator<>() {
            private long previous = -1;
            private int seen;
            private long warm;

            @Override
            public boolean hasNext() {
                boolean more = rows.hasNext();
                if (!more && warm > 0) {
                    growth.add(used() - warm);
                    warm = 0;
                }
                return more;
            }

            @Override
            public Long next() {
                Row row = rows.next();
                long id = row.getAs("id");
                String reason = row.<Row>getAs("generated").getAs("finish_reason");
                if (id <= previous || reason.equals("error")) {
                    throw new IllegalStateException("after row " + previous + " came " + row);
                }
                previous = id;
                seen++;
                if (seen == 2 * every) {
                    warm = used();
                }
                return id;
            }
        };
    }

    private static long used() {
        System.gc();
        return Runtime.getRuntime().totalMemory() - Runtime.getRuntime().freeMemory();
    }
}
