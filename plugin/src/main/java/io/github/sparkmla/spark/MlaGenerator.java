package io.github.sparkmla.spark;

import io.github.sparkmla.checkpoint.Checkpoint;
import io.github.sparkmla.engine.Engine;
import io.github.sparkmla.engine.EngineSettings.LoadFormat;
import io.github.sparkmla.spark.GenerateSpec.Decoding;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.apache.spark.ml.param.Param;
import org.apache.spark.ml.param.ParamMap;
import org.apache.spark.ml.util.DefaultParamsReadable;
import org.apache.spark.ml.util.DefaultParamsWritable;
import org.apache.spark.ml.util.Identifiable$;
import org.apache.spark.ml.util.MLReader;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.catalyst.expressions.Expression;
import org.apache.spark.sql.catalyst.plans.logical.LogicalPlan;
import org.apache.spark.sql.classic.Dataset;
import org.apache.spark.sql.classic.Dataset$;
import org.apache.spark.sql.classic.SparkSession;
import org.apache.spark.sql.types.ArrayType;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.StructField;
import org.apache.spark.sql.types.StructType;
import scala.collection.immutable.Seq;
import scala.jdk.javaapi.CollectionConverters;

/**
 * Appends a column with what a model generates for each row: a transformer of Spark ML, alone or in a pipeline.
 *
 * <p>The input column is a string, continued as it stands, or an array of {@code struct<role: string, content: string>},
 * rendered with the checkpoint's chat template. The result is a struct; {@code finish_reason} in it is {@code stop},
 * {@code length} or {@code error}. Rows keep their order and their columns.
 *
 * <p>With a temperature above 0 a row's randomness comes from the seed and a key: the tokens of its prompt, so that equal
 * prompts get equal completions, or the value of {@code keyCol}. It never comes from the partitioning.
 */
public final class MlaGenerator extends GeneratorParams implements DefaultParamsWritable {
    public MlaGenerator() {
        this(Identifiable$.MODULE$.randomUID("MlaGenerator"));
    }

    /** With the identifier of a saved one; Spark calls it by reflection. */
    public MlaGenerator(String uid) {
        super(uid);
    }

    @Override
    public Dataset<Row> transform(org.apache.spark.sql.Dataset<?> dataset) {
        Dataset<Row> input = (Dataset<Row>) dataset.toDF();
        StructType schema = input.schema();
        transformSchema(schema);
        SparkSession session = input.sparkSession();
        Map<String, String> entries = CollectionConverters.asJava(session.conf().getAll());
        MlaConf conf = MlaConf.of(entries);
        int inputIndex = schema.fieldIndex(getInputCol());
        StructType messageType = schema.fields()[inputIndex].dataType() instanceof ArrayType messages
                ? (StructType) messages.elementType()
                : null;
        Checkpoint checkpoint = openCheckpoint(conf.loadFormat(), messageType != null);
        GpuPinning.checkTransform(conf, entries, session.sparkContext().isLocal(), checkpoint);
        GenerateSpec spec =
                new GenerateSpec(checkpoint.folder().toString(), conf, messageType, decoding(), getFailOnError());
        LogicalPlan plan = input.queryExecution().analyzed();
        Seq<Expression> key =
                isSet(keyCol()) ? ScalaSeq.of(plan.output().apply(schema.fieldIndex(getKeyCol()))) : ScalaSeq.of();
        MlaStrategy.ensureIn(session);
        return Dataset$.MODULE$.ofRows(
                session, MlaGenerate.over(plan, plan.output().apply(inputIndex), key, spec, getOutputCol()));
    }

    /** Checks the input columns without a model; throws IllegalArgumentException with what is wrong. */
    @Override
    public StructType transformSchema(StructType schema) {
        requireInput(column(schema, inputCol()));
        if (isSet(keyCol())) {
            requireKey(column(schema, keyCol()));
        }
        if (Arrays.asList(schema.fieldNames()).contains(getOutputCol())) {
            throw new IllegalArgumentException("the output column '%s' is in the input already: choose another %s"
                    .formatted(getOutputCol(), outputCol().name()));
        }
        return schema.add(getOutputCol(), ResultColumn.TYPE, false);
    }

    /** Fails on the driver for a checkpoint that would fail in every task. */
    private Checkpoint openCheckpoint(LoadFormat format, boolean messages) {
        Path folder = Path.of(getModel()).toAbsolutePath().normalize();
        Checkpoint checkpoint = Engine.check(folder, format);
        if (format == LoadFormat.DUMMY) {
            checkpoint.openTokenizer().close(); // not checked with the rest: an engine alone needs none
        }
        if (messages && checkpoint.chatTemplate().isEmpty()) {
            throw new IllegalArgumentException(("column '%s' holds messages, but the checkpoint %s has no chat template"
                            + " (tokenizer_config.json or chat_template.jinja): give prompts as strings")
                    .formatted(getInputCol(), folder));
        }
        return checkpoint;
    }

    private Decoding decoding() {
        Decoding decoding = new Decoding(
                getMaxTokens(), getTemperature(), getTopK(), getTopP(), getSeed(), getLogprobs(), getIgnoreEos());
        decoding.toSamplingParams(); // throws for what is out of range
        return decoding;
    }

    private StructField column(StructType schema, Param<String> param) {
        String name = required(param);
        return Arrays.stream(schema.fields())
                .filter(field -> field.name().equals(name))
                .findFirst()
                .orElseThrow(() -> new IllegalArgumentException("%s '%s' is not a column of the input, which has: %s"
                        .formatted(param.name(), name, String.join(", ", schema.fieldNames()))));
    }

    private void requireInput(StructField field) {
        DataType type = field.dataType();
        boolean messages = type instanceof ArrayType array
                && array.elementType() instanceof StructType message
                && hasString(message, "role")
                && hasString(message, "content");
        if (!type.equals(DataTypes.StringType) && !messages) {
            throw new IllegalArgumentException(
                    "%s '%s' is %s, but must be string or array<struct<role: string, content: string>>"
                            .formatted(inputCol().name(), field.name(), type.catalogString()));
        }
    }

    private static boolean hasString(StructType type, String name) {
        return Arrays.stream(type.fields())
                .anyMatch(field -> field.name().equals(name) && field.dataType().equals(DataTypes.StringType));
    }

    private void requireKey(StructField field) {
        List<DataType> allowed = List.of(
                DataTypes.StringType,
                DataTypes.LongType,
                DataTypes.IntegerType,
                DataTypes.ShortType,
                DataTypes.ByteType);
        if (!allowed.contains(field.dataType())) {
            throw new IllegalArgumentException("%s '%s' is %s, but must be string or integral"
                    .formatted(keyCol().name(), field.name(), field.dataType().catalogString()));
        }
    }

    @Override
    public MlaGenerator copy(ParamMap extra) {
        return defaultCopy(extra);
    }

    /** A saved generator. */
    public static MlaGenerator load(String path) {
        return read().load(path);
    }

    /** For Spark, which calls it by reflection when a pipeline is loaded. */
    public static MLReader<MlaGenerator> read() {
        return new DefaultParamsReadable<MlaGenerator>() {}.read();
    }

    public MlaGenerator setModel(String value) {
        set(model(), value);
        return this;
    }

    public MlaGenerator setInputCol(String value) {
        set(inputCol(), value);
        return this;
    }

    public MlaGenerator setOutputCol(String value) {
        set(outputCol(), value);
        return this;
    }

    public MlaGenerator setMaxTokens(int value) {
        set(maxTokens(), value);
        return this;
    }

    public MlaGenerator setTemperature(double value) {
        set(temperature(), value);
        return this;
    }

    public MlaGenerator setTopK(int value) {
        set(topK(), value);
        return this;
    }

    public MlaGenerator setTopP(double value) {
        set(topP(), value);
        return this;
    }

    public MlaGenerator setSeed(long value) {
        set(seed(), value);
        return this;
    }

    public MlaGenerator setLogprobs(int value) {
        set(logprobs(), value);
        return this;
    }

    public MlaGenerator setIgnoreEos(boolean value) {
        set(ignoreEos(), value);
        return this;
    }

    public MlaGenerator setFailOnError(boolean value) {
        set(failOnError(), value);
        return this;
    }

    public MlaGenerator setKeyCol(String value) {
        set(keyCol(), value);
        return this;
    }
}
