package io.github.sparkmla.checkpoint;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.FieldSource;

/** What is said of a checkpoint that is damaged, foreign or hostile. {@code @} stands for the checkpoint's folder. */
class BadCheckpointTest {
    private static final String TENSOR = "{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[0,12]}";

    @TempDir
    Path temp;

    private Path folder;

    /** Something done to the folder of a good checkpoint. */
    private interface Damage {
        void to(Path folder) throws IOException;
    }

    private static Arguments bad(String name, Damage damage, String message) {
        return Arguments.of(name, damage, message);
    }

    private static Arguments config(String changes, String message) {
        return bad(changes, folder -> change(folder, "config.json", changes), "@/config.json: " + message);
    }

    private static Arguments tokenizer(String changes, String message) {
        return bad(changes, folder -> change(folder, "tokenizer.json", changes), "@/tokenizer.json: " + message);
    }

    private static Arguments header(String name, String header, int dataBytes, String message) {
        Damage damage = folder -> write(folder.resolve("model.safetensors"), header, dataBytes);
        return bad(name, damage, "@/model.safetensors: " + message);
    }

    private static Arguments index(String name, String weightMap, String message) {
        Damage damage = folder -> {
            Files.move(folder.resolve("model.safetensors"), folder.resolve("model-1.safetensors"));
            Files.writeString(folder.resolve("model.safetensors.index.json"), "{\"weight_map\": " + weightMap + "}");
        };
        return bad(name, damage, "@/" + message);
    }

    static final List<Arguments> FOLDERS = List.of(
            bad("no folder", folder -> delete(folder), "@: no such folder, expected a folder with config.json"),
            bad(
                    "a file",
                    folder -> {
                        delete(folder);
                        Files.writeString(folder, "");
                    },
                    "@: not a folder, expected a folder with config.json"),
            bad("no config", folder -> Files.delete(folder.resolve("config.json")), "@/config.json: no such file"),
            bad(
                    "half a config",
                    folder -> Files.writeString(folder.resolve("config.json"), "{\"model_type\":\n "),
                    "@/config.json: is not valid JSON at line 2, column 2: Unexpected end-of-input"),
            bad(
                    "a list for a config",
                    folder -> Files.writeString(folder.resolve("config.json"), "[]"),
                    "@/config.json: is not a JSON object"),
            bad(
                    "a key twice",
                    folder -> Files.writeString(folder.resolve("config.json"), "{\"a\": 1, \"a\": 2}"),
                    "@/config.json: is not valid JSON at line 1, column 13: Duplicate field 'a'"),
            bad(
                    "wrong end of sequence",
                    folder -> Files.writeString(
                            folder.resolve("generation_config.json"), "{\"eos_token_id\": [1, \"2\"]}"),
                    "@/generation_config.json: \"eos_token_id\" is [1,\"2\"], expected a token id or a list of token ids"),
            bad(
                    "no weights",
                    folder -> Files.delete(folder.resolve("model.safetensors")),
                    "@: no weights, looked for model.safetensors and model.safetensors.index.json"),
            bad(
                    "no tokenizer",
                    folder -> Files.delete(folder.resolve("tokenizer.json")),
                    "@/tokenizer.json: no such file; a tokenizer.model or tiktoken.model has to be converted first"),
            bad(
                    "tokenizer without a model",
                    folder -> Files.writeString(folder.resolve("tokenizer.json"), "{\"version\": \"1.0\"}"),
                    "@/tokenizer.json: \"model\" is missing, expected an object"),
            bad(
                    "tokenizer whose merges are not in its vocabulary",
                    folder -> change(
                            folder,
                            "tokenizer.json",
                            "{\"model\": {\"type\": \"BPE\", \"vocab\": {}, \"merges\": [[\"a\", \"b\"]]}}"),
                    "@/tokenizer.json: not a tokenizer that can be loaded: Token `a` out of vocabulary"),
            bad(
                    "half a tokenizer",
                    folder -> Files.writeString(folder.resolve("tokenizer.json"), "{\"model\""),
                    "@/tokenizer.json: is not valid JSON at line 1"),
            bad(
                    "a special token without text",
                    folder -> change(folder, "tokenizer_config.json", "{\"bos_token\": {\"lstrip\": true}}"),
                    "@/tokenizer_config.json: \"bos_token\" is {\"lstrip\":true}, expected a string or an object"),
            bad(
                    "chat templates without a default",
                    folder -> change(
                            folder,
                            "tokenizer_config.json",
                            "{\"chat_template\": [{\"name\":\"rag\",\"template\":\"\"}]}"),
                    "@/tokenizer_config.json: \"chat_template\" is [{\"name\":\"rag\",\"template\":\"\"}], expected a "
                            + "template named \"default\" among those listed"),
            bad(
                    "a broken chat template",
                    folder -> change(folder, "tokenizer_config.json", "{\"chat_template\": \"{% if %}\"}"),
                    "@/tokenizer_config.json: the chat template cannot be parsed: "));

    static final List<Arguments> CONFIGS = List.of(
            config(
                    "{\"model_type\": \"llama\"}",
                    "\"model_type\" is \"llama\", expected one of deepseek_v2, deepseek_v3, "
                            + "glm4_moe_lite, kimi_k2, youtu"),
            config("{\"hidden_size\": \"192\"}", "\"hidden_size\" is \"192\", expected an integer from 1 to 16777216"),
            config("{\"hidden_size\": 0}", "\"hidden_size\" is 0, expected an integer from 1 to 16777216"),
            config("{\"hidden_size\": 192.5}", "\"hidden_size\" is 192.5, expected an integer"),
            config("{\"hidden_size\": null}", "\"hidden_size\" is null, expected an integer"),
            config("{\"vocab_size\": -1}", "\"vocab_size\" is -1, expected an integer"),
            config(
                    "{\"vocab_size\": 99999999999999999999}",
                    "\"vocab_size\" is 99999999999999999999, expected an integer"),
            config("{\"num_hidden_layers\": 2000000000}", "\"num_hidden_layers\" is 2000000000, expected an integer"),
            config("{\"hidden_act\": \"gelu\"}", "\"hidden_act\" is \"gelu\", expected \"silu\""),
            config("{\"attention_bias\": 1}", "\"attention_bias\" is 1, expected true or false"),
            config("{\"mlp_bias\": true}", "\"mlp_bias\" is true, expected false"),
            config("{\"rms_norm_eps\": 0}", "\"rms_norm_eps\" is 0, expected a finite number greater than 0"),
            config(
                    "{\"num_key_value_heads\": 2}",
                    "\"num_key_value_heads\" is 2, expected the number of attention heads, 8"),
            config("{\"qk_rope_head_dim\": 63}", "\"qk_rope_head_dim\" is 63, expected an even number"),
            config("{\"head_dim\": 24}", "\"head_dim\" is 24, expected qk_rope_head_dim, 64"),
            config("{\"partial_rotary_factor\": 0.5}", "\"partial_rotary_factor\" is 0.5, expected 1"),
            config(
                    "{\"num_attention_heads\": 65536, \"num_key_value_heads\": 65536, \"qk_nope_head_dim\": 65536}",
                    "\"qk_nope_head_dim\" is 65536, expected num_attention_heads times a query head to be less than 2^31"),
            config("{\"num_experts_per_tok\": 9}", "\"num_experts_per_tok\" is 9, expected an integer from 1 to 8"),
            config(
                    "{\"num_experts_per_tok\": 5}",
                    "\"num_experts_per_tok\" is 5, expected at most 4, the experts of 2 groups"),
            config("{\"n_group\": 3}", "\"n_group\" is 3, expected a divisor of the 8 experts"),
            config("{\"n_group\": 8}", "\"n_group\" is 8, expected at least 2 experts a group, not 1"),
            config("{\"n_group\": null}", "\"n_group\" is null, expected an integer from 1 to 8"),
            config("{\"topk_group\": 5}", "\"topk_group\" is 5, expected an integer from 1 to 4"),
            config(
                    "{\"scoring_func\": \"softmax\"}",
                    "\"scoring_func\" is \"softmax\", expected \"sigmoid\" for deepseek_v3"),
            config(
                    "{\"topk_method\": \"greedy\"}",
                    "\"topk_method\" is \"greedy\", expected \"noaux_tc\" for deepseek_v3"),
            config(
                    "{\"moe_layer_freq\": 2}",
                    "\"moe_layer_freq\" is 2, expected 1: any other DeepSeek's own code heeds and transformers ignores"),
            config("{\"rope_theta\": 1}", "\"rope_theta\" is 1, expected a finite number greater than 1"),
            config("{\"rope_scaling\": 4}", "\"rope_scaling\" is 4, expected an object"),
            config(
                    "{\"rope_scaling\": {\"type\": \"linear\", \"factor\": 4}}",
                    "\"rope_scaling.type\" is \"linear\", expected \"default\" or \"yarn\""),
            config(
                    "{\"rope_scaling\": {\"rope_type\": \"llama3\"}}",
                    "\"rope_scaling.rope_type\" is \"llama3\", expected \"default\" or \"yarn\""),
            config(
                    "{\"rope_scaling\": {\"type\": \"yarn\"}}",
                    "\"rope_scaling.factor\" is missing, expected a finite number greater than 0"),
            config(
                    "{\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4, \"mscale_all_dim\": 1e30}}",
                    "\"rope_scaling\" is {\"type\":\"yarn\""),
            config(
                    "{\"quantization_config\": {\"quant_method\": \"awq\"}}",
                    "\"quantization_config.quant_method\" is \"awq\", expected \"fp8\""),
            config(
                    "{\"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": [128, 0]}}",
                    "\"quantization_config.weight_block_size\" is [128,0], expected two positive integers"),
            config(
                    "{\"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": [128, 64]}}",
                    "\"quantization_config.weight_block_size\" is [128,64], expected two positive integers that are the same"));

    static final List<Arguments> WEIGHTS = List.of(
            bad(
                    "an empty file",
                    folder -> Files.write(folder.resolve("model.safetensors"), new byte[3]),
                    "@/model.safetensors: truncated, 3 bytes are too few for a safetensors file"),
            bad("header cut", folder -> truncate(folder, 100), "@/model.safetensors: truncated inside the header: "),
            bad("data cut", folder -> truncate(folder, 1_000_000), "@/model.safetensors: truncated: tensor \""),
            bad(
                    "header length beyond all bounds",
                    folder -> Files.write(folder.resolve("model.safetensors"), new byte[] {1, 0, 0, 0, 0, 0, 0, -128}),
                    "@/model.safetensors: not a safetensors file: header length 9223372036854775809, expected 2 to 100000000"),
            bad(
                    "a folder for weights",
                    folder -> {
                        Files.delete(folder.resolve("model.safetensors"));
                        Files.createDirectory(folder.resolve("model.safetensors"));
                    },
                    "@/model.safetensors: not a regular file"),
            header("header is not JSON", "{x}", 0, "the safetensors header is not valid JSON at line 1"),
            header(
                    "a tensor twice",
                    "{\"a\":" + TENSOR + ",\"a\":" + TENSOR + "}",
                    12,
                    "the safetensors header is not valid JSON at line 1, column 62: Duplicate field 'a'"),
            header("a tensor that is none", "{\"a\": 3}", 0, "\"a\" is 3, expected an object"),
            header(
                    "unknown dtype",
                    "{\"a\":" + TENSOR.replace("BF16", "Q4") + "}",
                    12,
                    "\"a.dtype\" is \"Q4\", expected one of [BF16, F16, F32, F8_E4M3,"),
            header(
                    "dtype that is no weight",
                    "{\"a\":" + TENSOR.replace("BF16", "I16") + "}",
                    12,
                    "tensor \"a\" has dtype I16, expected BF16, F16, F32 or F8_E4M3"),
            header(
                    "shape and bytes disagree",
                    "{\"a\":" + TENSOR.replace("BF16", "F32") + "}",
                    12,
                    "\"a.data_offsets\" is [0,12], expected 24 bytes for F32 [2, 3], not 12"),
            header(
                    "negative shape",
                    "{\"a\":" + TENSOR.replace("[2,3]", "[-2,3]") + "}",
                    12,
                    "\"a.shape\" is [-2,3], expected a list of non-negative integers"),
            header(
                    "shape that overflows",
                    "{\"a\":" + TENSOR.replace("[2,3]", "[4294967296,4294967296]") + "}",
                    12,
                    "\"a.shape\" is [4294967296,4294967296], expected a size that fits 63 bits"),
            header(
                    "offsets backwards",
                    "{\"a\":" + TENSOR.replace("[0,12]", "[12,0]") + "}",
                    12,
                    "\"a.data_offsets\" is [12,0], expected two integers, begin and end"),
            header(
                    "overlap",
                    "{\"a\":" + TENSOR + ",\"b\":" + TENSOR.replace("[0,12]", "[8,20]") + "}",
                    20,
                    "tensor \"b\" overlaps the tensor before it: it begins at byte 131 of the file, expected 135"),
            header(
                    "hole",
                    "{\"a\":" + TENSOR + ",\"b\":" + TENSOR.replace("[0,12]", "[16,28]") + "}",
                    28,
                    "tensor \"b\" leaves a hole before it: it begins at byte 140 of the file, expected 136"),
            header("more data", "{\"a\":" + TENSOR + "}", 20, "8 bytes after the last tensor, expected none"),
            header(
                    "e4m3 without a quantization",
                    "{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[2,3],\"data_offsets\":[0,6]}}",
                    6,
                    "tensor \"a\" has dtype F8_E4M3, but config.json has no quantization_config"),
            index(
                    "no shards",
                    "{}",
                    "model.safetensors.index.json: \"weight_map\" is {}, expected at least one tensor"),
            index(
                    "path upwards",
                    "{\"a\": \"../model-1.safetensors\"}",
                    "model.safetensors.index.json: \"weight_map.a\" is \"../model-1.safetensors\", expected the name of "
                            + "a file in the same folder"),
            index(
                    "absolute path",
                    "{\"a\": \"/etc/passwd\"}",
                    "model.safetensors.index.json: \"weight_map.a\" is \"/etc/passwd\", expected the name of a file"),
            index(
                    "NUL in a path",
                    "{\"a\": \"x\\u0000\"}",
                    "model.safetensors.index.json: \"weight_map.a\" is \"x\\u0000\", expected the name of a file"),
            index(
                    "shard missing",
                    "{\"a\": \"model-2.safetensors\"}",
                    "model-2.safetensors: no such file, but "
                            + "@/model.safetensors.index.json names it as the shard of \"a\""),
            index(
                    "tensor missing",
                    "{\"a\": \"model-1.safetensors\"}",
                    "model.safetensors.index.json: \"weight_map.a\" is \"model-1.safetensors\", expected a file that "
                            + "holds this tensor; @/model-1.safetensors does not"));

    /** Each of these would make the native library end the process. */
    static final List<Arguments> TOKENIZERS = List.of(
            bad(
                    "a tokenizer class that has its own way",
                    folder -> {
                        change(folder, "config.json", "{\"model_type\": \"youtu\"}");
                        change(folder, "tokenizer_config.json", "{\"tokenizer_class\": \"Qwen2Tokenizer\"}");
                    },
                    "@/tokenizer_config.json: \"tokenizer_class\" is \"Qwen2Tokenizer\", expected "
                            + "PreTrainedTokenizerFast: transformers gives most others rules of their own"),
            bad(
                    "an added token as long as a book",
                    folder -> change(
                            folder, "tokenizer_config.json", "{\"mask_token\": \"" + "a".repeat(1_000_000) + "\"}"),
                    "@/tokenizer.json: an added token, \"aaaaaaaaaaaaaaaaaaaa...\", has 1000000 characters, expected at "
                            + "most 1000"),
            bad(
                    "a listed token without an id",
                    folder -> change(
                            folder,
                            "tokenizer_config.json",
                            "{\"added_tokens_decoder\": {\"x\": {\"content\": \"the\"}}}"),
                    "@/tokenizer_config.json: \"added_tokens_decoder.x\" is {\"content\":\"the\"}, expected a token id "
                            + "as its key"),
            tokenizer(
                    "{\"decoder\": {\"type\": \"Fuse\", \"x\": \"\\ud800\"}}",
                    "holds a string that is not Unicode text"),
            tokenizer(
                    "{\"normalizer\": {\"type\": \"Precompiled\", \"precompiled_charsmap\": \"\"}}",
                    "\"normalizer.type\" is \"Precompiled\", expected one of Lowercase, NFC, "),
            tokenizer(
                    "{\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", \"prepend\": \"\"}]}}",
                    "\"normalizer.normalizers.0.prepend\" is \"\", expected text"),
            tokenizer(
                    "{\"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"String\": \"\"}, \"content\": \"x\"}}",
                    "\"normalizer.pattern.String\" is \"\", expected text"),
            tokenizer(
                    "{\"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"Regex\": \"a*\"}, \"content\": \"x\"}}",
                    "\"normalizer.pattern.Regex\" is \"a*\", expected \"String\" instead"),
            tokenizer(
                    "{\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<s>\","
                            + " \"type_id\": 0}}], \"pair\": [], \"special_tokens\": {}}}",
                    "\"post_processor.single\" is [{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}}], expected pieces that "
                            + "special_tokens knows; it lacks \"<s>\""),
            tokenizer(
                    "{\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"Sequence\": {\"id\": \"B\","
                            + " \"type_id\": 0}}], \"pair\": [], \"special_tokens\": {}}}",
                    "\"post_processor.single\" is [{\"Sequence\":{\"id\":\"B\",\"type_id\":0}}], expected a single sequence"),
            tokenizer(
                    "{\"decoder\": {\"type\": \"Strip\", \"content\": \"a\", \"start\": 0, \"stop\": 9}}",
                    "\"decoder.stop\" is 9, expected 0"),
            tokenizer(
                    "{\"model\": {\"type\": \"BPE\", \"continuing_subword_prefix\": \"##\", \"vocab\": {}, \"merges\": []}}",
                    "\"model.continuing_subword_prefix\" is \"##\", expected null"),
            tokenizer(
                    "{\"model\": {\"type\": \"Unigram\", \"vocab\": [], \"unk_id\": 3}}",
                    "\"model.type\" is \"Unigram\", expected one of BPE, WordLevel"));

    @ParameterizedTest(name = "{0}")
    @FieldSource({"FOLDERS", "CONFIGS", "WEIGHTS", "TOKENIZERS"})
    void saysWhatIsWrong(String name, Damage damage, String message) throws IOException {
        folder = Models.copy(Models.TINY_V3, Files.createDirectory(temp.resolve("model")));
        damage.to(folder);
        CheckpointException thrown = assertThrows(CheckpointException.class, () -> Checkpoint.open(folder), name);
        String expected = message.replace("@", folder.toString());
        assertTrue(thrown.getMessage().startsWith(expected), () -> thrown.getMessage() + "\nexpected: " + expected);
    }

    @Test
    void sizesOfTheModelHaveNoDefault() throws IOException {
        folder = Models.copy(Models.TINY_V3, temp);
        for (String key :
                List.of("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")) {
            ObjectNode json = (ObjectNode) Models.json(Models.TINY_V3.resolve("config.json"));
            json.remove(key);
            Files.writeString(folder.resolve("config.json"), json.toString());
            String message = assertThrows(CheckpointException.class, () -> ModelConfig.load(folder))
                    .getMessage();
            assertTrue(message.contains("\"" + key + "\" is missing, expected "), message);
        }
    }

    @Test
    void tensorsAreRequiredByNameAndShape() {
        Safetensors tensors = Safetensors.open(Models.TINY_V3);
        String norm = "model.norm.weight";
        assertEquals(norm, tensors.require(norm, 192).name());
        String shape = assertThrows(CheckpointException.class, () -> tensors.require(norm, 1, 192))
                .getMessage();
        assertEquals(
                Models.TINY_V3 + "/model.safetensors: tensor \"" + norm
                        + "\" has shape [192], expected [1, 192] by config.json",
                shape);
        String missing = assertThrows(CheckpointException.class, () -> tensors.require("x", 1))
                .getMessage();
        assertEquals(Models.TINY_V3 + ": tensor \"x\" is missing, expected shape [1] by config.json", missing);
    }

    private static void change(Path folder, String file, String changes) throws IOException {
        Models.change(folder.resolve(file), JsonObject.MAPPER.readTree(changes));
    }

    private static void truncate(Path folder, int bytes) throws IOException {
        Path file = folder.resolve("model.safetensors");
        Files.write(file, Arrays.copyOf(Files.readAllBytes(file), bytes));
    }

    private static void write(Path file, String header, int dataBytes) throws IOException {
        byte[] json = header.getBytes(StandardCharsets.UTF_8);
        ByteBuffer bytes = ByteBuffer.allocate(8 + json.length + dataBytes).order(ByteOrder.LITTLE_ENDIAN);
        Files.write(file, bytes.putLong(json.length).put(json).array());
    }

    private static void delete(Path folder) throws IOException {
        try (var files = Files.list(folder)) {
            for (Path file : files.toList()) {
                Files.delete(file);
            }
        }
        Files.delete(folder);
    }
}
