package io.github.sparkmla.checkpoint;

import ai.djl.huggingface.tokenizers.HuggingFaceTokenizer;
import com.fasterxml.jackson.core.JsonProcessingException;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.locks.ReadWriteLock;
import java.util.concurrent.locks.ReentrantReadWriteLock;

/**
 * A checkpoint's tokenizer, as transformers' {@code AutoTokenizer} would make it of tokenizer.json. Thread-safe.
 *
 * <p>What transformers 5.18 does and this does too: where there is a tokenizer.json, its post-processor alone decides
 * which special tokens are added, and {@code add_bos_token} and {@code add_eos_token} of tokenizer_config.json are not
 * looked at; special tokens that only tokenizer_config.json knows are treated as special, with new ids where the
 * vocabulary has none for them; {@code clean_up_tokenization_spaces} does nothing to a BPE tokenizer. Truncation and
 * padding are always off.
 */
public final class Tokenizer implements AutoCloseable {
    private static final String FILE = "tokenizer.json";

    /** Names under which transformers takes tokenizer.json as it is. */
    private static final Set<String> GENERIC_CLASSES =
            Set.of("PreTrainedTokenizerFast", "PreTrainedTokenizer", "TokenizersBackend", "PythonBackend");

    private final HuggingFaceTokenizer tokenizer;

    /** Closing frees native memory, which must not happen under a call that is using it. */
    private final ReadWriteLock lock = new ReentrantReadWriteLock();

    private Tokenizer(HuggingFaceTokenizer tokenizer) {
        this.tokenizer = tokenizer;
    }

    /** Loads tokenizer.json of a checkpoint folder; throws {@link CheckpointException}. */
    public static Tokenizer open(Path folder) {
        Path file = folder.resolve(FILE);
        if (!Files.exists(file)) {
            throw new CheckpointException(file + ": no such file; a tokenizer.model or tiktoken.model has to be "
                    + "converted first (load it with transformers' AutoTokenizer and save it with save_pretrained)");
        }
        TokenizerConfig config = TokenizerConfig.load(folder);
        refuseWhatIsNotImplemented(config);
        refuseOtherClasses(folder, config);
        JsonObject json = TokenizerJson.read(file, config);
        DjlSettings.apply();
        try {
            byte[] bytes = JsonObject.MAPPER.writeValueAsBytes(json.node());
            // DJL truncates to 512 tokens and pads by default, whatever the file says.
            Map<String, String> options = Map.of("truncation", "false", "padding", "false");
            return new Tokenizer(HuggingFaceTokenizer.newInstance(new ByteArrayInputStream(bytes), options));
        } catch (JsonProcessingException e) {
            throw new CheckpointException(file + ": cannot be passed on: " + e.getOriginalMessage(), e);
        } catch (IOException | RuntimeException e) {
            throw new CheckpointException(file + ": not a tokenizer that can be loaded: " + e.getMessage(), e);
        }
    }

    private static void refuseWhatIsNotImplemented(TokenizerConfig config) {
        String force = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output";
        for (String key : new String[] {"split_special_tokens", force}) {
            if (config.flag(key)) {
                throw config.json().wrong(key, "false");
            }
        }
    }

    /**
     * For youtu transformers lets {@code tokenizer_class} choose, and most classes have rules of their own that go before
     * those of tokenizer.json; for the other model types that are run here it takes tokenizer.json as it is.
     */
    private static void refuseOtherClasses(Path folder, TokenizerConfig config) {
        JsonObject json = config.json();
        String key = "tokenizer_class";
        if (json != null
                && json.hasValue(key)
                && !GENERIC_CLASSES.contains(json.node().path(key).asText())
                && isYoutu(folder)) {
            throw json.wrong(
                    key,
                    "PreTrainedTokenizerFast: transformers gives most others rules of their own, which are not implemented");
        }
    }

    private static boolean isYoutu(Path folder) {
        Path config = folder.resolve("config.json");
        return Files.exists(config)
                && JsonObject.read(config).node().path("model_type").asText().equals("youtu");
    }

    /**
     * Token ids of a text, all of them. Special tokens that are written out in the text become single tokens, as in
     * transformers; {@code addSpecialTokens} adds those around it (false for a rendered chat). An unpaired surrogate,
     * which no UTF-8 text can hold, counts as U+FFFD.
     */
    public int[] encode(String text, boolean addSpecialTokens) {
        lock.readLock().lock();
        try {
            long[] ids = tokenizer
                    .encode(withoutLoneSurrogates(text), addSpecialTokens, false)
                    .getIds();
            int[] result = new int[ids.length];
            for (int i = 0; i < ids.length; i++) {
                result[i] = Math.toIntExact(ids[i]);
            }
            return result;
        } finally {
            lock.readLock().unlock();
        }
    }

    /** The text of token ids; bytes that are not UTF-8 become U+FFFD, unknown ids nothing. */
    public String decode(int[] ids, boolean skipSpecialTokens) {
        long[] longs = new long[ids.length];
        for (int i = 0; i < ids.length; i++) {
            longs[i] = ids[i];
        }
        lock.readLock().lock();
        try {
            return tokenizer.decode(longs, skipSpecialTokens);
        } finally {
            lock.readLock().unlock();
        }
    }

    private static String withoutLoneSurrogates(String text) {
        if (!TokenizerJson.hasLoneSurrogate(text)) {
            return text;
        }
        StringBuilder clean = new StringBuilder(text.length());
        text.codePoints()
                .map(point -> point >= Character.MIN_SURROGATE && point <= Character.MAX_SURROGATE ? 0xFFFD : point)
                .forEach(clean::appendCodePoint);
        return clean.toString();
    }

    @Override
    public void close() {
        lock.writeLock().lock();
        try {
            tokenizer.close();
        } finally {
            lock.writeLock().unlock();
        }
    }
}
