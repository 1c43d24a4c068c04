package io.github.sparkmla.spark;

import io.github.sparkmla.checkpoint.Tokenizer;
import io.github.sparkmla.engine.Completion;
import io.github.sparkmla.engine.Request;
import io.github.sparkmla.engine.RequestException;
import io.github.sparkmla.engine.SamplingParams;
import java.util.ArrayDeque;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import org.apache.spark.sql.catalyst.InternalRow;
import org.apache.spark.sql.catalyst.expressions.JoinedRow;

/**
 * The rows of a partition, each joined with the fields of its result, in input order. Keeps a bounded window of rows in flight; nothing is
 * collected. Lives on its task's thread.
 */
final class GenerateIterator implements Iterator<InternalRow>, AutoCloseable {
    private final Iterator<InternalRow> input;
    private final GenerateSpec spec;
    private final SamplingParams sampling;
    private final Engines.Lease lease;
    private final LoadedModel model;
    private final Tokenizer tokenizer;
    private final PromptReader reader;
    private final Runnable poll;
    private final TaskProgress progress;
    private final String partition;
    private final ArrayDeque<InFlight> window = new ArrayDeque<>();

    /** A row whose completion is awaited, or whose error is known ({@code completion} is null then). */
    private record InFlight(InternalRow row, CompletableFuture<Completion> completion, InternalRow error) {}

    /**
     * @param columns where a row has its prompt
     * @param lease the model; closed with this iterator
     * @param checkKilled throws when the task was killed
     * @param partition how messages name the partition
     */
    GenerateIterator(
            Iterator<InternalRow> input,
            GenerateSpec spec,
            InputColumns columns,
            Engines.Lease lease,
            Runnable checkKilled,
            TaskProgress progress,
            String partition) {
        this.input = input;
        this.spec = spec;
        this.lease = lease;
        this.partition = partition;
        this.model = lease.model();
        this.tokenizer = model.tokenizer();
        this.sampling = spec.decoding().toSamplingParams();
        this.reader =
                new PromptReader(spec, columns, tokenizer, model.chatTemplate().orElse(null), model.maxModelLen());
        this.progress = progress;
        this.poll = () -> {
            checkKilled.run();
            progress.tick();
        };
    }

    @Override
    public boolean hasNext() {
        while (window.size() < spec.conf().window(model.maxSequences(), lease.sharers()) && input.hasNext()) {
            poll.run();
            window.add(start(input.next().copy())); // Spark reuses a row for the next one
        }
        return !window.isEmpty();
    }

    @Override
    public InternalRow next() {
        if (!hasNext()) {
            throw new NoSuchElementException();
        }
        InFlight oldest = window.element();
        InternalRow result = oldest.completion == null ? failed(oldest.error) : await(oldest.completion);
        window.remove(); // only now: until its completion is here, close() must cancel it
        return new JoinedRow(oldest.row, result);
    }

    private InFlight start(InternalRow row) {
        try {
            int[] promptIds = reader.promptIds(row);
            Request request = new Request(promptIds, sampling, reader.rowKey(row, promptIds));
            return new InFlight(row, submit(request), null);
        } catch (BadRowException e) {
            return new InFlight(row, null, ResultColumn.ofError(e.getMessage(), e.promptTokens()));
        }
    }

    private CompletableFuture<Completion> submit(Request request) throws BadRowException {
        try {
            return model.submit(request);
        } catch (IllegalArgumentException e) { // by contract: this request can never run
            throw new BadRowException(
                    BadRowException.Kind.BAD_PROMPT,
                    "the engine refuses it: " + e.getMessage(),
                    request.promptIds().length);
        }
    }

    private InternalRow await(CompletableFuture<Completion> completion) {
        try {
            return completed(waitFor(completion));
        } catch (ExecutionException e) {
            if (e.getCause() instanceof RequestException bad) {
                return failed(ResultColumn.ofError(bad.getMessage(), bad.promptTokens()));
            }
            lease.discard();
            FatalDevice.exitIfLost(e.getCause());
            throw new IllegalStateException(
                    "the engine of " + spec.model() + " died: " + Waiting.describe(e.getCause()), e.getCause());
        }
    }

    private Completion waitFor(CompletableFuture<Completion> completion) throws ExecutionException {
        long start = System.nanoTime();
        if (!completion.isDone()) {
            RapidsSemaphore.release();
        }
        try {
            return Waiting.await(completion, poll);
        } finally {
            progress.waited(System.nanoTime() - start, model.kvInUse());
        }
    }

    private InternalRow completed(Completion completion) {
        progress.completed(completion);
        return ResultColumn.of(tokenizer.decode(completion.tokenIds(), true), completion, sampling.logprobs() >= 0);
    }

    private InternalRow failed(InternalRow error) {
        if (spec.failOnError()) {
            throw new IllegalStateException("row %d of %s: %s (failOnError is set)"
                    .formatted(progress.rows(), partition, error.getString(error.numFields() - 1)));
        }
        progress.failed();
        return error;
    }

    /** Cancels what is in flight and gives the model back. */
    @Override
    public void close() {
        for (InFlight waiting : window) {
            if (waiting.completion != null) {
                waiting.completion.cancel(false);
            }
        }
        window.clear();
        progress.finish(model.takePreemptions());
        lease.close();
    }
}
