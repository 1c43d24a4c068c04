package io.github.sparkmla.examples;

import io.github.sparkmla.checkpoint.Checkpoint;
import io.github.sparkmla.engine.Completion;
import io.github.sparkmla.engine.Engine;
import io.github.sparkmla.engine.EngineSettings;
import io.github.sparkmla.engine.Request;
import io.github.sparkmla.engine.SamplingParams;
import io.github.sparkmla.engine.StepKind;
import io.github.sparkmla.engine.StepListener.Step;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Semaphore;
import java.util.function.Predicate;
import java.util.stream.Stream;

/**
 * How fast the bare engine decodes and prefills a model's shape, and how near that is to what the memory and the matrix
 * units allow. Needs a Java runtime and the jars, no Spark: {@link BenchmarkOptions#USAGE}.
 */
public final class DecodeBenchmark {
    private static final int WARM_UP_PROMPT = 16;
    private static final int WARM_UP_TOKENS = 6;

    private final BenchmarkOptions options;
    private final Engine engine;
    private final ModelCost cost;
    private final int vocabSize;
    private final Random random;
    private final List<Step> steps = new CopyOnWriteArrayList<>();
    private volatile CompletableFuture<Map<String, Double>> profile; // null until asked for

    public static void main(String[] args) throws Exception {
        BenchmarkOptions options;
        try {
            options = new BenchmarkOptions(args);
        } catch (IllegalArgumentException e) {
            System.err.println("DecodeBenchmark: " + e.getMessage());
            System.err.print(BenchmarkOptions.USAGE);
            System.exit(2);
            return;
        }
        Instant loading = Instant.now();
        EngineSettings settings = options.settings();
        Checkpoint checkpoint = Engine.check(options.config(), settings.loadFormat());
        try (Engine engine = Engine.load(checkpoint, settings)) {
            DecodeBenchmark benchmark = new DecodeBenchmark(options, checkpoint, engine);
            benchmark.startUp(loading);
            for (int batch : options.batches()) {
                benchmark.decode(batch);
            }
            if (options.integer("prefill-tokens") > 0) {
                benchmark.prefill();
            }
        }
    }

    private DecodeBenchmark(BenchmarkOptions options, Checkpoint checkpoint, Engine engine) {
        this.options = options;
        this.engine = engine;
        this.cost = new ModelCost(checkpoint.config());
        this.vocabSize = checkpoint.config().vocabSize();
        this.random = new Random(options.integer("seed"));
        engine.setListener(steps::add);
    }

    /** From the start of the process to the first token. */
    private void startUp(Instant loading) throws Exception {
        Instant loaded = Instant.now();
        run(1, List.of(prompt(WARM_UP_PROMPT)), 1);
        Instant now = Instant.now();
        Instant process = ProcessHandle.current().info().startInstant().orElse(loading);
        System.out.printf(
                "%s: %.2f billion parameters, %d KV blocks of 64 tokens%n",
                options.config(), cost.parameters() / 1e9, engine.totalBlocks());
        System.out.printf(
                "start-up: %.1f s from process start to the first token, of which loading %.1f s%n",
                seconds(process, now), seconds(loading, loaded));
    }

    private static double seconds(Instant from, Instant to) {
        return Duration.between(from, to).toNanos() / 1e9;
    }

    private int[] prompt(int length) {
        return random.ints(length, 0, vocabSize).toArray();
    }

    private List<int[]> prompts(int count) {
        List<int[]> prompts = new ArrayList<>();
        int mean = options.integer("prompt-tokens");
        for (int i = 0; i < count; i++) {
            int length = mean;
            if (options.flag("log-normal")) {
                double sigma = 0.6;
                double drawn = Math.exp(Math.log(mean) - sigma * sigma / 2 + sigma * random.nextGaussian());
                length = (int) Math.max(1, Math.min(Math.round(drawn), options.maxPromptTokens()));
            }
            prompts.add(prompt(length));
        }
        return prompts;
    }

    /** Runs all prompts, at most {@code batch} at once, each to exactly {@code tokens} more tokens. Returns the seconds. */
    private double run(int batch, List<int[]> prompts, int tokens) throws Exception {
        SamplingParams sampling = new SamplingParams(tokens, 0, 0, 1, 0, -1, true);
        Semaphore places = new Semaphore(batch);
        List<CompletableFuture<Completion>> futures = new ArrayList<>();
        steps.clear();
        long start = System.nanoTime();
        for (int[] prompt : prompts) {
            places.acquire();
            CompletableFuture<Completion> future = engine.submit(new Request(prompt, sampling, 0));
            CompletableFuture<Completion> unused = future.whenComplete((completion, error) -> places.release());
            futures.add(future);
        }
        for (CompletableFuture<Completion> future : futures) {
            future.get();
        }
        return (System.nanoTime() - start) / 1e9;
    }

    private void decode(int batch) throws Exception {
        int outputTokens = options.integer("output-tokens");
        List<int[]> warmUp = new ArrayList<>();
        for (int i = 0; i < batch; i++) {
            warmUp.add(prompt(WARM_UP_PROMPT));
        }
        run(batch, warmUp, WARM_UP_TOKENS); // graphs are captured, code is compiled
        int requests = Math.max(batch, options.integer("requests"));
        List<int[]> prompts = prompts(requests);
        profileWhen(step -> step.kind() == StepKind.DECODE && step.sequences() == batch);
        double seconds = run(batch, prompts, outputTokens);
        long promptTokens = prompts.stream().mapToLong(prompt -> prompt.length).sum();
        System.out.printf(
                "%nbatch %d: %d prompts of %.0f tokens, %d tokens each: %.2f s, %.0f output tokens/s, %.0f tokens/s in all%n",
                batch,
                requests,
                (double) promptTokens / requests,
                outputTokens,
                seconds,
                (double) requests * outputTokens / seconds,
                ((double) requests * outputTokens + promptTokens) / seconds);
        report(
                "decode, full batch",
                of(StepKind.DECODE).filter(s -> s.sequences() == batch).toList());
        report("decode, all steps", of(StepKind.DECODE).toList());
        List<Step> mixed = of(StepKind.PREFILL).toList();
        double mixedSeconds = mixed.stream().mapToLong(Step::nanos).sum() / 1e9;
        long mixedTokens = mixed.stream().mapToLong(Step::tokens).sum();
        System.out.printf(
                "  prefill: %d steps, %.2f ms each, %.0f tokens/s%n",
                mixed.size(), 1e3 * mixedSeconds / mixed.size(), mixedTokens / mixedSeconds);
        printProfile();
    }

    private Stream<Step> of(StepKind kind) {
        return steps.stream().filter(step -> step.kind() == kind && !step.profiled());
    }

    /** Tokens a second of some decode steps, and the fraction of what the memory allows. */
    private void report(String what, List<Step> decode) {
        if (decode.isEmpty()) {
            System.out.printf("  %s: no step%n", what);
            return;
        }
        double gbps = options.number("read-gbps");
        double seconds = decode.stream().mapToLong(Step::nanos).sum() / 1e9;
        long tokens = decode.stream().mapToLong(Step::tokens).sum();
        double floor = decode.stream()
                .mapToDouble(
                        s -> (cost.weightBytes(s.sequences()) + (double) cost.kvBytes() * s.context()) / gbps / 1e9)
                .sum();
        long median = decode.stream()
                .map(Step::nanos)
                .sorted(Comparator.naturalOrder())
                .skip(decode.size() / 2)
                .findFirst()
                .orElseThrow();
        System.out.printf(
                "  %s: %.0f output tokens/s, %.3f ms a step (median %.3f, %d steps), floor %.3f ms, %.1f %% of it%n",
                what,
                tokens / seconds,
                1e3 * seconds / decode.size(),
                median / 1e6,
                decode.size(),
                1e3 * floor / decode.size(),
                100 * floor / seconds);
    }

    /** Prompts alone, one token each. */
    private void prefill() throws Exception {
        int tokens = options.integer("prefill-tokens");
        int count = options.integer("prefill-prompts");
        int batch = Math.min(count, options.settings().maxSequences());
        run(1, List.of(prompt(tokens)), 1);
        List<int[]> prompts = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            prompts.add(prompt(tokens));
        }
        double wall = run(batch, prompts, 1);
        double seconds = of(StepKind.PREFILL).mapToLong(Step::nanos).sum() / 1e9;
        double tflops = count * cost.prefillOperations(tokens) / seconds / 1e12;
        double ceiling = options.number("matmul-tflops");
        System.out.printf(
                "%nprefill of %d prompts of %d tokens: %.0f tokens/s, %.1f useful TFLOP/s, %.1f %% of %.0f (%.2f s in steps of %.2f s)%n",
                count,
                tokens,
                (double) count * tokens / seconds,
                tflops,
                100 * tflops / ceiling,
                ceiling,
                seconds,
                wall);
        if (options.flag("profile")) {
            profile = engine.profileNext(StepKind.PREFILL);
            run(1, prompts.subList(0, 1), 1);
            printProfile();
        }
    }

    /** Has the step after the next such one profiled, where that was asked for. */
    private void profileWhen(Predicate<Step> condition) {
        profile = null;
        engine.setListener(step -> {
            steps.add(step);
            if (profile == null && options.flag("profile") && condition.test(step)) {
                profile = engine.profileNext(step.kind());
            }
        });
    }

    private void printProfile() throws ExecutionException, InterruptedException {
        if (!options.flag("profile")) {
            return;
        }
        if (profile == null || !profile.isDone()) {
            System.out.println("  no step of the kind to profile");
            return;
        }
        Map<String, Double> sections = profile.get();
        double sum = sections.values().stream().mapToDouble(ms -> ms).sum();
        System.out.printf("  one step call by call, %.3f ms on the device:%n", sum);
        sections.entrySet().stream()
                .sorted(Map.Entry.<String, Double>comparingByValue().reversed())
                .forEach(e -> System.out.printf(
                        "    %-24s %9.3f ms %5.1f %%%n", e.getKey(), e.getValue(), 100 * e.getValue() / sum));
    }
}
