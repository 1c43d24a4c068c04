package io.github.sparkmla.spark;

import io.github.sparkmla.checkpoint.CheckpointException;
import java.util.Locale;
import java.util.concurrent.Callable;
import org.apache.spark.sql.AnalysisException;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/** The main class for spark-submit: prompts in files to completions in files. */
@Command(
        name = "generate",
        sortOptions = false,
        mixinStandardHelpOptions = true,
        usageHelpWidth = 110,
        description = {
            "Generates text for every row of the input with a model of the MLA family.",
            "Rows keep their order and their columns. Engine settings are Spark configuration (spark.mla.*)."
        })
public final class GenerateJob implements Callable<Integer> {
    private static final Logger log = LoggerFactory.getLogger(GenerateJob.class);

    /** Where the model runs. */
    enum DeviceChoice {
        auto,
        cpu,
        cuda
    }

    /** Where weights come from. */
    enum LoadFormatChoice {
        safetensors,
        dummy
    }

    /** What to do where the output is there already. */
    enum Mode {
        errorifexists,
        overwrite
    }

    @Option(names = "--model", required = true, description = "folder of the checkpoint (Hugging Face format)")
    private String model;

    @Option(names = "--input", required = true, description = "file or folder of prompts")
    private String input;

    @Option(names = "--output", required = true, description = "folder to write to")
    private String output;

    @Option(
            names = "--input-format",
            defaultValue = "json",
            description =
                    "${COMPLETION-CANDIDATES}; json is one object a line, text one prompt a line (default: ${DEFAULT-VALUE})")
    private JobFiles.InputFormat inputFormat;

    @Option(
            names = "--output-format",
            defaultValue = "parquet",
            description =
                    "${COMPLETION-CANDIDATES}; csv takes the result apart into columns (default: ${DEFAULT-VALUE})")
    private JobFiles.OutputFormat outputFormat;

    @Option(
            names = "--input-col",
            defaultValue = "prompt",
            description = "column of prompts, or of messages (default: ${DEFAULT-VALUE})")
    private String inputCol;

    @Option(
            names = "--output-col",
            defaultValue = "generated",
            description = "column to append (default: ${DEFAULT-VALUE})")
    private String outputCol;

    @Option(names = "--key-col", description = "column that keys a row's randomness (default: the prompt)")
    private String keyCol;

    @Option(
            names = "--max-tokens",
            defaultValue = "64",
            description = "most tokens to generate for a row (default: ${DEFAULT-VALUE})")
    private int maxTokens;

    @Option(names = "--temperature", defaultValue = "0", description = "0 is greedy (default: ${DEFAULT-VALUE})")
    private double temperature;

    @Option(
            names = "--top-p",
            defaultValue = "1",
            description = "nucleus sampling, in (0, 1] (default: ${DEFAULT-VALUE})")
    private double topP;

    @Option(names = "--top-k", defaultValue = "0", description = "0 is off (default: ${DEFAULT-VALUE})")
    private int topK;

    @Option(names = "--seed", defaultValue = "0", description = "of the sampling (default: ${DEFAULT-VALUE})")
    private long seed;

    @Option(
            names = "--logprobs",
            defaultValue = "-1",
            description = "-1 none, 0 each token's own, n also the n most likely (default: ${DEFAULT-VALUE})")
    private int logprobs;

    @Option(names = "--ignore-eos", description = "go on past the end-of-sequence token")
    private boolean ignoreEos;

    @Option(names = "--device", description = "${COMPLETION-CANDIDATES} (default: spark.mla.device, else auto)")
    private DeviceChoice device;

    @Option(
            names = "--load-format",
            description = "${COMPLETION-CANDIDATES}; dummy needs no weights and writes noise, for measuring"
                    + " (default: spark.mla.loadFormat, else safetensors)")
    private LoadFormatChoice loadFormat;

    @Option(names = "--partitions", description = "tasks to spread the rows over (default: at least one a core)")
    private Integer partitions;

    @Option(
            names = "--mode",
            defaultValue = "errorifexists",
            description = "${COMPLETION-CANDIDATES}: where the output is there already (default: ${DEFAULT-VALUE})")
    private Mode mode;

    @Option(names = "--overwrite", description = "the same as --mode overwrite")
    private boolean overwrite;

    @Option(names = "--fail-on-error", description = "a row that cannot be generated for fails the job")
    private boolean failOnError;

    @Option(
            names = "--show",
            defaultValue = "0",
            description = "print the first rows of the output (default: ${DEFAULT-VALUE})")
    private int show;

    private final SparkSession existing;

    private GenerateJob(SparkSession existing) {
        this.existing = existing;
    }

    /** Exit codes: 0 all rows written, 1 failed, 2 an option is wrong. */
    public static void main(String[] args) {
        int code = run(null, args);
        if (code != 0) {
            System.exit(code);
        }
    }

    /** What {@link #main} does, without the exit. Starts a session, and stops it, where none is given. */
    static int run(SparkSession spark, String... args) {
        return new CommandLine(new GenerateJob(spark))
                .setCaseInsensitiveEnumValuesAllowed(true)
                .setParameterExceptionHandler(GenerateJob::explainOption)
                .execute(args);
    }

    private static int explainOption(CommandLine.ParameterException e, String[] args) {
        System.err.println("generate: " + e.getMessage());
        CommandLine.UnmatchedArgumentException.printSuggestions(
                e, e.getCommandLine().getErr());
        System.err.println("generate: --help lists the options");
        return CommandLine.ExitCode.USAGE;
    }

    @Override
    public Integer call() {
        if (existing != null) {
            return generate(existing);
        }
        SparkSession spark;
        try {
            spark = SparkSession.builder().appName("spark-mla generate").getOrCreate();
        } catch (IllegalArgumentException e) { // the plugin refuses the configuration
            System.err.println("generate: " + explain(e));
            return CommandLine.ExitCode.SOFTWARE;
        }
        try {
            return generate(spark);
        } finally {
            spark.stop();
        }
    }

    /** The exit code. A failure is one line on stderr. */
    private int generate(SparkSession spark) {
        try {
            System.out.println(run(spark));
            return CommandLine.ExitCode.OK;
        } catch (Exception e) {
            log.debug("The job failed", e);
            System.err.println("generate: " + explain(e));
            return CommandLine.ExitCode.SOFTWARE;
        }
    }

    /** One line: what the user did wrong as it was said, else the first cause of the failure. */
    private static String explain(Exception e) {
        if (e instanceof IllegalArgumentException
                || e instanceof CheckpointException
                || e instanceof AnalysisException) {
            return firstLine(e);
        }
        Throwable cause = e;
        while (cause.getCause() != null) {
            cause = cause.getCause();
        }
        return "the job failed: " + firstLine(cause);
    }

    private static String firstLine(Throwable e) {
        String message = e.getMessage() == null ? "" : e.getMessage();
        return message.lines().findFirst().orElse(e.getClass().getName());
    }

    /** Everything is checked before the first task starts. */
    private JobSummary run(SparkSession spark) throws InterruptedException {
        boolean replace = overwrite || mode == Mode.overwrite;
        JobFiles files = new JobFiles(spark, input, inputFormat, output, outputFormat, replace);
        files.check();
        if (device != null) {
            spark.conf().set(MlaConf.Key.DEVICE.key, device.name());
        }
        if (loadFormat != null) {
            spark.conf().set(MlaConf.Key.LOAD_FORMAT.key, loadFormat.name());
        }
        Dataset<Row> rows = files.read(inputCol, partitions);
        Dataset<Row> generated = generator().transform(rows);
        files.checkWritable(generated.schema(), outputCol);
        JobSummary summary = new JobSummary(spark.sparkContext(), outputCol, output);
        files.write(summary.observe(generated), outputCol);
        summary.finish();
        if (show > 0) {
            files.show(show, inputCol, outputCol);
        }
        return summary;
    }

    private MlaGenerator generator() {
        MlaGenerator generator = new MlaGenerator()
                .setModel(model)
                .setInputCol(inputCol)
                .setOutputCol(outputCol)
                .setMaxTokens(maxTokens)
                .setTemperature(temperature)
                .setTopP(topP)
                .setTopK(topK)
                .setSeed(seed)
                .setLogprobs(logprobs)
                .setIgnoreEos(ignoreEos)
                .setFailOnError(failOnError);
        return keyCol == null ? generator : generator.setKeyCol(keyCol);
    }

    static String lower(Enum<?> value) {
        return value.name().toLowerCase(Locale.ROOT);
    }
}
