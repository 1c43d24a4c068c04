package io.github.sparkmla.engine;

import com.fasterxml.jackson.databind.JsonNode;
import io.github.sparkmla.Golden;
import io.github.sparkmla.engine.Completion.TokenLogprobs;
import io.github.sparkmla.engine.Scheduler.Work;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/**
 * A checkpoint run along its golden: after every step the golden's token is appended, whatever the model chose, so that one
 * difference does not make all that follow incomparable. Prompts prefill together, then all rows decode as one batch.
 */
final class TeacherForcing {
    private final ModelRunner runner;
    private final BlockPool pool;
    private final List<JsonNode> goldens = new ArrayList<>();
    private final List<Sequence> sequences = new ArrayList<>();
    private final List<Double> strays = new ArrayList<>(); // |log p - golden's log p| of the golden's tokens
    private int otherChoices;
    private int outsideTop5;

    /**
     * How far a run strays from its golden.
     *
     * @param steps tokens compared
     * @param otherChoices steps whose most likely token is not the golden's
     * @param outsideTop5 steps whose most likely token is not even among the golden's five
     * @param mean of the differences of log-probability, over the golden's tokens
     * @param p99 their 99th percentile
     * @param max their largest
     */
    record Deviation(int steps, int otherChoices, int outsideTop5, double mean, double p99, double max) {}

    private TeacherForcing(ModelRunner runner) {
        this.runner = runner;
        this.pool = new BlockPool(runner.kvBlocks());
    }

    static Deviation run(Path folder, EngineSettings settings) {
        try (ModelRunner runner = ModelRunner.open(Engine.check(folder), settings)) {
            return new TeacherForcing(runner).run(Golden.json(folder).get("generations"));
        }
    }

    private Deviation run(JsonNode generations) {
        List<Work> step = new ArrayList<>();
        for (JsonNode golden : generations) {
            SamplingParams sampling =
                    new SamplingParams(golden.get("output_ids").size(), 0, 0, 1, 0, SamplingParams.MAX_LOGPROBS, true);
            Sequence sequence =
                    new Sequence(new Request(Golden.ints(golden.get("prompt_ids")), sampling, 0), runner.maxModelLen());
            goldens.add(golden);
            sequences.add(sequence);
            step.add(work(sequence));
        }
        while (!step.isEmpty()) {
            runner.launch(List.copyOf(step));
            runner.collect(this::compare);
            step.clear();
            for (int i = 0; i < sequences.size(); i++) {
                if (drawn(i) < goldens.get(i).get("output_ids").size()) {
                    step.add(work(sequences.get(i)));
                }
            }
        }
        Collections.sort(strays);
        return new Deviation(
                strays.size(),
                otherChoices,
                outsideTop5,
                strays.stream().mapToDouble(d -> d).average().orElseThrow(),
                strays.get((int) Math.ceil(0.99 * strays.size()) - 1),
                strays.get(strays.size() - 1));
    }

    private Work work(Sequence sequence) {
        sequence.reserve(sequence.length(), pool);
        Work work = new Work(sequence, sequence.computed(), sequence.length(), true);
        sequence.advance(sequence.length());
        sequence.expectToken();
        return work;
    }

    /** Tokens of a row that have been compared; none is being drawn. */
    private int drawn(int i) {
        return sequences.get(i).length() - goldens.get(i).get("prompt_ids").size();
    }

    private void compare(Work work, int token, TokenLogprobs logprobs) {
        int i = sequences.indexOf(work.sequence());
        int at = work.to() - goldens.get(i).get("prompt_ids").size();
        int golden = goldens.get(i).get("output_ids").get(at).asInt();
        JsonNode expected = goldens.get(i).get("steps").get(at);
        int[] top5 = Golden.ints(expected.get("ids"));
        otherChoices += token == golden ? 0 : 1;
        outsideTop5 += position(top5, token) < 0 ? 1 : 0;
        int rank = position(logprobs.topIds(), golden);
        double actual = rank < 0 ? Double.NEGATIVE_INFINITY : logprobs.topLogprobs()[rank];
        strays.add(Math.abs(
                actual - expected.get("logprobs").get(position(top5, golden)).asDouble()));
        work.sequence().append(golden, null, false);
    }

    private static int position(int[] ids, int id) {
        for (int i = 0; i < ids.length; i++) {
            if (ids[i] == id) {
                return i;
            }
        }
        return -1;
    }
}
