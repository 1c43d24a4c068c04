package io.github.sparkmla.checkpoint.jinja;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.InputStream;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;

/** Small templates whose renderings come from Python's jinja2. */
class GoldenTest {
    private static final ObjectMapper JSON = new ObjectMapper();

    @TestFactory
    List<DynamicTest> hubProbes() throws IOException {
        JsonNode goldens = read("hub_probes.json");
        Map<String, Object> context = JSON.convertValue(goldens.get("context"), new TypeReference<>() {});
        List<DynamicTest> tests = new ArrayList<>();
        goldens.get("templates").fields().forEachRemaining(field -> {
            JsonNode expected = goldens.get("expected").get(field.getKey());
            tests.add(DynamicTest.dynamicTest(
                    field.getKey(), () -> check(field.getValue().asText(), context, expected)));
        });
        assertTrue(tests.size() >= 49, "probes are missing");
        return tests;
    }

    private static void check(String source, Map<String, Object> context, JsonNode expected) {
        if (expected.isTextual()) {
            assertEquals(expected.asText(), Template.parse(source).render(context));
        } else {
            Template template = Template.parse(source);
            JinjaException e = assertThrows(JinjaException.class, () -> template.render(context));
            assertEquals(expected.get("error").asText(), e.getMessage());
        }
    }

    private static JsonNode read(String name) throws IOException {
        try (InputStream in = GoldenTest.class.getResourceAsStream("/jinja/" + name)) {
            return JSON.readTree(in);
        }
    }
}
