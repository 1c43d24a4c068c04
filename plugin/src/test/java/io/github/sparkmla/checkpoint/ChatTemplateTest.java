package io.github.sparkmla.checkpoint;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.FieldSource;

/** Which template is rendered with which variables; how templates render is the interpreter's own test. */
class ChatTemplateTest {
    static final List<Path> MODELS = Models.ALL;
    private static final List<Map<String, Object>> HI = List.of(Map.of("role", "user", "content", "hi"));

    @TempDir
    Path folder;

    @ParameterizedTest
    @FieldSource("MODELS")
    void goldenChatsOfACheckpoint(Path model) {
        ChatTemplate template = ChatTemplate.load(model).orElseThrow();
        JsonNode chats = Models.json(model.resolve("golden.json")).get("chats");
        assertTrue(chats.size() >= 2);
        try (Tokenizer tokenizer = Tokenizer.open(model)) {
            for (JsonNode chat : chats) {
                List<Map<String, Object>> messages =
                        new ObjectMapper().convertValue(chat.get("messages"), new TypeReference<>() {});
                String rendered = template.render(messages, true, null);
                assertEquals(chat.get("rendered").asText(), rendered);
                assertArrayEquals(Models.ints(chat.get("ids")), tokenizer.encode(rendered, false));
            }
        }
    }

    @Test
    void aFolderMayHaveNone() throws IOException {
        assertEquals(Optional.empty(), ChatTemplate.load(folder));
        Files.writeString(folder.resolve("tokenizer_config.json"), "{}");
        assertEquals(Optional.empty(), ChatTemplate.load(folder));
    }

    @Test
    void theJinjaFileGoesFirstThenTheTokenizersConfigurationThenTheProcessors() throws IOException {
        Files.writeString(folder.resolve("chat_template.json"), template("third"));
        assertEquals("third", render(null));
        Files.writeString(folder.resolve("tokenizer_config.json"), template("second {{ bos_token }}"));
        assertEquals("second ", render(null));
        Files.writeString(folder.resolve("chat_template.jinja"), "first {{ messages[0].content }}");
        assertEquals("first hi", render(null));
    }

    /** As AutoTokenizer.save_pretrained writes several templates. */
    @Test
    void additionalTemplatesAreFilesInAFolder() throws IOException {
        Files.writeString(folder.resolve("tokenizer_config.json"), template("not looked at"));
        Path additional = Files.createDirectory(folder.resolve("additional_chat_templates"));
        Files.writeString(additional.resolve("rag.jinja"), "{% never parsed");
        Files.writeString(additional.resolve("tool_use.jinja"), "{{ tools[0].name }}");
        CheckpointException e = assertThrows(CheckpointException.class, () -> ChatTemplate.load(folder));
        assertTrue(e.getMessage().startsWith(additional + ": holds a template for tools"), e.getMessage());
        Files.writeString(folder.resolve("chat_template.jinja"), "plain");
        assertEquals("plain", render(null));
        assertEquals("clock", render(List.of(Map.of("name", "clock"))));
        Files.writeString(additional.resolve("default.jinja"), "first");
        assertEquals("first", render(null));
    }

    @Test
    void specialTokensAreStringsOrObjects() throws IOException {
        ObjectNode config = JsonNodeFactory.instance.objectNode();
        config.put("bos_token", "<s>")
                .putNull("unk_token")
                .put("image_token", "<img>")
                .put("add_bos_token", true);
        config.putObject("eos_token").put("__type", "AddedToken").put("content", "</s>");
        String flags = "{{ unk_token is defined }} {{ add_bos_token is defined }} {{ tools is none }}";
        config.put("chat_template", "{{ bos_token }}{{ eos_token }}{{ image_token }} " + flags);
        Files.writeString(folder.resolve("tokenizer_config.json"), config.toString());
        assertEquals("<s></s><img> False False True", render(null));
    }

    @Test
    void theOlderSpecialTokensFileCountsWhereNoTokensAreListed() throws IOException {
        Files.writeString(folder.resolve("special_tokens_map.json"), "{\"bos_token\": {\"content\": \"<old>\"}}");
        ObjectNode config = JsonNodeFactory.instance.objectNode().put("bos_token", "<new>");
        config.put("chat_template", "{{ bos_token }}");
        Files.writeString(folder.resolve("tokenizer_config.json"), config.toString());
        assertEquals("<old>", render(null));
        config.putObject("added_tokens_decoder");
        Files.writeString(folder.resolve("tokenizer_config.json"), config.toString());
        assertEquals("<new>", render(null));
    }

    @Test
    void toolsHaveATemplateOfTheirOwnWhereThereIsOne() throws IOException {
        ObjectNode config = JsonNodeFactory.instance.objectNode();
        config.putArray("chat_template").add(named("default", "plain")).add(named("tool_use", "{{ tools[0].name }}"));
        Files.writeString(folder.resolve("tokenizer_config.json"), config.toString());
        assertEquals("plain", render(null));
        assertEquals("clock", render(List.of(Map.of("name", "clock"))));
    }

    @Test
    void anEmptyConversationIsRefused() {
        ChatTemplate template = ChatTemplate.load(Models.TINY_V3).orElseThrow();
        assertThrows(IllegalArgumentException.class, () -> template.render(List.of(), true, null));
    }

    private String render(List<Map<String, Object>> tools) {
        return ChatTemplate.load(folder).orElseThrow().render(HI, true, tools);
    }

    private static String template(String source) {
        return JsonNodeFactory.instance
                .objectNode()
                .put("chat_template", source)
                .toString();
    }

    private static ObjectNode named(String name, String source) {
        return JsonNodeFactory.instance.objectNode().put("name", name).put("template", source);
    }
}
