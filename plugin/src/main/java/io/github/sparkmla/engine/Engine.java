package io.github.sparkmla.engine;

import io.github.sparkmla.checkpoint.Checkpoint;
import io.github.sparkmla.engine.Completion.FinishReason;
import io.github.sparkmla.engine.EngineSettings.LoadFormat;
import io.github.sparkmla.model.MlaModel;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Continuous batching over one model: one thread loops schedule -> launch -> collect, and is the only one that touches the
 * device. Any number of threads submit requests; none of them blocks inside native code.
 */
public final class Engine implements AutoCloseable {
    private static final Logger log = LoggerFactory.getLogger(Engine.class);

    private final Scheduler scheduler;
    private final BlockPool pool;
    private final StepRunner runner;
    private final int maxSequences;
    private final int maxModelLen;
    private final int vocabSize;
    private final LinkedBlockingQueue<Sequence> inbox = new LinkedBlockingQueue<>();
    private final Queue<Sequence> cancelled = new ConcurrentLinkedQueue<>();
    private final List<Sequence> drained = new ArrayList<>(); // of the engine thread
    private final Thread thread;
    private volatile boolean closing;
    private volatile Throwable death;
    private final AtomicLong steps = new AtomicLong();
    private final Deque<UnderWay> underWay = new ArrayDeque<>(); // oldest first
    private long lastCollected;
    private volatile long preemptions;
    private volatile StepListener listener = step -> {};
    private final AtomicReference<ProfileRequest> profile = new AtomicReference<>();

    /** What the listener is told of a step when it is done. */
    private record UnderWay(StepKind kind, int sequences, int tokens, long context, long start, boolean profiled) {}

    /** Somebody wants to know where the time of the next step of a kind goes. */
    private record ProfileRequest(StepKind kind, CompletableFuture<Map<String, Double>> milliseconds) {}

    /**
     * Opens a checkpoint folder and checks, reading headers only, that nothing an engine needs is missing. Needs no
     * device: this is how a driver refuses a bad checkpoint before any task starts.
     *
     * @throws io.github.sparkmla.checkpoint.CheckpointException when the checkpoint is not good
     */
    public static Checkpoint check(Path folder) {
        Checkpoint checkpoint = Checkpoint.open(folder);
        MlaModel.check(checkpoint);
        return checkpoint;
    }

    /** The same for weights from elsewhere: without a checkpoint's, config.json is all that a folder needs. */
    public static Checkpoint check(Path folder, LoadFormat format) {
        return format == LoadFormat.DUMMY ? Checkpoint.openWithoutWeights(folder) : check(folder);
    }

    /**
     * Loads a checkpoint folder and starts the engine.
     *
     * @throws io.github.sparkmla.checkpoint.CheckpointException when the checkpoint is not good
     */
    public static Engine load(Path folder, EngineSettings settings) {
        return load(check(folder, settings.loadFormat()), settings);
    }

    /** The same for a checkpoint that was opened and checked. */
    public static Engine load(Checkpoint checkpoint, EngineSettings settings) {
        ModelRunner runner = ModelRunner.open(checkpoint, settings);
        EngineSettings onDevice = runner.settings();
        log.info(
                "{}: up to {} sequences and {} tokens a step, context {}",
                checkpoint.folder(),
                onDevice.maxSequences(),
                onDevice.maxBatchTokens(),
                runner.maxModelLen());
        return new Engine(runner, onDevice);
    }

    Engine(StepRunner runner, EngineSettings settings) {
        this.runner = runner;
        this.maxSequences = settings.maxSequences();
        this.maxModelLen = runner.maxModelLen();
        this.vocabSize = runner.vocabSize();
        this.pool = new BlockPool(runner.kvBlocks());
        this.scheduler = new Scheduler(pool, settings, runner.replays());
        this.thread = new Thread(this::loop, "spark-mla-engine");
        thread.setDaemon(true);
        thread.start();
    }

    /** Most sequences in one step. */
    public int maxSequences() {
        return maxSequences;
    }

    /** Longest prompt plus completion, in tokens. */
    public int maxModelLen() {
        return maxModelLen;
    }

    /** Steps run so far. */
    public long steps() {
        return steps.get();
    }

    /** Sequences preempted so far because KV blocks ran out. */
    public long preemptions() {
        return preemptions;
    }

    /** Free blocks of the KV cache; all of them when no request is running. */
    public int freeBlocks() {
        return pool.free();
    }

    /** Blocks of the KV cache. */
    public int totalBlocks() {
        return pool.total();
    }

    /** Tells {@code newListener}, and nobody else, of every step from now on. */
    public void setListener(StepListener newListener) {
        listener = newListener;
    }

    /**
     * Profiles the next step of this kind: milliseconds on the device by section, summed over the layers. Runs it call by
     * call, so it takes longer than usual.
     */
    public CompletableFuture<Map<String, Double>> profileNext(StepKind kind) {
        ProfileRequest request = new ProfileRequest(kind, new CompletableFuture<>());
        profile.set(request);
        return request.milliseconds;
    }

    /**
     * Queues a request; thread-safe. The future completes with the completion, or exceptionally: with a {@link
     * RequestException} when only this request failed, with anything else when the engine died or was closed. Cancelling it
     * frees the sequence within one step.
     *
     * @throws IllegalArgumentException at once, for a request that can never run
     */
    public CompletableFuture<Completion> submit(Request request) {
        checkRunnable(request);
        Sequence sequence = new Sequence(request, maxModelLen);
        if (sequence.maxBlocks() > pool.total()) {
            throw new IllegalArgumentException("a prompt of " + request.promptIds().length + " tokens and up to "
                    + request.sampling().maxTokens() + " more needs " + sequence.maxBlocks()
                    + " blocks of the KV cache, which has " + pool.total()
                    + ": raise spark.mla.kv.memory or lower the token limit");
        }
        CompletableFuture<Completion> unused = sequence.future.whenComplete((completion, error) -> {
            if (sequence.future.isCancelled()) {
                cancelled.add(sequence);
            }
        });
        inbox.add(sequence);
        if (closing) {
            // The loop may have taken its last look at the inbox already.
            failAll(closed());
        }
        return sequence.future;
    }

    private void checkRunnable(Request request) {
        int[] prompt = request.promptIds();
        if (prompt.length == 0) {
            throw new IllegalArgumentException("the prompt is empty: it has no tokens");
        }
        if (prompt.length >= maxModelLen) {
            throw new IllegalArgumentException("the prompt has " + prompt.length + " tokens and the context is "
                    + maxModelLen + ": no room is left for a completion");
        }
        for (int i = 0; i < prompt.length; i++) {
            if (prompt[i] < 0 || prompt[i] >= vocabSize) {
                throw new IllegalArgumentException("token " + i + " of the prompt is " + prompt[i]
                        + ", and the model's vocabulary has " + vocabSize);
            }
        }
    }

    private void loop() {
        try {
            while (!closing) {
                admit();
                dropCancelled();
                step();
            }
        } catch (InterruptedException e) {
            log.debug("engine thread interrupted", e);
        } catch (Throwable e) {
            death = e;
            log.error("the engine died; its requests fail and Spark may retry their tasks", e);
        } finally {
            closing = true;
            failAll(closed());
            runner.close();
        }
    }

    /**
     * Launches the next step, then collects the one before, so that the device always has work: the host learns a step's
     * tokens while the next one, which gets them on the device, is under way. A sequence that turns out to have ended is in
     * that one for nothing; its token is dropped.
     */
    private void step() {
        long start = System.nanoTime();
        List<Scheduler.Work> step = scheduler.schedule();
        preemptions = scheduler.preemptions();
        if (!step.isEmpty()) {
            launch(step, start);
        }
        int mayStay = runner.overlaps() && !step.isEmpty() ? 1 : 0;
        while (underWay.size() > mayStay) {
            collect();
        }
    }

    private void launch(List<Scheduler.Work> step, long start) {
        StepKind kind = step.stream().allMatch(Scheduler.Work::decodes) ? StepKind.DECODE : StepKind.PREFILL;
        int tokens = step.stream().mapToInt(Scheduler.Work::tokens).sum();
        long context = step.stream().mapToLong(Scheduler.Work::to).sum();
        ProfileRequest asked = profile.get();
        boolean profiled = asked != null && asked.kind == kind && profile.compareAndSet(asked, null);
        underWay.add(new UnderWay(kind, step.size(), tokens, context, start, profiled));
        if (profiled) {
            asked.milliseconds.complete(runner.launchProfiled(step));
        } else {
            runner.launch(step);
        }
    }

    private void collect() {
        runner.collect(this::append);
        UnderWay done = underWay.remove();
        steps.incrementAndGet();
        long now = System.nanoTime();
        long nanos = now - Math.max(done.start, lastCollected);
        lastCollected = now;
        listener.step(
                new StepListener.Step(done.kind, done.sequences, done.tokens, done.context, nanos, done.profiled));
    }

    private void admit() throws InterruptedException {
        if (scheduler.isEmpty() && underWay.isEmpty()) {
            drained.add(inbox.take());
        }
        inbox.drainTo(drained);
        for (Sequence sequence : drained) {
            if (!sequence.future.isDone()) {
                scheduler.add(sequence);
            }
        }
        drained.clear();
    }

    private void dropCancelled() {
        for (Sequence sequence = cancelled.poll(); sequence != null; sequence = cancelled.poll()) {
            scheduler.remove(sequence);
        }
    }

    private void append(Scheduler.Work work, int token, Completion.TokenLogprobs logprobs) {
        Sequence sequence = work.sequence();
        if (sequence.future.isDone()) {
            return; // cancelled, or ended by the token before this
        }
        if (token < 0) {
            scheduler.remove(sequence);
            sequence.future.completeExceptionally(new RequestException(
                    sequence.request.promptIds().length,
                    "after " + work.to() + " tokens the model's logits are not numbers (NaN or infinite):"
                            + " the checkpoint's weights overflow or are damaged"));
            return;
        }
        FinishReason reason = sequence.append(token, logprobs, runner.isEndOfSequence(token));
        if (reason != null) {
            scheduler.remove(sequence);
            sequence.future.complete(sequence.completion(reason));
        }
    }

    private Exception closed() {
        return death == null
                ? new IllegalStateException("the engine was closed")
                : new IllegalStateException("the engine died: " + death, death);
    }

    private void failAll(Exception cause) {
        List<Sequence> left = new ArrayList<>();
        inbox.drainTo(left);
        left.forEach(sequence -> sequence.future.completeExceptionally(cause));
        if (Thread.currentThread() == thread) {
            scheduler.all().forEach(sequence -> sequence.future.completeExceptionally(cause));
        }
    }

    /** Stops the thread, fails what is left, frees all native memory. */
    @Override
    public void close() {
        closing = true;
        thread.interrupt();
        boolean interrupted = false;
        while (thread.isAlive()) {
            try {
                thread.join();
            } catch (InterruptedException e) {
                interrupted = true;
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }
}
