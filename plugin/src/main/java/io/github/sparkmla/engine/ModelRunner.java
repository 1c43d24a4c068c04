package io.github.sparkmla.engine;

import io.github.sparkmla.checkpoint.Checkpoint;
import io.github.sparkmla.model.MlaModel;
import io.github.sparkmla.model.StepInputs;
import io.github.sparkmla.tensor.Arena;
import io.github.sparkmla.tensor.Device;
import io.github.sparkmla.tensor.Ops;
import java.util.List;
import java.util.Set;

/** Runs steps on a real model. Owns the device, the model and the sampler's memory. */
final class ModelRunner implements StepRunner {
    private final Device device;
    private final MlaModel model;
    private final Arena arena;
    private final Sampler sampler;
    private final Set<Integer> endOfSequence;

    ModelRunner(Device device, Checkpoint checkpoint, MlaModel.Limits limits) {
        this.device = device;
        this.model = MlaModel.load(checkpoint, device, limits);
        this.arena = new Arena(device);
        this.sampler = new Sampler(arena, new Ops(device), limits.maxSequences());
        this.endOfSequence = Set.copyOf(checkpoint.config().eosTokenIds());
    }

    @Override
    public int vocabSize() {
        return model.config().vocabSize();
    }

    @Override
    public boolean isEndOfSequence(int token) {
        return endOfSequence.contains(token);
    }

    @Override
    public void run(List<Scheduler.Work> step, Sink sink) {
        StepInputs inputs = model.inputs();
        inputs.clear();
        sampler.clear();
        fill(step, true);
        fill(step, false);
        var logits = model.forward();
        if (inputs.sampled() == 0) {
            return;
        }
        sampler.sample(logits);
        int row = 0;
        row = emit(step, true, row, sink);
        emit(step, false, row, sink);
    }

    /** Single tokens come first; see {@link StepInputs}. */
    private void fill(List<Scheduler.Work> step, boolean decode) {
        for (Scheduler.Work work : step) {
            if ((work.to() - work.from() == 1) == decode) {
                Sequence sequence = work.sequence();
                model.inputs().add(sequence.tokens(), work.from(), work.to(), sequence.blocks(), work.completes());
                if (work.completes()) {
                    sampler.add(sequence);
                }
            }
        }
    }

    private int emit(List<Scheduler.Work> step, boolean decode, int firstRow, Sink sink) {
        int row = firstRow;
        for (Scheduler.Work work : step) {
            if ((work.to() - work.from() == 1) == decode && work.completes()) {
                int asked = work.sequence().request.sampling().logprobs();
                sink.token(work, sampler.token(row), sampler.logprobs(row, asked));
                row++;
            }
        }
        return row;
    }

    @Override
    public void close() {
        arena.close();
        model.close();
        device.close();
    }
}
