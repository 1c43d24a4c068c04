package io.github.sparkmla.checkpoint.jinja;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTimeoutPreemptively;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** What no golden can show: limits, errors with their line, values of the caller. */
class TemplateTest {
    /** A variable that grows a hundred times. */
    private static String growing(String start, String next) {
        return "{% set ns = namespace(x=" + start + ") %}{% for i in range(100) %}{% set ns.x = " + next
                + " %}{% endfor %}";
    }

    static List<String> hostileTemplates() {
        return List.of(
                "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
                "{% for i in range(100000) %}{% for j in range(100000) %}{{ 'xxxxxxxxxxxxxxxx' }}{% endfor %}{% endfor %}",
                "{{ 'x' * 99999999999 }}",
                "{{ ('x' * 9999999) * 9999 }}",
                "{{ [0] * 99999999999 }}",
                "{{ 10 ** 100000000 }}",
                "{{ 3 ** 9223372036854775807 }}",
                "{{ 'x'.center(99999999999) }}",
                "{{ '%999999999d' % 1 }}",
                "{{ 'aaaa'.replace('', 'x' * 9999999) }}",
                "{{ range(10 ** 12) }}",
                "{{ 1|tojson(indent=99999999999) }}",
                "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
                "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
                growing("'x'", "ns.x ~ ns.x"),
                growing("'x'", "ns.x + ns.x"),
                growing("[1]", "ns.x + ns.x"),
                growing("[1]", "[ns.x, ns.x]") + "{{ ns.x }}",
                growing("[1]", "[ns.x, ns.x]") + "{{ ns.x|tojson }}",
                growing("[1]", "[ns.x, ns.x]") + "{% set y = ns.x %}" + growing("[1]", "[ns.x, ns.x]")
                        + "{{ ns.x == y }}",
                "{% set ns = namespace(x=[]) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
                "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
                "{{ " + "(".repeat(100_000) + "1" + ")".repeat(100_000) + " }}",
                "{{ " + "[".repeat(100_000),
                "{{ 1" + " + 1".repeat(100_000) + " }}",
                "{{ " + "not ".repeat(100_000) + "1 }}",
                "{{ " + "-".repeat(100_000) + "1 }}",
                "{{ 1" + "|abs".repeat(100_000) + " }}",
                "{{ x" + ".a".repeat(100_000) + " }}",
                "{% if 1 %}".repeat(100_000));
    }

    @ParameterizedTest
    @MethodSource("hostileTemplates")
    void aHostileTemplateEndsInAnError(String template) {
        assertTimeoutPreemptively(
                Duration.ofSeconds(20),
                () -> assertThrows(
                        JinjaException.class, () -> Template.parse(template).render(Map.of())));
    }

    @Test
    void valuesAreNeverReadAsTemplates() {
        String evil = "{{ 7 * 7 }}{% set x = 1 %}{# gone #}";
        assertEquals(
                evil + "|" + evil + "|['" + evil + "']",
                Template.parse("{{ x }}|{{ x|trim }}|{{ [x] }}").render(Map.of("x", evil)));
    }

    @Test
    void errorsNameTheirLine() {
        String template = "a\n{% if true %}\n  {{ x.y }}\n{% endif %}";
        JinjaException e = assertThrows(
                JinjaException.class, () -> Template.parse(template).render(Map.of()));
        assertEquals("line 3: 'x' is undefined", e.getMessage());
        JinjaException refused = assertThrows(JinjaException.class, () -> Template.parse("\n{% include 'a' %}"));
        assertTrue(refused.getMessage().startsWith("line 2: ")
                && refused.getMessage().contains("'include'"));
    }

    @Test
    void valuesOfUnknownTypesAreRefused() {
        JinjaException e =
                assertThrows(JinjaException.class, () -> Template.parse("x").render(Map.of("when", Instant.EPOCH)));
        assertTrue(e.getMessage().contains("'when'") && e.getMessage().contains("java.time.Instant"));
    }

    @ParameterizedTest
    @ValueSource(strings = {"\ud83d", "a\ude00b"})
    void unpairedSurrogatesAreRefused(String text) {
        assertThrows(JinjaException.class, () -> Template.parse("{{ x }}").render(Map.of("x", text)));
    }

    @Test
    void aDeeplyNestedValueEndsInAnError() {
        List<Object> value = new ArrayList<>();
        for (int i = 0; i < 100_000; i++) {
            value = new ArrayList<>(List.of(value));
        }
        Map<String, Object> context = Map.of("x", value);
        assertThrows(JinjaException.class, () -> Template.parse("{{ x }}").render(context));
    }

    @Test
    void oneTemplateServesManyThreads() {
        Template template = Template.parse(
                "{% set ns = namespace(n=0) %}{% for i in range(x) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}");
        List<Integer> sizes = java.util.stream.IntStream.range(0, 200).boxed().toList();
        List<String> rendered = sizes.parallelStream()
                .map(size -> template.render(Map.of("x", size)))
                .toList();
        for (int size : sizes) {
            assertEquals(String.valueOf(size * (size - 1) / 2), rendered.get(size));
        }
    }
}
