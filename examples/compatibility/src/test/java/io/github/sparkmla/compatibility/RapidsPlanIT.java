package io.github.sparkmla.compatibility;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** What the RAPIDS Accelerator plans around the operator. Planning needs no GPU; the jar is the one that is released. */
@Timeout(600)
class RapidsPlanIT {
    @TempDir
    private Path temp;

    @ParameterizedTest
    @EnumSource
    void columnsGoFromTheGpuToTheOperatorAndBack(Submit spark) throws Exception {
        Map<String, List<String>> plans = plans(spark.run(
                temp,
                "--master",
                "local[2]",
                "--jars",
                System.getProperty("rapids.jar") + "," + System.getProperty("plugin.jar"),
                "--conf",
                "spark.sql.extensions=com.nvidia.spark.rapids.SQLExecPlugin",
                "--conf",
                "spark.sql.adaptive.enabled=false",
                "--conf",
                "spark.ui.enabled=false",
                "--class",
                PlanProbe.class.getName(),
                System.getProperty("probes.jar"),
                Submit.MODEL.toString(),
                temp.toString()));
        for (String name : List.of("text", "ungrouped", "chat")) {
            List<String> plan = plans.get(name);
            int operator = plan.indexOf("MlaGenerate");
            assertEquals("HostColumnarToGpu", plan.get(operator - 1), plan::toString);
            assertEquals("GpuBringBackToHost", plan.get(operator + 1), plan::toString);
            assertFalse(plan.contains("ColumnarToRow") || plan.contains("GpuRowToColumnar"), plan::toString);
            assertEquals(
                    List.of("GpuColumnarToRow"),
                    plan.stream().filter(node -> node.endsWith("ToRow")).toList());
            assertEquals(0, plan.indexOf("GpuColumnarToRow"), "only where the driver collects the result");
            assertTrue(plan.subList(0, operator).contains("GpuHashAggregate"), plan::toString);
            assertTrue(plan.subList(operator, plan.size()).contains("GpuFilter"), plan::toString);
        }
        assertEquals(List.of("found"), plans.get("semaphore"), "the GPU semaphore as the plugin knows it");
        // An array has no way up in columns: RAPIDS takes rows, and all else stays on the GPU.
        List<String> nested = plans.get("nested");
        assertEquals("GpuRowToColumnar", nested.get(nested.indexOf("MlaGenerate") - 2), nested::toString);
        assertEquals("GpuBringBackToHost", nested.get(nested.indexOf("MlaGenerate") + 1), nested::toString);
    }

    /** The nodes of each plan from the top down, by name; these plans have no branches. */
    private static Map<String, List<String>> plans(String printed) {
        Map<String, List<String>> plans = new HashMap<>();
        for (String section : printed.split("=== ", -1)) {
            List<String> lines = section.lines().filter(line -> !line.isBlank()).toList();
            if (!lines.isEmpty()) {
                plans.put(
                        lines.get(0),
                        lines.stream()
                                .skip(1)
                                .map(line -> line.replaceFirst("^[ :+-]*(\\*\\(\\d+\\) )?", ""))
                                .map(node -> node.replaceFirst("[ (].*", ""))
                                .toList());
            }
        }
        return plans;
    }
}
