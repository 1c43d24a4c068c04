package io.github.sparkmla.engine;

import io.github.sparkmla.tensor.Device;

/**
 * What a GPU has, found out by opening it.
 *
 * @param name its printable name
 * @param freeBytes memory that nobody has taken
 */
public record GpuProbe(String name, long freeBytes) {

    /** Opens a GPU and closes it; throws, saying what is wrong, where an engine could not run on it. */
    public static GpuProbe of(int ordinal) {
        try (Device device = Device.open("cuda", ordinal, 0)) {
            return new GpuProbe(device.name(), device.freeBytes());
        }
    }
}
