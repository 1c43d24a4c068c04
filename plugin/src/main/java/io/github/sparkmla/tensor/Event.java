package io.github.sparkmla.tensor;

import static io.github.sparkmla.tensor.NativeException.check;

import io.github.sparkmla.natives.Mla;

/** A point on a device's stream: the end of the work before {@link #record}. */
public final class Event implements AutoCloseable {
    private final Device device;
    private final Mla.mla_event event = new Mla.mla_event();

    public Event(Device device) {
        this.device = device;
        check(Mla.mla_event_create(device.context, event));
    }

    public void record() {
        check(Mla.mla_event_record(device.context, event));
    }

    /** Waits until the device has come to where this was recorded. */
    public void synchronize() {
        check(Mla.mla_event_synchronize(device.context, event));
    }

    /** Milliseconds from another recorded event to this; waits for both. */
    public float millisecondsSince(Event earlier) {
        float[] milliseconds = new float[1];
        check(Mla.mla_event_elapsed(device.context, earlier.event, event, milliseconds));
        return milliseconds[0];
    }

    @Override
    public void close() {
        Mla.mla_event_destroy(event);
    }
}
