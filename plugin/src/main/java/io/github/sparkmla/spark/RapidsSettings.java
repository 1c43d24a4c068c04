package io.github.sparkmla.spark;

import io.github.sparkmla.engine.GpuMemory;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.apache.spark.network.util.JavaUtils;

/**
 * What Spark MLA asks of the RAPIDS Accelerator's settings where both are in one executor. RAPIDS takes its pool when it
 * starts: all that is free on the card less {@code spark.rapids.memory.gpu.reserve}. Engines live in that reserve.
 */
final class RapidsSettings {
    static final String PLUGIN = "com.nvidia.spark.SQLPlugin";
    private static final String MEMORY = "spark.rapids.memory.gpu.";
    private static final String RESERVE = MEMORY + "reserve";
    private static final String MIN_FRACTION = MEMORY + "minAllocFraction";

    /** RAPIDS 26.08: 640 MiB. */
    private static final String DEFAULT_RESERVE = "671088640";

    private static final double DEFAULT_MIN_FRACTION = 0.25;

    /** The smallest Hopper card has 80 GB, of which 79 GiB can be had. */
    private static final long SMALLEST_CARD = 79L << 30;

    private final Map<String, String> entries;

    RapidsSettings(Map<String, String> entries) {
        this.entries = entries;
    }

    private List<String> plugins() {
        return Arrays.stream(entries.getOrDefault("spark.plugins", "").split(",", -1))
                .map(String::trim)
                .toList();
    }

    /** Whether RAPIDS is one of the session's plugins. */
    boolean isPlugin() {
        return plugins().contains(PLUGIN);
    }

    /** Whether RAPIDS takes a pool of GPU memory in the executors. */
    private boolean hasPool() {
        return isPlugin()
                && !entries.getOrDefault("spark.rapids.sql.mode", "executeongpu")
                        .equalsIgnoreCase("explainOnly")
                && !entries.getOrDefault(MEMORY + "pool", "").equalsIgnoreCase("NONE");
    }

    /**
     * Refuses the wrong order of plugins. They start in the order in which they are named: were ours first, what it takes
     * of the card would be missing from what RAPIDS finds free, and the reserve be subtracted a second time.
     */
    void checkOrder() {
        int rapids = plugins().indexOf(PLUGIN);
        int ours = plugins().indexOf(SparkMlaPlugin.class.getName());
        if (rapids > ours && ours >= 0) {
            throw new IllegalArgumentException(
                    "spark.plugins names %s before %s: name RAPIDS first, so that it takes its"
                                    .formatted(SparkMlaPlugin.class.getName(), PLUGIN)
                            + " pool before a model is loaded (else spark.rapids.memory.gpu.reserve counts twice)");
        }
    }

    /** Refuses a reserve in which the model would not find room, and says which one would do. */
    void checkReserve(GpuMemory needs, String model) {
        if (!hasPool() || !entries.getOrDefault(MEMORY + "allocFraction", "1").matches("1(\\.0*)?")) {
            return; // a pool of a fraction of the card leaves an amount that only the executor knows
        }
        long reserve = JavaUtils.byteStringAsBytes(entries.getOrDefault(RESERVE, DEFAULT_RESERVE));
        if (reserve < needs.least()) {
            throw new IllegalArgumentException(
                    ("%s is %d MiB%s, and the RAPIDS Accelerator takes the rest of the card: %s does not fit. It takes about"
                                    + " %s. Set %s=%d%s")
                            .formatted(
                                    RESERVE,
                                    reserve >> 20,
                                    entries.containsKey(RESERVE) ? "" : " (the default)",
                                    model,
                                    needs,
                                    RESERVE,
                                    needs.total(),
                                    minFractionAdvice(needs.total())));
        }
        if (leftOfSmallestCard(reserve) < minFraction() && !entries.containsKey(MIN_FRACTION)) {
            throw new IllegalArgumentException(
                    ("%s is %d MiB, which may leave less than a quarter of a card to the RAPIDS Accelerator, and it would"
                                    + " not start: set %s=0 as well")
                            .formatted(RESERVE, reserve >> 20, MIN_FRACTION));
        }
    }

    private String minFractionAdvice(long reserve) {
        return leftOfSmallestCard(reserve) < minFraction() ? " and " + MIN_FRACTION + "=0" : "";
    }

    private double minFraction() {
        String text = entries.get(MIN_FRACTION);
        return text == null ? DEFAULT_MIN_FRACTION : Double.parseDouble(text);
    }

    private static double leftOfSmallestCard(long reserve) {
        return (SMALLEST_CARD - reserve) / (double) SMALLEST_CARD;
    }
}
