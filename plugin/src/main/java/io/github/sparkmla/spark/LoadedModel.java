package io.github.sparkmla.spark;

import io.github.sparkmla.checkpoint.ChatTemplate;
import io.github.sparkmla.checkpoint.Checkpoint;
import io.github.sparkmla.checkpoint.Tokenizer;
import io.github.sparkmla.engine.Completion;
import io.github.sparkmla.engine.DeviceFailure;
import io.github.sparkmla.engine.Engine;
import io.github.sparkmla.engine.EngineSettings;
import io.github.sparkmla.engine.EngineSettings.LoadFormat;
import io.github.sparkmla.engine.GpuMemory;
import io.github.sparkmla.engine.Request;
import java.nio.file.Path;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.atomic.AtomicLong;

/** A model that is ready to generate: its engine, its tokenizer and its chat template. Shared by threads. */
interface LoadedModel extends AutoCloseable {
    Tokenizer tokenizer();

    Optional<ChatTemplate> chatTemplate();

    /** Most sequences that it decodes in one step. */
    int maxSequences();

    /** Most tokens of prompt and completion together. */
    int maxModelLen();

    /** As {@link Engine#submit}. */
    CompletableFuture<Completion> submit(Request request);

    /** The share of the KV cache that is in use, 0 to 1. */
    double kvInUse();

    /** How often a sequence was preempted since the last call, whoever made that: so that tasks can add them up. */
    long takePreemptions();

    @Override
    void close();

    /** Loads a checkpoint folder; throws with a clear message on a bad one. May take minutes. */
    static LoadedModel load(Path folder, EngineSettings settings) {
        Checkpoint checkpoint = settings.loadFormat() == LoadFormat.DUMMY
                ? Checkpoint.openWithoutWeights(folder)
                : Checkpoint.openWithoutTokenizer(folder);
        Tokenizer tokenizer = checkpoint.openTokenizer();
        try {
            return new OnEngine(Engine.load(checkpoint, settings), tokenizer, checkpoint.chatTemplate());
        } catch (RuntimeException e) {
            tokenizer.close();
            if (DeviceFailure.isOutOfMemory(e) && !settings.device().equals("cpu")) {
                throw new IllegalStateException(GpuPinning.noRoom(GpuMemory.of(checkpoint, settings)), e);
            }
            throw e;
        } catch (Error e) {
            tokenizer.close();
            throw e;
        }
    }

    /** The real one. */
    final class OnEngine implements LoadedModel {
        private final Engine engine;
        private final Tokenizer tokenizer;
        private final Optional<ChatTemplate> chatTemplate;
        private final AtomicLong preemptionsTaken = new AtomicLong();

        OnEngine(Engine engine, Tokenizer tokenizer, Optional<ChatTemplate> chatTemplate) {
            this.engine = engine;
            this.tokenizer = tokenizer;
            this.chatTemplate = chatTemplate;
        }

        Engine engine() {
            return engine;
        }

        @Override
        public Tokenizer tokenizer() {
            return tokenizer;
        }

        @Override
        public Optional<ChatTemplate> chatTemplate() {
            return chatTemplate;
        }

        @Override
        public int maxSequences() {
            return engine.maxSequences();
        }

        @Override
        public int maxModelLen() {
            return engine.maxModelLen();
        }

        @Override
        public CompletableFuture<Completion> submit(Request request) {
            return engine.submit(request);
        }

        @Override
        public double kvInUse() {
            return 1 - (double) engine.freeBlocks() / engine.totalBlocks();
        }

        @Override
        public long takePreemptions() {
            long now = engine.preemptions();
            return Math.max(0, now - preemptionsTaken.getAndAccumulate(now, Math::max));
        }

        @Override
        public void close() {
            engine.close();
            tokenizer.close();
        }
    }
}
