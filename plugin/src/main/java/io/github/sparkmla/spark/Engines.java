package io.github.sparkmla.spark;

import io.github.sparkmla.engine.EngineSettings;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Function;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The models that are loaded in this JVM. Tasks lease them; all tasks that ask for the same model and settings share
 * one, and so one batch.
 *
 * <p>A model stays loaded when its last lease ends, for the tasks to come. When another is to be loaded, those that
 * nobody leases are closed first, to make room. Nothing ever waits for a lease to end: two models in one stage hold both
 * leases at once, and waiting would deadlock.
 */
final class Engines {
    private static final Logger log = LoggerFactory.getLogger(Engines.class);
    private static final Engines OF_THIS_JVM = new Engines(key -> LoadedModel.load(key.folder, key.settings));

    /** What makes two engines the same. */
    record Key(Path folder, EngineSettings settings) {}

    /** A model, or one that is being loaded. Its count of leases is guarded by the registry. */
    private static final class Entry {
        final CompletableFuture<LoadedModel> model = new CompletableFuture<>();
        final AtomicBoolean closed = new AtomicBoolean();
        int leases;

        boolean isIdle() {
            return leases == 0 && model.isDone();
        }

        /** Now, or as soon as it is loaded; only once. */
        void close() {
            if (!closed.getAndSet(true)) {
                CompletableFuture<Void> unused = model.thenAccept(LoadedModel::close);
            }
        }
    }

    private final Function<Key, LoadedModel> loader;
    private final Map<Key, Entry> entries = new HashMap<>();
    private final Object loading = new Object(); // one at a time: a model takes a part of the memory that it finds free

    Engines(Function<Key, LoadedModel> loader) {
        this.loader = loader;
    }

    static Engines ofThisJvm() {
        return OF_THIS_JVM;
    }

    /** The right to use a model until closed. */
    final class Lease implements AutoCloseable {
        private final Key key;
        private final Entry entry;
        private boolean closed;

        private Lease(Key key, Entry entry) {
            this.key = key;
            this.entry = entry;
        }

        /**
         * This, once the model is loaded. Where loading fails, all who wait fail with the same cause, their leases are
         * closed, and the next to ask tries again.
         *
         * @param poll called every 100 ms of waiting; what it throws ends the wait
         */
        Lease await(Runnable poll) {
            try {
                Waiting.await(entry.model, poll);
                return this;
            } catch (ExecutionException e) {
                close();
                FatalDevice.exitIfLost(e.getCause());
                throw new IllegalStateException(
                        "cannot load the model " + key.folder + ": " + Waiting.describe(e.getCause()), e.getCause());
            } catch (RuntimeException e) {
                close();
                throw e;
            }
        }

        /** What was waited for. */
        LoadedModel model() {
            return entry.model.join();
        }

        /** How many leases of the model there are; one at least. */
        int sharers() {
            synchronized (Engines.this) {
                return Math.max(entry.leases, 1);
            }
        }

        /** Says that the engine died: whoever asks next gets a new one. */
        void discard() {
            synchronized (Engines.this) {
                entries.remove(key, entry);
            }
        }

        @Override
        public void close() {
            synchronized (Engines.this) {
                if (closed) {
                    return;
                }
                closed = true;
                entry.leases--;
                if (entries.get(key) == entry || entry.leases > 0) {
                    return; // kept for the next task, or for those that still use it
                }
            }
            entry.close();
        }
    }

    /**
     * Leases a model, and starts to load it where no task has before: once, on a thread of its own, however many tasks
     * will {@link Lease#await} it.
     */
    synchronized Lease lease(Key key) {
        Entry entry = entries.get(key);
        if (entry == null) {
            entry = startLoading(key);
            entries.put(key, entry);
        }
        entry.leases++;
        return new Lease(key, entry);
    }

    /** Models loaded or loading. */
    synchronized int size() {
        return entries.size();
    }

    /** Closes every model, whoever uses it: for the end of the executor. */
    void closeAll() {
        List<Entry> all;
        synchronized (this) {
            all = new ArrayList<>(entries.values());
            entries.clear();
        }
        all.forEach(Entry::close);
    }

    private Entry startLoading(Key key) {
        Entry entry = new Entry();
        List<Entry> idle = removeIdle();
        Thread thread = new Thread(() -> load(key, entry, idle), "spark-mla-load");
        thread.setDaemon(true);
        thread.start();
        return entry;
    }

    private List<Entry> removeIdle() {
        List<Entry> idle = entries.values().stream().filter(Entry::isIdle).toList();
        entries.values().removeAll(idle);
        return idle;
    }

    private void load(Key key, Entry entry, List<Entry> idle) {
        try {
            idle.forEach(Entry::close);
            log.info(
                    "Loading {} with {}; it stays loaded until the {} ends",
                    key.folder,
                    key.settings,
                    SparkMlaPlugin.isConfigured() ? "executor" : "JVM (spark.plugins does not name SparkMlaPlugin)");
            LoadedModel model;
            synchronized (loading) {
                long start = System.nanoTime();
                model = loader.apply(key);
                log.info("Loaded {} in {} ms", key.folder, (System.nanoTime() - start) / 1_000_000);
            }
            entry.model.complete(model);
        } catch (Throwable e) { // also LinkageError: the waiting tasks must hear of everything
            synchronized (this) {
                entries.remove(key, entry);
            }
            entry.model.completeExceptionally(e);
        }
    }
}
