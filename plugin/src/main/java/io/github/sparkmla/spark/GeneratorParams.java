package io.github.sparkmla.spark;

import org.apache.spark.ml.Transformer;
import org.apache.spark.ml.param.BooleanParam;
import org.apache.spark.ml.param.DoubleParam;
import org.apache.spark.ml.param.IntParam;
import org.apache.spark.ml.param.LongParam;
import org.apache.spark.ml.param.Param;
import org.apache.spark.ml.param.ParamValidators;

/**
 * The parameters of {@link MlaGenerator}, their defaults and their getters, in the form that Spark ML asks for: a method
 * named after each parameter, found by reflection.
 */
public abstract class GeneratorParams extends Transformer {
    private final String uid;
    private final Param<String> model;
    private final Param<String> inputCol;
    private final Param<String> outputCol;
    private final IntParam maxTokens;
    private final DoubleParam temperature;
    private final IntParam topK;
    private final DoubleParam topP;
    private final LongParam seed;
    private final IntParam logprobs;
    private final BooleanParam ignoreEos;
    private final BooleanParam failOnError;
    private final Param<String> keyCol;

    /** Parameters take the identifier from {@link #uid()}, so they are made here, after it, not where declared. */
    GeneratorParams(String uid) {
        this.uid = uid;
        this.model =
                new Param<>(this, "model", "folder of the checkpoint, the same on the driver and on every executor");
        this.inputCol =
                new Param<>(this, "inputCol", "column of prompts (string) or of messages (array of role and content)");
        this.outputCol = new Param<>(this, "outputCol", "column to append");
        this.maxTokens = new IntParam(
                this, "maxTokens", "most tokens to generate for a row, at least 1", ParamValidators.gtEq(1));
        this.temperature =
                new DoubleParam(this, "temperature", "0 is greedy; at most 100", ParamValidators.inRange(0, 100));
        this.topK =
                new IntParam(this, "topK", "sample among the k most likely tokens; 0: all", ParamValidators.gtEq(0));
        this.topP = new DoubleParam(
                this,
                "topP",
                "sample among the fewest most likely tokens that reach this probability, in (0, 1]",
                ParamValidators.inRange(0, 1, false, true));
        this.seed = new LongParam(this, "seed", "of the sampling");
        this.logprobs = new IntParam(
                this,
                "logprobs",
                "log-probabilities to report for each token: -1 none, 0 its own, n <= 20 also the n most likely",
                ParamValidators.inRange(-1, 20));
        this.ignoreEos = new BooleanParam(this, "ignoreEos", "whether to go on past the end-of-sequence token");
        this.failOnError =
                new BooleanParam(this, "failOnError", "whether a row that cannot be generated for fails the job");
        this.keyCol = new Param<>(
                this,
                "keyCol",
                "column (string or integral) whose value keys a row's randomness instead of its prompt");
        setDefault(outputCol, "generated");
        setDefault(maxTokens, 64);
        setDefault(temperature, 0.0);
        setDefault(topK, 0);
        setDefault(topP, 1.0);
        setDefault(seed, 0L);
        setDefault(logprobs, -1);
        setDefault(ignoreEos, false);
        setDefault(failOnError, false);
    }

    @Override
    public String uid() {
        return uid;
    }

    /** The value of a parameter, else its default; throws IllegalArgumentException where it has neither. */
    final String required(Param<String> param) {
        return get(param)
                .getOrElse(() -> getDefault(param).getOrElse(() -> {
                    throw new IllegalArgumentException(param.name() + " is not set: " + param.doc());
                }));
    }

    public Param<String> model() {
        return model;
    }

    public String getModel() {
        return required(model);
    }

    public Param<String> inputCol() {
        return inputCol;
    }

    public String getInputCol() {
        return required(inputCol);
    }

    public Param<String> outputCol() {
        return outputCol;
    }

    public String getOutputCol() {
        return required(outputCol);
    }

    public IntParam maxTokens() {
        return maxTokens;
    }

    public int getMaxTokens() {
        return (Integer) getOrDefault(maxTokens);
    }

    public DoubleParam temperature() {
        return temperature;
    }

    public double getTemperature() {
        return (Double) getOrDefault(temperature);
    }

    public IntParam topK() {
        return topK;
    }

    public int getTopK() {
        return (Integer) getOrDefault(topK);
    }

    public DoubleParam topP() {
        return topP;
    }

    public double getTopP() {
        return (Double) getOrDefault(topP);
    }

    public LongParam seed() {
        return seed;
    }

    public long getSeed() {
        return (Long) getOrDefault(seed);
    }

    public IntParam logprobs() {
        return logprobs;
    }

    public int getLogprobs() {
        return (Integer) getOrDefault(logprobs);
    }

    public BooleanParam ignoreEos() {
        return ignoreEos;
    }

    public boolean getIgnoreEos() {
        return (Boolean) getOrDefault(ignoreEos);
    }

    public BooleanParam failOnError() {
        return failOnError;
    }

    public boolean getFailOnError() {
        return (Boolean) getOrDefault(failOnError);
    }

    public Param<String> keyCol() {
        return keyCol;
    }

    public String getKeyCol() {
        return required(keyCol);
    }
}
