package io.github.sparkmla.checkpoint;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.github.sparkmla.checkpoint.ModelConfig.GroupScore;
import io.github.sparkmla.checkpoint.ModelConfig.Moe;
import io.github.sparkmla.checkpoint.ModelConfig.Scoring;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.io.TempDir;

/** Configurations against what transformers makes of them (configs.json, written by regenerate_configs.py). */
class ModelConfigTest {
    /** transformers computes the frequencies in float32, we in double: a few units in the last place. */
    private static final double FLOAT_TOLERANCE = 5e-7;

    @TempDir
    Path folder;

    @TestFactory
    List<DynamicTest> agreesWithTransformers() {
        List<DynamicTest> tests = new ArrayList<>();
        for (JsonNode entry : Models.golden("configs.json").get("cases")) {
            tests.add(DynamicTest.dynamicTest(entry.get("name").asText(), () -> {
                ModelConfig config = load(entry.get("config"));
                JsonNode expected = entry.get("expected");
                assertSizes(expected, config);
                assertRope(expected, config);
                assertMoe(
                        expected, config, entry.get("config").get("model_type").asText());
            }));
        }
        assertEquals(31, tests.size());
        return tests;
    }

    private ModelConfig load(JsonNode config) throws IOException {
        Files.writeString(folder.resolve("config.json"), config.toString());
        return ModelConfig.load(folder);
    }

    private static void assertSizes(JsonNode expected, ModelConfig config) {
        assertEquals(expected.get("vocab_size").asInt(), config.vocabSize());
        assertEquals(expected.get("hidden_size").asInt(), config.hiddenSize());
        assertEquals(expected.get("num_hidden_layers").asInt(), config.numLayers());
        assertEquals(expected.get("num_attention_heads").asInt(), config.numHeads());
        assertEquals(expected.get("q_lora_rank").asInt(0), config.qLoraRank());
        assertEquals(expected.get("kv_lora_rank").asInt(), config.kvLoraRank());
        assertEquals(expected.get("qk_nope_head_dim").asInt(), config.qkNopeHeadDim());
        assertEquals(expected.get("qk_rope_head_dim").asInt(), config.qkRopeHeadDim());
        assertEquals(expected.get("v_head_dim").asInt(), config.vHeadDim());
        assertEquals(expected.get("intermediate_size").asInt(), config.intermediateSize());
        assertEquals(expected.get("max_position_embeddings").asInt(), config.maxPositions());
        assertEquals((float) expected.get("rms_norm_eps").asDouble(), config.rmsNormEps());
        assertEquals((float) expected.get("lora_norm_eps").asDouble(), config.loraNormEps());
        assertEquals(expected.get("tie_word_embeddings").asBoolean(), config.tieWordEmbeddings());
        assertEquals(expected.get("attention_bias").asBoolean(), config.attentionBias());
        assertEquals(expected.get("bos_token_id").asInt(), config.bosTokenId());
        JsonNode eos = expected.get("eos_token_id");
        List<Integer> ids = new ArrayList<>();
        for (JsonNode id : eos.isArray() ? eos : List.of(eos)) {
            ids.add(id.asInt());
        }
        assertEquals(ids, config.eosTokenIds());
    }

    private static void assertRope(JsonNode expected, ModelConfig config) {
        JsonNode frequencies = expected.get("inverse_frequencies");
        float[] actual = config.inverseFrequencies();
        assertEquals(frequencies.size(), actual.length);
        for (int i = 0; i < actual.length; i++) {
            double frequency = frequencies.get(i).asDouble();
            assertEquals(frequency, actual[i], frequency * FLOAT_TOLERANCE, "pair " + i);
        }
        assertEquals((float) expected.get("attention_factor").asDouble(), config.ropeAttentionFactor());
        assertEquals((float) expected.get("softmax_scale").asDouble(), config.softmaxScale());
        assertEquals(expected.get("interleaved").asBoolean(), config.rope().interleaved());
    }

    private static void assertMoe(JsonNode expected, ModelConfig config, String modelType) {
        for (int i = 0; i < config.numLayers(); i++) {
            assertEquals(expected.get("moe_layers").get(i).asBoolean(), config.isMoe(i), "layer " + i);
        }
        JsonNode moe = expected.get("moe");
        if (moe.isNull()) {
            assertNull(config.moe());
            return;
        }
        boolean v2 = modelType.equals("deepseek_v2");
        // A V2 router that is greedy does not look at its groups, which may be null.
        boolean greedy = config.moe().groups() == 1;
        Moe wanted = new Moe(
                moe.get("experts").asInt(),
                moe.get("shared").asInt(),
                moe.get("top_k").asInt(),
                moe.get("intermediate").asInt(),
                v2 ? Scoring.SOFTMAX : Scoring.SIGMOID,
                greedy ? 1 : moe.get("groups").asInt(),
                greedy ? 1 : moe.get("top_groups").asInt(),
                v2 ? GroupScore.MAX : GroupScore.TOP2_SUM,
                moe.get("normalize").asBoolean(),
                (float) moe.get("scale").asDouble(),
                moe.get("bias").asBoolean());
        assertEquals(wanted, config.moe());
        assertTrue(
                greedy
                        ? v2 || moe.get("groups").asInt() == 1
                        : moe.get("groups").asInt() > 1);
    }

    @Test
    void yarnScalesTheSoftmaxOfV2LiteBy1Point59() {
        // 0.1 * 0.707 * ln 40 + 1 = 1.2608038, its square 1.5896262; a query head has 128 + 64 dimensions.
        ModelConfig config = ModelConfig.load(Models.TINY_V2_LITE);
        assertEquals(1.5896262 / Math.sqrt(96), config.softmaxScale(), 1e-7);
    }

    @Test
    void generationConfigKnowsBetterWhereASequenceEnds() throws IOException {
        JsonNode config = Models.json(Models.TINY_V3.resolve("config.json"));
        assertEquals(List.of(1), load(config).eosTokenIds());
        Path generation = folder.resolve("generation_config.json");
        Files.writeString(generation, "{\"eos_token_id\": [7, 9]}");
        assertEquals(List.of(7, 9), ModelConfig.load(folder).eosTokenIds());
        Files.writeString(generation, "{\"eos_token_id\": null}");
        assertEquals(List.of(1), ModelConfig.load(folder).eosTokenIds());
    }

    @Test
    void fp8BlocksAreRead() throws IOException {
        Models.copy(Models.TINY_V3, folder);
        Models.change(
                folder.resolve("config.json"),
                new ObjectMapper()
                        .readTree("{\"quantization_config\": {\"activation_scheme\": \"dynamic\", \"fmt\": \"e4m3\","
                                + " \"quant_method\": \"fp8\", \"weight_block_size\": [64, 64]}}"));
        assertEquals(new ModelConfig.Fp8(64), ModelConfig.load(folder).fp8());
    }
}
