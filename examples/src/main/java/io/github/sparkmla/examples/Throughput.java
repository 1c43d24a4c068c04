package io.github.sparkmla.examples;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.github.sparkmla.engine.Completion;
import io.github.sparkmla.engine.Engine;
import io.github.sparkmla.engine.EngineSettings;
import io.github.sparkmla.engine.Request;
import io.github.sparkmla.engine.SamplingParams;
import java.io.File;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletableFuture;

/**
 * Output tokens a second of the bare engine: {@code Throughput MODEL PROMPTS.json TOKENS [ROUNDS]}. PROMPTS.json is a
 * list of lists of token ids; every prompt gets exactly TOKENS tokens, greedily, all prompts at once. The last line is
 * the median round as JSON. compare_with_transformers.py runs it beside Hugging Face.
 */
public final class Throughput {
    private static final long WARM_UP_NANOS = 4_000_000_000L;

    private Throughput() {}

    public static void main(String[] args) throws Exception {
        Path model = Path.of(args[0]);
        List<int[]> prompts = prompts(new File(args[1]));
        int tokens = Integer.parseInt(args[2]);
        int rounds = args.length > 3 ? Integer.parseInt(args[3]) : 5;
        SamplingParams sampling = new SamplingParams(tokens, 0, 0, 1, 0, -1, true);
        double[] seconds = new double[rounds];
        List<int[]> outputs = new ArrayList<>();
        try (Engine engine = Engine.load(model, EngineSettings.defaults())) {
            long started = System.nanoTime();
            do { // the JVM compiles what it has seen run for a while
                round(engine, prompts, sampling);
            } while (System.nanoTime() - started < WARM_UP_NANOS);
            for (int r = 0; r < rounds; r++) {
                long start = System.nanoTime();
                outputs = round(engine, prompts, sampling);
                seconds[r] = (System.nanoTime() - start) / 1e9;
                System.out.printf(
                        "round %d: %.3f s, %.0f tokens/s%n", r, seconds[r], prompts.size() * tokens / seconds[r]);
            }
        }
        Arrays.sort(seconds);
        double median = seconds[rounds / 2];
        System.out.println(new ObjectMapper()
                .createObjectNode()
                .put("seconds", median)
                .put("tokens_per_second", prompts.size() * tokens / median)
                .set("outputs", new ObjectMapper().valueToTree(outputs)));
    }

    private static List<int[]> round(Engine engine, List<int[]> prompts, SamplingParams sampling) throws Exception {
        List<CompletableFuture<Completion>> futures = new ArrayList<>();
        for (int[] prompt : prompts) {
            futures.add(engine.submit(new Request(prompt, sampling, 0)));
        }
        List<int[]> outputs = new ArrayList<>();
        for (CompletableFuture<Completion> future : futures) {
            outputs.add(future.get().tokenIds());
        }
        return outputs;
    }

    private static List<int[]> prompts(File file) throws Exception {
        List<int[]> prompts = new ArrayList<>();
        for (JsonNode prompt : new ObjectMapper().readTree(file)) {
            int[] ids = new int[prompt.size()];
            for (int i = 0; i < ids.length; i++) {
                ids[i] = prompt.get(i).asInt();
            }
            prompts.add(ids);
        }
        return prompts;
    }
}
