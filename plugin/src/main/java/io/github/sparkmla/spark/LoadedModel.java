package io.github.sparkmla.spark;

import io.github.sparkmla.checkpoint.ChatTemplate;
import io.github.sparkmla.checkpoint.Checkpoint;
import io.github.sparkmla.checkpoint.Tokenizer;
import io.github.sparkmla.engine.Completion;
import io.github.sparkmla.engine.Engine;
import io.github.sparkmla.engine.EngineSettings;
import io.github.sparkmla.engine.Request;
import java.nio.file.Path;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;

/** A model that is ready to generate: its engine, its tokenizer and its chat template. Shared by threads. */
interface LoadedModel extends AutoCloseable {
    Tokenizer tokenizer();

    Optional<ChatTemplate> chatTemplate();

    /** Most tokens of prompt and completion together. */
    int maxModelLen();

    /** As {@link Engine#submit}. */
    CompletableFuture<Completion> submit(Request request);

    @Override
    void close();

    /** Loads a checkpoint folder; throws with a clear message on a bad one. May take minutes. */
    static LoadedModel load(Path folder, EngineSettings settings) {
        Checkpoint checkpoint = Engine.check(folder, settings.loadFormat());
        Tokenizer tokenizer = checkpoint.openTokenizer();
        try {
            return new OnEngine(Engine.load(checkpoint, settings), tokenizer, checkpoint.chatTemplate());
        } catch (RuntimeException | Error e) {
            tokenizer.close();
            throw e;
        }
    }

    /** The real one. */
    record OnEngine(Engine engine, Tokenizer tokenizer, Optional<ChatTemplate> chatTemplate) implements LoadedModel {
        @Override
        public int maxModelLen() {
            return engine.maxModelLen();
        }

        @Override
        public CompletableFuture<Completion> submit(Request request) {
            return engine.submit(request);
        }

        @Override
        public void close() {
            engine.close();
            tokenizer.close();
        }
    }
}
