package io.github.sparkmla.engine;

import io.github.sparkmla.checkpoint.Checkpoint;
import io.github.sparkmla.engine.EngineSettings.LoadFormat;
import io.github.sparkmla.model.MlaModel;
import io.github.sparkmla.model.StepInputs;
import io.github.sparkmla.tensor.Device;
import io.github.sparkmla.tensor.Event;
import io.github.sparkmla.tensor.NativeException;
import io.github.sparkmla.tensor.Profile;
import io.github.sparkmla.tensor.Tensor;
import java.util.ArrayDeque;
import java.util.Arrays;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Runs steps on a real model. Owns the device, the model and the sampler's memory. */
final class ModelRunner implements StepRunner {
    private static final Logger log = LoggerFactory.getLogger(ModelRunner.class);

    private final Device device;
    private final EngineSettings settings;
    private final MlaModel model;
    private final StepInputs inputs;
    private final Sampler sampler;
    private final DecodeGraphs graphs; // null where steps run call by call
    private final Set<Integer> endOfSequence;
    private final int maxModelLen;
    private final boolean replays;
    private final Event[] ends = new Event[StepInputs.HOST_BUFFERS];
    private final Deque<Launched> underWay = new ArrayDeque<>();
    private int kvBlocks;
    private int hostBuffer; // of the step that is filled

    /** A step that the device was asked for; what it draws comes to its host buffer. */
    private record Launched(List<Scheduler.Work> step, int drawn, boolean logprobs, int hostBuffer) {}

    /** Loads the model, allocates everything that steps need, and gives the KV cache what is left. */
    static ModelRunner open(Checkpoint checkpoint, EngineSettings asked) {
        Device device = Device.open(asked.device(), asked.deviceOrdinal(), asked.threads());
        try {
            EngineSettings settings = asked.on(device.isCuda());
            MlaModel.Limits limits = limits(checkpoint, device, settings);
            MlaModel model = settings.loadFormat() == LoadFormat.DUMMY
                    ? MlaModel.dummy(checkpoint.config(), device, limits)
                    : MlaModel.load(checkpoint, device, limits);
            ModelRunner runner = new ModelRunner(device, model, limits, settings);
            try {
                runner.allocateCache();
                return runner;
            } catch (RuntimeException | Error e) {
                runner.freeAllButDevice();
                throw e;
            }
        } catch (RuntimeException | Error e) {
            device.close();
            throw e;
        }
    }

    private static MlaModel.Limits limits(Checkpoint checkpoint, Device device, EngineSettings settings) {
        int context = checkpoint.maxPositions();
        if (settings.maxModelLen() > 0) {
            context = Math.min(context, settings.maxModelLen());
        }
        return new MlaModel.Limits(
                settings.maxBatchTokens(),
                Math.min(settings.maxSequences(), settings.maxBatchTokens()),
                context,
                !device.isCuda() || settings.gpu().deterministic());
    }

    private ModelRunner(Device device, MlaModel model, MlaModel.Limits limits, EngineSettings settings) {
        this.device = device;
        this.settings = settings;
        this.model = model;
        this.inputs = model.inputs();
        this.sampler = new Sampler(device, model.ops(), inputs, limits.maxSequences());
        this.graphs =
                device.isCuda() && settings.gpu().graphs() ? new DecodeGraphs(device, limits.maxSequences()) : null;
        this.endOfSequence = Set.copyOf(model.config().eosTokenIds());
        this.maxModelLen = limits.maxModelLen();
        this.replays = device.isCuda() && limits.deterministic();
        Arrays.setAll(ends, i -> new Event(device));
    }

    private void allocateCache() {
        long blockBytes = MlaModel.kvBlockBytes(model.config(), device);
        if (device.isCuda()) {
            // What the backend itself needs for the largest steps has to be counted before the rest is given away.
            model.allocateCache(0);
            warmUp();
            model.freeCache();
        }
        long free = device.freeBytes();
        long used = device.openBytes();
        kvBlocks = KvMemory.blocks(settings, device.isCuda(), free, blockBytes, maxModelLen);
        model.allocateCache(kvBlocks);
        log.info(
                "{}: weights and workspace have {} MiB, {} MiB are free, the KV cache takes {} MiB: {} blocks of {} tokens",
                device.name(),
                used >> 20,
                free >> 20,
                ((kvBlocks + 1L) * blockBytes) >> 20,
                kvBlocks,
                BlockPool.BLOCK_TOKENS);
    }

    /** The largest steps of either kind, on a cache that is nothing but the dump. */
    private void warmUp() {
        int maxTokens = settings.maxBatchTokens();
        int sequences = Math.min(settings.maxSequences(), maxTokens);
        int length = Math.min(Math.max(maxTokens / sequences, 2), maxModelLen);
        int[] blocks = new int[BlockPool.blocksFor(length)];
        inputs.clear(0);
        for (int i = 0; i < sequences && inputs.tokens() + length <= maxTokens; i++) {
            inputs.add(new int[length], 0, length, false, -1, blocks);
            inputs.draw(length, 1, 50, 0.9f, 0);
        }
        compute(inputs.tableWidth(), true);
        device.synchronize();
        inputs.clear(0);
        inputs.pad(sequences, 0);
        compute(1, true);
        device.synchronize();
    }

    /** What was asked for, with the batch that the device calls for where none was. */
    EngineSettings settings() {
        return settings;
    }

    @Override
    public int vocabSize() {
        return model.config().vocabSize();
    }

    @Override
    public int maxModelLen() {
        return maxModelLen;
    }

    @Override
    public int kvBlocks() {
        return kvBlocks;
    }

    @Override
    public boolean isEndOfSequence(int token) {
        return endOfSequence.contains(token);
    }

    /** The CPU computes while it is asked: nothing could overlap. */
    @Override
    public boolean overlaps() {
        return device.isCuda();
    }

    /** A GPU splits the keys of a decode otherwise than those of a prefill. */
    @Override
    public boolean replays() {
        return replays;
    }

    @Override
    public void launch(List<Scheduler.Work> step) {
        fill(step);
        boolean logprobs = wantsLogprobs(step);
        int drawn = inputs.sampled();
        if (graphs != null && inputs.prefills() == 0) {
            DecodeGraphs.Shape shape = graphs.shape(inputs, logprobs);
            inputs.pad(shape.rows(), model.dumpBlock());
            inputs.upload(shape.tableWidth());
            graphs.run(shape, () -> forward(logprobs));
        } else {
            compute(inputs.tableWidth(), logprobs);
        }
        finish(new Launched(step, drawn, logprobs, hostBuffer));
    }

    @Override
    public Map<String, Double> launchProfiled(List<Scheduler.Work> step) {
        fill(step);
        boolean logprobs = wantsLogprobs(step);
        try (Profile profile = new Profile(device)) {
            model.ops().setProfile(profile);
            compute(inputs.tableWidth(), logprobs);
            model.ops().setProfile(null);
            finish(new Launched(step, inputs.sampled(), logprobs, hostBuffer));
            return profile.end();
        }
    }

    /** Uploads the step that has been filled in and asks the device for all of it. */
    private void compute(int tableWidth, boolean logprobs) {
        inputs.upload(tableWidth);
        forward(logprobs);
    }

    private void forward(boolean logprobs) {
        Tensor logits = model.forward();
        if (inputs.sampled() > 0) {
            sampler.sample(logits, logprobs);
        }
    }

    private static boolean wantsLogprobs(List<Scheduler.Work> step) {
        return step.stream()
                .anyMatch(work ->
                        work.completes() && work.sequence().request.sampling().logprobs() >= 0);
    }

    private void fill(List<Scheduler.Work> step) {
        hostBuffer = (hostBuffer + 1) % StepInputs.HOST_BUFFERS;
        inputs.clear(hostBuffer);
        fill(step, true);
        fill(step, false);
    }

    /** Those that decode come first; see {@link StepInputs}. */
    private void fill(List<Scheduler.Work> step, boolean decodes) {
        for (Scheduler.Work work : step) {
            if (work.decodes() == decodes) {
                Sequence sequence = work.sequence();
                int drawnRow = sequence.rowThatDraws(work.to() - 1);
                inputs.add(sequence.tokens(), work.from(), work.to(), decodes, drawnRow, sequence.blocks());
                if (work.completes()) {
                    sequence.drawnIn(inputs.sampled());
                    SamplingParams params = sequence.request.sampling();
                    long seed = Sampler.seed(params.seed(), sequence.request.rowKey());
                    inputs.draw(work.to(), params.temperature(), params.topK(), params.topP(), seed);
                }
            }
        }
    }

    /** Asks for what the step draws, and marks its end. */
    private void finish(Launched launched) {
        if (launched.drawn > 0) {
            sampler.fetch(launched.hostBuffer, launched.drawn, launched.logprobs);
        }
        ends[launched.hostBuffer].record();
        underWay.add(launched);
    }

    @Override
    public void collect(Sink sink) {
        Launched launched = underWay.remove();
        ends[launched.hostBuffer].synchronize();
        int row = emit(launched, true, 0, sink);
        emit(launched, false, row, sink);
    }

    private int emit(Launched launched, boolean decodes, int firstRow, Sink sink) {
        int row = firstRow;
        for (Scheduler.Work work : launched.step) {
            if (work.decodes() == decodes && work.completes()) {
                int asked = work.sequence().request.sampling().logprobs();
                int token = sampler.token(launched.hostBuffer, row);
                sink.token(work, token, sampler.logprobs(launched.hostBuffer, row, asked));
                row++;
            }
        }
        return row;
    }

    private void freeAllButDevice() {
        try {
            device.synchronize(); // steps may be under way
        } catch (NativeException e) {
            log.warn("The device failed before it was closed", e);
        }
        for (Event end : ends) {
            end.close();
        }
        if (graphs != null) {
            graphs.close();
        }
        sampler.close();
        model.close();
    }

    @Override
    public void close() {
        freeAllButDevice();
        device.close();
    }
}
