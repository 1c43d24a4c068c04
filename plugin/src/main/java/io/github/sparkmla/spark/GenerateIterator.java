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
import org.apache.spark.sql.Row;

/**
 * The rows of a partition with their completions, in input order. Keeps a bounded window of rows in flight; nothing is
 * collected. Lives on its task's thread.
 */
final class GenerateIterator implements Iterator<Row>, AutoCloseable {
    private final Iterator<Row> input;
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
    private record InFlight(Row row, CompletableFuture<Completion> completion, Row error) {}

    /**
     * @param lease the model; closed with this iterator
     * @param checkKilled throws when the task was killed
     * @param partition how messages name the partition
     */
    GenerateIterator(
            Iterator<Row> input, GenerateSpec spec, Engines.Lease lease, Runnable checkKilled, String partition) {
        this.input = input;
        this.spec = spec;
        this.lease = lease;
        this.partition = partition;
        this.model = lease.model();
        this.tokenizer = model.tokenizer();
        this.sampling = spec.decoding().toSamplingParams();
        this.reader = new PromptReader(spec, tokenizer, model.chatTemplate().orElse(null), model.maxModelLen());
        this.progress = new TaskProgress("Generation of " + partition, System::nanoTime);
        this.poll = () -> {
            checkKilled.run();
            progress.tick();
        };
    }

    @Override
    public boolean hasNext() {
        while (window.size() < spec.conf().window() && input.hasNext()) {
            poll.run();
            window.add(start(input.next()));
        }
        return !window.isEmpty();
    }

    @Override
    public Row next() {
        if (!hasNext()) {
            throw new NoSuchElementException();
        }
        InFlight oldest = window.element();
        Row result = oldest.completion == null ? failed(oldest.error) : await(oldest.completion);
        window.remove(); // only now: until its completion is here, close() must cancel it
        return append(oldest.row, result);
    }

    private InFlight start(Row row) {
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

    private Row await(CompletableFuture<Completion> completion) {
        try {
            return completed(Waiting.await(completion, poll));
        } catch (ExecutionException e) {
            if (e.getCause() instanceof RequestException bad) {
                return failed(ResultColumn.ofError(bad.getMessage(), bad.promptTokens()));
            }
            lease.discard();
            throw new IllegalStateException(
                    "the engine of " + spec.model() + " died: " + Waiting.describe(e.getCause()), e.getCause());
        }
    }

    private Row completed(Completion completion) {
        progress.completed(completion);
        return ResultColumn.of(tokenizer.decode(completion.tokenIds(), true), completion, sampling.logprobs() >= 0);
    }

    private Row failed(Row error) {
        if (spec.failOnError()) {
            throw new IllegalStateException("row %d of %s: %s (failOnError is set)"
                    .formatted(progress.rows(), partition, error.getString(error.size() - 1)));
        }
        progress.failed();
        return error;
    }

    private Row append(Row row, Row result) {
        Object[] values = new Object[row.size() + 1];
        for (int i = 0; i < row.size(); i++) {
            values[i] = row.get(i);
        }
        values[row.size()] = result;
        return ResultColumn.row(spec.outputType(), values);
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
        lease.close();
        progress.finish();
    }
}
