package io.github.sparkmla.tensor;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Where the time of a step goes: events on the stream between its sections, which {@link Ops#section} names. */
public final class Profile implements AutoCloseable {
    private final Device device;
    private final List<Event> events = new ArrayList<>();
    private final List<String> names = new ArrayList<>(); // names.get(i) begins at events.get(i)

    public Profile(Device device) {
        this.device = device;
    }

    void begin(String section) {
        if (events.size() == names.size()) {
            events.add(new Event(device));
        }
        events.get(names.size()).record();
        names.add(section);
    }

    /**
     * Ends the last section, waits for the device and gives milliseconds by name, sections of one name added up. The next
     * {@link #begin} starts anew.
     */
    public Map<String, Double> end() {
        begin("");
        Map<String, Double> milliseconds = new LinkedHashMap<>();
        for (int i = 0; i + 1 < names.size(); i++) {
            double time = events.get(i + 1).millisecondsSince(events.get(i));
            milliseconds.merge(names.get(i), time, Double::sum);
        }
        names.clear();
        return milliseconds;
    }

    @Override
    public void close() {
        events.forEach(Event::close);
        events.clear();
    }
}
