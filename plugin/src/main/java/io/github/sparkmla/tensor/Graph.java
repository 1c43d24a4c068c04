package io.github.sparkmla.tensor;

import static io.github.sparkmla.tensor.NativeException.check;

import io.github.sparkmla.natives.Mla;

/** Work of a device that was captured once and runs again and again in one launch; a GPU only. */
public final class Graph implements AutoCloseable {
    private final Device device;
    private final Mla.mla_graph graph = new Mla.mla_graph();

    private Graph(Device device) {
        this.device = device;
    }

    /**
     * Captures what {@code work} asks of the device, without running it. Addresses, shapes and scalars are frozen, values in
     * memory are not. The same work must have run before: a capture cannot allocate.
     */
    public static Graph capture(Device device, Runnable work) {
        Graph captured = new Graph(device);
        check(Mla.mla_graph_begin(device.context));
        work.run(); // a call that fails ends the capture
        check(Mla.mla_graph_end(device.context, captured.graph));
        return captured;
    }

    public void launch() {
        check(Mla.mla_graph_launch(device.context, graph));
    }

    @Override
    public void close() {
        Mla.mla_graph_destroy(graph);
    }
}
