package io.github.sparkmla.checkpoint.jinja;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.time.Clock;
import java.time.Instant;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;

/** Every rendering here comes from Python's jinja2: hub_probes.json as it was given to us, goldens.json by make_goldens.py. */
class GoldenTest {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final Clock CLOCK = Clock.fixed(Instant.parse("2024-07-06T05:04:03Z"), ZoneOffset.UTC);

    @TestFactory
    Stream<DynamicTest> hubProbes() throws IOException {
        JsonNode goldens = JSON.readTree(read("hub_probes.json"));
        Map<String, Object> context = context(goldens.get("context"));
        List<DynamicTest> tests = new ArrayList<>();
        goldens.get("templates").fields().forEachRemaining(field -> {
            JsonNode expected = goldens.get("expected").get(field.getKey());
            tests.add(DynamicTest.dynamicTest(
                    field.getKey(), () -> check(field.getValue().asText(), context, expected)));
        });
        assertTrue(tests.size() >= 49, "probes are missing");
        return tests.stream();
    }

    @TestFactory
    Stream<DynamicTest> probes() throws IOException {
        JsonNode probes = JSON.readTree(read("probes.json"));
        JsonNode expected = JSON.readTree(read("goldens.json")).get("probes");
        Map<String, Object> context = context(probes.get("context"));
        Set<String> refused = new HashSet<>();
        probes.get("refused").forEach(template -> refused.add(template.asText()));
        assertTrue(expected.size() >= 600 && refused.size() <= 40, "probes are missing or too many are refused");
        List<DynamicTest> tests = new ArrayList<>();
        for (int i = 0; i < expected.size(); i++) {
            String template = probes.get("templates").get(i).asText();
            JsonNode golden = expected.get(i);
            tests.add(DynamicTest.dynamicTest(i + ": " + template, () -> {
                if (refused.contains(template)) {
                    printRefusal(template, context);
                } else {
                    check(template, context, golden);
                }
            }));
        }
        return tests.stream();
    }

    @TestFactory
    Stream<DynamicTest> chats() throws IOException {
        JsonNode conversations = JSON.readTree(read("chats/conversations.json"));
        List<DynamicTest> tests = new ArrayList<>();
        for (Map.Entry<String, JsonNode> chat :
                JSON.readTree(read("goldens.json")).get("chats").properties()) {
            String template = read("chats/" + chat.getKey() + ".jinja");
            for (int i = 0; i < conversations.size(); i++) {
                Map<String, Object> context = context(conversations.get(i));
                JsonNode golden = chat.getValue().get(i);
                tests.add(DynamicTest.dynamicTest(chat.getKey() + " " + i, () -> check(template, context, golden)));
            }
        }
        assertTrue(tests.size() >= 150, "conversations are missing");
        return tests.stream();
    }

    /** The same text; or an error where jinja2 raises one, word for word where the template raised it. */
    private static void check(String template, Map<String, Object> context, JsonNode golden) {
        if (golden.isTextual()) {
            assertEquals(golden.asText(), Template.parse(template).render(context, CLOCK));
            return;
        }
        JinjaException e = assertThrows(
                JinjaException.class, () -> Template.parse(template).render(context, CLOCK));
        String message = golden.get("error").asText();
        if (template.contains("raise_exception(") && template.contains(message)) {
            assertEquals(message, e.getMessage());
        } else {
            assertTrue(e.getMessage().startsWith("line ") || e.getMessage().equals(message), e.getMessage());
        }
    }

    private static void printRefusal(String template, Map<String, Object> context) {
        JinjaException e = assertThrows(
                JinjaException.class, () -> Template.parse(template).render(context, CLOCK));
        System.out.println("refused, though jinja2 renders it: " + template + "  " + e.getMessage());
    }

    private static Map<String, Object> context(JsonNode context) {
        return JSON.convertValue(context, new TypeReference<>() {});
    }

    private static String read(String name) throws IOException {
        try (InputStream in = GoldenTest.class.getResourceAsStream("/jinja/" + name)) {
            return new String(in.readAllBytes(), StandardCharsets.UTF_8);
        }
    }
}
