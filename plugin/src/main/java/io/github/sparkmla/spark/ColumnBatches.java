package io.github.sparkmla.spark;

import java.io.Serializable;
import java.util.Collections;
import java.util.Iterator;
import java.util.NoSuchElementException;
import org.apache.spark.sql.catalyst.InternalRow;
import org.apache.spark.sql.catalyst.expressions.UnsafeProjection;
import org.apache.spark.sql.execution.RowToColumnConverter;
import org.apache.spark.sql.execution.vectorized.OnHeapColumnVector;
import org.apache.spark.sql.execution.vectorized.WritableColumnVector;
import org.apache.spark.sql.types.StructType;
import org.apache.spark.sql.vectorized.ColumnarBatch;

/**
 * Rows out of batches of columns in host memory, and into such batches again. A row is a copy: whoever makes the batches
 * closes or reuses one when it is asked for the next, and rows in flight come from several.
 *
 * @param input the columns of the batches that come
 * @param output the columns of the batches that go
 * @param batchRows most rows of a batch that goes
 */
record ColumnBatches(StructType input, StructType output, int batchRows) implements Serializable {

    /** Whether there are column vectors for these types. */
    static boolean canHold(StructType type) {
        try {
            new RowToColumnConverter(type);
            return true;
        } catch (RuntimeException e) { // by what Spark says of a type that it does not know
            return false;
        }
    }

    /** The rows of the batches; each is good until the next is asked for. */
    Iterator<InternalRow> rows(Iterator<ColumnarBatch> batches) {
        UnsafeProjection toRow = UnsafeProjection.create(input);
        return new Iterator<>() {
            private Iterator<InternalRow> batch = Collections.emptyIterator();

            @Override
            public boolean hasNext() {
                while (!batch.hasNext() && batches.hasNext()) {
                    batch = batches.next().rowIterator();
                }
                return batch.hasNext();
            }

            @Override
            public InternalRow next() {
                if (!hasNext()) {
                    throw new NoSuchElementException();
                }
                return toRow.apply(batch.next());
            }
        };
    }

    /** Batches of rows, on the heap: there is nothing to close. */
    Iterator<ColumnarBatch> of(Iterator<InternalRow> rows) {
        RowToColumnConverter converter = new RowToColumnConverter(output);
        return new Iterator<>() {
            @Override
            public boolean hasNext() {
                return rows.hasNext();
            }

            @Override
            public ColumnarBatch next() {
                if (!rows.hasNext()) {
                    throw new NoSuchElementException();
                }
                WritableColumnVector[] columns = OnHeapColumnVector.allocateColumns(batchRows, output);
                int count = 0;
                while (count < batchRows && rows.hasNext()) {
                    converter.convert(rows.next(), columns);
                    count++;
                }
                return new ColumnarBatch(columns, count);
            }
        };
    }
}
