package io.github.sparkmla.engine;

import io.github.sparkmla.model.StepInputs;
import io.github.sparkmla.tensor.Device;
import io.github.sparkmla.tensor.Graph;
import io.github.sparkmla.tensor.NativeException;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Steps that only decode, as CUDA graphs: the hundreds of launches of a step become one. A graph has fixed shapes, so a
 * step is padded to the next of a few; the first step of a shape runs as it is, the second is captured.
 */
final class DecodeGraphs implements AutoCloseable {
    private static final Logger log = LoggerFactory.getLogger(DecodeGraphs.class);
    private static final int ROW_GRAIN = 32;
    private static final int LEAST_WIDTH = 16;

    /** What a graph is captured for: rows, columns of the block table, and whether somebody wants log-probabilities. */
    record Shape(int rows, int tableWidth, boolean logprobs) {}

    private final Device device;
    private final int maxRows;
    private final Map<Shape, Graph> graphs = new HashMap<>();
    private final Set<Shape> ran = new HashSet<>();
    private boolean failed;

    DecodeGraphs(Device device, int maxRows) {
        this.device = device;
        this.maxRows = maxRows;
    }

    /** The shape that a step is padded to. */
    Shape shape(StepInputs inputs, boolean logprobs) {
        return new Shape(
                rows(inputs.sequences(), maxRows), width(inputs.tableWidth(), inputs.maxTableWidth()), logprobs);
    }

    /** 1, 2, 4, 8, 16, 32, then every 32, at most {@code max}. */
    static int rows(int sequences, int max) {
        int bucket = sequences <= ROW_GRAIN
                ? Integer.highestOneBit(Math.max(1, 2 * sequences - 1))
                : (sequences + ROW_GRAIN - 1) / ROW_GRAIN * ROW_GRAIN;
        return Math.min(bucket, max);
    }

    /** 16, 64, 256, ..., at most {@code max}: few graphs, and at most four times the table that is needed. */
    static int width(int blocks, int max) {
        int bucket = LEAST_WIDTH;
        while (bucket < blocks) {
            bucket *= 4;
        }
        return Math.min(bucket, max);
    }

    /** Runs a step of this shape whose inputs are on the device. */
    void run(Shape shape, Runnable step) {
        Graph graph = graphs.get(shape);
        if (graph == null && !failed && !ran.add(shape)) {
            graph = capture(shape, step);
        }
        if (graph == null) {
            step.run();
        } else {
            graph.launch();
        }
    }

    /** Null where it cannot be: the engine goes on without graphs, slower, and says so. */
    private Graph capture(Shape shape, Runnable step) {
        try {
            Graph graph = Graph.capture(device, step);
            graphs.put(shape, graph);
            log.debug("Captured {}", shape);
            return graph;
        } catch (NativeException e) {
            if (e.isFatal()) {
                throw e;
            }
            failed = true;
            log.warn("No CUDA graphs from here on, decoding will be slower: capturing {} failed", shape, e);
            return null;
        }
    }

    /** Graphs captured so far. */
    int size() {
        return graphs.size();
    }

    @Override
    public void close() {
        graphs.values().forEach(Graph::close);
        graphs.clear();
    }
}
