package io.github.sparkmla.checkpoint;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.FieldSource;

/** Against transformers' AutoTokenizer: golden.json and tokenizer-cases.json (written by regenerate_tokenizer.py). */
class TokenizerTest {
    private static final JsonNode CASES = Models.golden("tokenizer-cases.json");
    static final List<Path> MODELS = Models.ALL;

    @TempDir
    Path folder;

    @ParameterizedTest
    @FieldSource("MODELS")
    void goldenTextsOfACheckpoint(Path model) {
        try (Tokenizer tokenizer = Tokenizer.open(model)) {
            JsonNode texts = Models.json(model.resolve("golden.json")).get("tokenizer");
            for (JsonNode entry : texts) {
                assertIds(entry, tokenizer);
                int[] ids = Models.ints(entry.get("ids_no_special"));
                assertEquals(entry.get("decoded").asText(), tokenizer.decode(ids, false));
            }
            assertTrue(texts.size() >= 10);
        }
    }

    private static void assertIds(JsonNode entry, Tokenizer tokenizer) {
        String text = entry.get("text").asText();
        assertArrayEquals(Models.ints(entry.get("ids")), tokenizer.encode(text, true), text);
        assertArrayEquals(Models.ints(entry.get("ids_no_special")), tokenizer.encode(text, false), text);
    }

    private static void assertText(JsonNode entry, Tokenizer tokenizer) {
        assertIds(entry, tokenizer);
        assertEquals(entry.get("decoded").asText(), tokenizer.decode(Models.ints(entry.get("ids")), true));
    }

    @Test
    void randomTexts() {
        try (Tokenizer tokenizer = Tokenizer.open(Models.TINY_V3)) {
            assertEquals(300, CASES.get("texts").size());
            for (JsonNode entry : CASES.get("texts")) {
                assertText(entry, tokenizer);
                int[] ids = Models.ints(entry.get("ids"));
                assertEquals(entry.get("decoded_all").asText(), tokenizer.decode(ids, false));
            }
        }
    }

    @Test
    void randomIds() {
        try (Tokenizer tokenizer = Tokenizer.open(Models.TINY_V3)) {
            assertEquals(100, CASES.get("ids").size());
            for (JsonNode entry : CASES.get("ids")) {
                int[] ids = Models.ints(entry.get("ids"));
                assertEquals(entry.get("decoded").asText(), tokenizer.decode(ids, true));
                assertEquals(entry.get("decoded_all").asText(), tokenizer.decode(ids, false));
            }
        }
    }

    @TestFactory
    List<DynamicTest> variantsOfTheFiles() {
        List<DynamicTest> tests = new ArrayList<>();
        for (JsonNode entry : CASES.get("variants")) {
            tests.add(DynamicTest.dynamicTest(entry.get("name").asText(), () -> {
                Path copy = Models.copy(Models.TINY_V3, Files.createTempDirectory(folder, "variant"));
                Models.change(copy.resolve("tokenizer.json"), entry.get("tokenizer_json"));
                Models.change(copy.resolve("tokenizer_config.json"), entry.get("tokenizer_config"));
                if (!entry.get("added_tokens").isEmpty()) {
                    Files.writeString(
                            copy.resolve("added_tokens.json"),
                            entry.get("added_tokens").toString());
                }
                try (Tokenizer tokenizer = Tokenizer.open(copy)) {
                    assertText(entry, tokenizer);
                }
                JsonNode named = entry.get("special_tokens");
                TokenizerConfig config = TokenizerConfig.load(copy);
                assertEquals(named.size(), config.namedTokens().size());
                config.namedTokens()
                        .forEach((name, text) -> assertEquals(named.path(name).asText(), text));
            }));
        }
        assertEquals(19, tests.size());
        return tests;
    }

    @Test
    void unpairedSurrogatesBecomeReplacementCharacters() {
        try (Tokenizer tokenizer = Tokenizer.open(Models.TINY_V3)) {
            int[] expected = tokenizer.encode("a\ufffdb\ufffd \ud83d\udc4d", false);
            assertArrayEquals(expected, tokenizer.encode("a\ud83db\udc4d \ud83d\udc4d", false));
        }
    }

    @Test
    void aMegabyteOfTextComesBackWhole() {
        String text = "So shaken as we are, so wan with care,\n\u0000\u00e9\ud83d\udc4d ".repeat(25_000);
        try (Tokenizer tokenizer = Tokenizer.open(Models.TINY_V3)) {
            assertEquals(text, tokenizer.decode(tokenizer.encode(text, true), true));
        }
    }

    @Test
    void idsOutsideTheVocabularyAreNothing() {
        try (Tokenizer tokenizer = Tokenizer.open(Models.TINY_V3)) {
            int[] ids = tokenizer.encode("king", false);
            int[] more = {ids[0], 1_000_000, Integer.MAX_VALUE, -1};
            assertEquals(tokenizer.decode(new int[] {ids[0]}, true), tokenizer.decode(more, true));
        }
    }

    @Test
    void threadsShareATokenizer() throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(8);
        try (Tokenizer tokenizer = Tokenizer.open(Models.TINY_V3)) {
            Callable<Void> work = () -> {
                for (JsonNode entry : CASES.get("texts")) {
                    assertText(entry, tokenizer);
                }
                return null;
            };
            for (Future<Void> done : pool.invokeAll(List.of(work, work, work, work, work, work, work, work))) {
                done.get();
            }
        } finally {
            pool.shutdownNow();
        }
    }

    @Test
    void aClosedTokenizerSaysSo() {
        Tokenizer tokenizer = Tokenizer.open(Models.TINY_V3);
        tokenizer.close();
        tokenizer.close();
        assertThrows(IllegalStateException.class, () -> tokenizer.encode("x", true));
    }
}
