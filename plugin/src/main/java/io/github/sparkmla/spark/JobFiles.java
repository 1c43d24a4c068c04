package io.github.sparkmla.spark;

import static org.apache.spark.sql.functions.col;
import static org.apache.spark.sql.functions.monotonically_increasing_id;
import static org.apache.spark.sql.functions.to_json;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.spark.sql.Column;
import org.apache.spark.sql.DataFrameReader;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SaveMode;
import org.apache.spark.sql.SparkSession;
import org.apache.spark.sql.types.ArrayType;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.MapType;
import org.apache.spark.sql.types.StructField;
import org.apache.spark.sql.types.StructType;

/** The files of a {@link GenerateJob}: reads the prompts in order, writes the completions in the same order. */
final class JobFiles {
    /** What prompts may be read from. */
    enum InputFormat {
        json,
        parquet,
        csv,
        text
    }

    /** What completions may be written to. */
    enum OutputFormat {
        parquet,
        json,
        csv
    }

    /** Fields may span lines, a quote in one is doubled (RFC 4180), and spaces at either end belong to the text. */
    private static final Map<String, String> CSV_OPTIONS = Map.of(
            "header", "true",
            "multiLine", "true",
            "escape", "\"",
            "ignoreLeadingWhiteSpace", "false",
            "ignoreTrailingWhiteSpace", "false");

    private static final String ORDER = "__spark_mla_order_";
    private static final int SHOWN_CHARACTERS = 60;

    /** How many rows Spark looks at to find where to cut: all of a small input, so that every task gets as many rows. */
    private static final int SAMPLED_ROWS = 100_000;

    private static final int LEAST_SAMPLE = 100; // of a partition: Spark's own

    private final SparkSession spark;
    private final String input;
    private final InputFormat inputFormat;
    private final String output;
    private final OutputFormat outputFormat;
    private final boolean overwrite;

    JobFiles(
            SparkSession spark,
            String input,
            InputFormat inputFormat,
            String output,
            OutputFormat outputFormat,
            boolean overwrite) {
        this.spark = spark;
        this.input = input;
        this.inputFormat = inputFormat;
        this.output = output;
        this.outputFormat = outputFormat;
        this.overwrite = overwrite;
    }

    /** Throws IllegalArgumentException where the input is missing or the output is in the way. */
    void check() {
        if (!exists(input)) {
            throw new IllegalArgumentException("--input " + input + " does not exist");
        }
        if (qualified(input).equals(qualified(output))) {
            throw new IllegalArgumentException("--input and --output are the same: " + input);
        }
        if (!overwrite && exists(output)) {
            throw new IllegalArgumentException(
                    "--output " + output + " exists: choose another, or say --overwrite to replace it");
        }
    }

    /** Throws IllegalArgumentException for a column that the output format cannot hold. */
    void checkWritable(StructType schema, String outputCol) {
        if (outputFormat != OutputFormat.csv) {
            return;
        }
        for (StructField field : schema.fields()) {
            DataType type = field.dataType();
            boolean nested = type instanceof StructType || type instanceof ArrayType || type instanceof MapType;
            if (nested && !field.name().equals(outputCol)) {
                throw new IllegalArgumentException(
                        "--output-format csv cannot hold column '%s' (%s): choose json or parquet"
                                .formatted(field.name(), type.catalogString()));
            }
            if (field.name().startsWith(outputCol + "_")) {
                throw new IllegalArgumentException(
                        "--output-format csv writes columns %s_*, and '%s' is in the input: choose another --output-col"
                                .formatted(outputCol, field.name()));
            }
        }
    }

    /**
     * The rows of the input in order: that of the files' names, then that within a file.
     *
     * @param inputCol what the one column of a text file is called
     * @param partitions how many to spread them over; null: as many for every core, one at least
     */
    Dataset<Row> read(String inputCol, Integer partitions) {
        // Prompts are small and generation is slow: cut even a small file into a piece a core.
        spark.conf().set("spark.sql.files.openCostInBytes", "0");
        DataFrameReader reader = spark.read().format(GenerateJob.lower(inputFormat));
        if (inputFormat == InputFormat.csv) {
            reader = reader.options(CSV_OPTIONS);
        }
        Dataset<Row> rows = reader.load(input);
        Dataset<Row> spread = spread(rows, partitions);
        return inputFormat == InputFormat.text ? spread.withColumnRenamed("value", inputCol) : spread;
    }

    /** Spark reads the files of a folder in any order, and some files whole: cut by range of position where it does. */
    private Dataset<Row> spread(Dataset<Row> rows, Integer partitions) {
        int cores = spark.sparkContext().defaultParallelism();
        boolean oneFile = rows.inputFiles().length == 1;
        // A Parquet file is cut between row groups: one group is one task, which is no matter where all share an
        // engine.
        boolean evenly =
                inputFormat != InputFormat.parquet || spark.sparkContext().isLocal();
        if (partitions == null && oneFile && evenly && rows.javaRDD().getNumPartitions() >= cores) {
            return rows;
        }
        int count = partitions == null ? wholeWaves(rows.javaRDD().getNumPartitions(), cores) : partitions;
        // By default 100 a partition, which makes some a quarter larger than others; the job waits for the largest.
        spark.conf()
                .set(
                        "spark.sql.execution.rangeExchange.sampleSizePerPartition",
                        Math.max(LEAST_SAMPLE, SAMPLED_ROWS / count));
        Column metadata = rows.metadataColumn("_metadata");
        Column[] order = {col(ORDER + "file"), col(ORDER + "block"), col(ORDER + "row")};
        return rows.withColumn(ORDER + "file", metadata.getField("file_path"))
                .withColumn(ORDER + "block", metadata.getField("file_block_start"))
                .withColumn(ORDER + "row", monotonically_increasing_id())
                .repartitionByRange(count, order)
                .sortWithinPartitions(order)
                .drop(ORDER + "file", ORDER + "block", ORDER + "row");
    }

    /** As many tasks for every core. Spark cuts files into some more pieces than cores, and the last would run alone. */
    private static int wholeWaves(int pieces, int cores) {
        return cores * Math.max(1, pieces / cores);
    }

    void write(Dataset<Row> generated, String outputCol) {
        Dataset<Row> rows = outputFormat == OutputFormat.csv ? flatten(generated, outputCol) : generated;
        rows.write()
                .mode(overwrite ? SaveMode.Overwrite : SaveMode.ErrorIfExists)
                .format(GenerateJob.lower(outputFormat))
                .options(outputFormat == OutputFormat.csv ? CSV_OPTIONS : Map.of("ignoreNullFields", "false"))
                .save(output);
    }

    /** The result as columns {@code <outputCol>_text} and so on; arrays become JSON. */
    private static Dataset<Row> flatten(Dataset<Row> generated, String outputCol) {
        Column result = col("`" + outputCol + "`");
        List<Column> columns = new ArrayList<>();
        for (String name : generated.columns()) {
            if (!name.equals(outputCol)) {
                columns.add(col("`" + name + "`"));
            }
        }
        for (StructField field : ResultColumn.TYPE.fields()) {
            Column value = result.getField(field.name());
            Column flat = field.dataType() instanceof ArrayType ? to_json(value) : value;
            columns.add(flat.as(outputCol + "_" + field.name()));
        }
        return generated.select(columns.toArray(Column[]::new));
    }

    /** Prints the first rows of what was written: the input, the text, why it ended. */
    void show(int count, String inputCol, String outputCol) {
        DataFrameReader reader = spark.read().format(GenerateJob.lower(outputFormat));
        String separator = outputFormat == OutputFormat.csv ? "_" : ".";
        if (outputFormat == OutputFormat.csv) {
            reader = reader.options(CSV_OPTIONS);
        }
        List<Row> shown = new ArrayList<>();
        StructType schema = null;
        for (String file : partFiles()) {
            Dataset<Row> rows = reader.load(file)
                    .selectExpr(
                            "`" + inputCol + "`",
                            field(outputCol, separator, "text"),
                            field(outputCol, separator, "finish_reason"),
                            field(outputCol, separator, "completion_tokens"))
                    .limit(count - shown.size());
            schema = rows.schema();
            shown.addAll(rows.collectAsList());
            if (shown.size() == count) {
                break;
            }
        }
        if (schema != null) {
            spark.createDataFrame(shown, schema).show(count, SHOWN_CHARACTERS);
        }
    }

    private static String field(String outputCol, String separator, String name) {
        return separator.equals(".") ? "`" + outputCol + "`." + name : "`" + outputCol + "_" + name + "` AS " + name;
    }

    /** In the order of the rows. */
    private List<String> partFiles() {
        try {
            FileStatus[] files = fileSystem(output).listStatus(new Path(output));
            return Arrays.stream(files)
                    .map(file -> file.getPath())
                    .filter(path -> path.getName().startsWith("part-"))
                    .map(Path::toString)
                    .sorted()
                    .toList();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private boolean exists(String path) {
        try {
            FileStatus[] matches = fileSystem(path).globStatus(new Path(path));
            return matches != null && matches.length > 0;
        } catch (IOException e) {
            throw new IllegalArgumentException("cannot look at " + path + ": " + e.getMessage(), e);
        }
    }

    private Path qualified(String path) {
        try {
            return fileSystem(path).makeQualified(new Path(path));
        } catch (IOException e) {
            throw new IllegalArgumentException("cannot look at " + path + ": " + e.getMessage(), e);
        }
    }

    private FileSystem fileSystem(String path) throws IOException {
        return new Path(path).getFileSystem(spark.sparkContext().hadoopConfiguration());
    }
}
