package io.github.sparkmla.spark;

import io.github.sparkmla.Golden;
import io.github.sparkmla.checkpoint.ChatTemplate;
import io.github.sparkmla.checkpoint.Checkpoint;
import io.github.sparkmla.checkpoint.Tokenizer;
import io.github.sparkmla.engine.Completion;
import io.github.sparkmla.engine.Completion.FinishReason;
import io.github.sparkmla.engine.Request;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;

/** A model whose completions a test ends by hand, in any order; its tokenizer is a real one. */
final class FakeModel implements LoadedModel {
    static final int MAX_MODEL_LEN = 64;
    static final int MAX_SEQUENCES = 2;

    private final Checkpoint checkpoint = Checkpoint.open(Golden.TINY_V3.folder());
    private final Tokenizer tokenizer = checkpoint.openTokenizer();
    final List<Request> requests = new ArrayList<>();
    final List<CompletableFuture<Completion>> completions = new ArrayList<>();
    boolean closed;

    @Override
    public Tokenizer tokenizer() {
        return tokenizer;
    }

    @Override
    public Optional<ChatTemplate> chatTemplate() {
        return checkpoint.chatTemplate();
    }

    @Override
    public int maxSequences() {
        return MAX_SEQUENCES;
    }

    @Override
    public int maxModelLen() {
        return MAX_MODEL_LEN;
    }

    @Override
    public CompletableFuture<Completion> submit(Request request) {
        CompletableFuture<Completion> completion = new CompletableFuture<>();
        requests.add(request);
        completions.add(completion);
        return completion;
    }

    /** Ends a completion with the prompt's own tokens, less the first, which begins every sequence. */
    void complete(int index) {
        int[] prompt = requests.get(index).promptIds();
        int[] echo = java.util.Arrays.copyOfRange(prompt, 1, prompt.length);
        completions.get(index).complete(new Completion(echo, FinishReason.STOP, prompt.length, 0, List.of()));
    }

    @Override
    public double kvInUse() {
        return 0.5;
    }

    @Override
    public long takePreemptions() {
        return 0;
    }

    @Override
    public void close() {
        closed = true;
        tokenizer.close();
    }
}
