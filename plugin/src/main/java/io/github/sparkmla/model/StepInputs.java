package io.github.sparkmla.model;

import io.github.sparkmla.tensor.Arena;
import io.github.sparkmla.tensor.DType;
import io.github.sparkmla.tensor.Staged;
import io.github.sparkmla.tensor.Tensor;
import java.nio.IntBuffer;
import java.nio.LongBuffer;

/**
 * The tokens of one step and where they belong. Sequences with a single token (decode) come first, then those with
 * any number (prefill), so that each kind is one contiguous range for its kernel.
 */
public final class StepInputs {
    /** Tokens in one KV cache block. */
    public static final int BLOCK_TOKENS = 64;

    private final int blocksPerSequence;
    private final Staged tokenIds;
    private final Staged positions;
    private final Staged slots;
    private final Staged blockTable;
    private final Staged seqLens;
    private final Staged queryStart;
    private final Staged sampledRows;
    private final Tensor prefillBlockTable;
    private final Tensor prefillSeqLens;
    private final Tensor decodeBlockTable;
    private final Tensor decodeSeqLens;
    private int tokens;
    private int sequences;
    private int decodes;
    private int sampled;

    StepInputs(Arena arena, MlaModel.Limits limits) {
        int maxTokens = limits.maxTokens();
        int maxSequences = limits.maxSequences();
        blocksPerSequence = blocksFor(limits.maxModelLen());
        tokenIds = arena.staged(DType.I32, maxTokens);
        positions = arena.staged(DType.I32, maxTokens);
        slots = arena.staged(DType.I64, maxTokens);
        blockTable = arena.staged(DType.I32, maxSequences, blocksPerSequence);
        seqLens = arena.staged(DType.I32, maxSequences);
        queryStart = arena.staged(DType.I32, maxSequences + 1);
        sampledRows = arena.staged(DType.I32, maxSequences);
        decodeBlockTable = blockTable.tensor().alias();
        decodeSeqLens = seqLens.tensor().alias();
        prefillBlockTable = blockTable.tensor().alias();
        prefillSeqLens = seqLens.tensor().alias();
    }

    /** Blocks that hold this many tokens. */
    public static int blocksFor(int tokens) {
        return (tokens + BLOCK_TOKENS - 1) / BLOCK_TOKENS;
    }

    /** Starts a new step. */
    public void clear() {
        tokens = 0;
        sequences = 0;
        decodes = 0;
        sampled = 0;
    }

    /**
     * Adds tokens [from, to) of a sequence, all earlier ones being in the cache already.
     *
     * @param ids the sequence's tokens, at least {@code to}
     * @param blocks its cache blocks, enough for {@code to} tokens
     * @param sample whether the logits after the last of these tokens are wanted
     */
    public void add(int[] ids, int from, int to, int[] blocks, boolean sample) {
        boolean decode = to - from == 1;
        if (decode && decodes < sequences) {
            throw new IllegalStateException("sequences with one token must come first");
        }
        LongBuffer slot = slots.longs();
        IntBuffer id = tokenIds.ints();
        IntBuffer position = positions.ints();
        for (int p = from; p < to; p++, tokens++) {
            id.put(tokens, ids[p]);
            position.put(tokens, p);
            slot.put(tokens, (long) blocks[p / BLOCK_TOKENS] * BLOCK_TOKENS + p % BLOCK_TOKENS);
        }
        blockTable.ints().put(sequences * blocksPerSequence, blocks, 0, blocksFor(to));
        seqLens.ints().put(sequences, to);
        sequences++;
        if (decode) {
            decodes++;
        }
        // Counted from the first prefill token: the prefill kernel sees only its own range.
        queryStart.ints().put(sequences - decodes, tokens - decodes);
        if (sample) {
            sampledRows.ints().put(sampled++, tokens - 1);
        }
    }

    /** Sends the step to the device. */
    void upload() {
        queryStart.ints().put(0, 0);
        tokenIds.upload(tokens);
        positions.upload(tokens);
        slots.upload(tokens);
        blockTable.upload(sequences);
        seqLens.upload(sequences);
        queryStart.upload(prefills() + 1);
        sampledRows.upload(sampled);
        decodeBlockTable.resize(decodes);
        decodeSeqLens.resize(decodes);
        prefillBlockTable.moveTo(blockTable.tensor(), decodes, prefills());
        prefillSeqLens.moveTo(seqLens.tensor(), decodes, prefills());
    }

    /** Tokens of the step, of all sequences. */
    public int tokens() {
        return tokens;
    }

    /** Sequences of which the logits are wanted. */
    public int sampled() {
        return sampled;
    }

    int decodes() {
        return decodes;
    }

    int prefills() {
        return sequences - decodes;
    }

    /** I32 [tokens]. */
    Tensor tokenIds() {
        return tokenIds.tensor();
    }

    /** I32 [tokens]. */
    Tensor positions() {
        return positions.tensor();
    }

    /** I64 [tokens]. */
    Tensor slots() {
        return slots.tensor();
    }

    /** I32 [sampled]: the row of each sequence's last token. */
    Tensor sampledRows() {
        return sampledRows.tensor();
    }

    /** I32 [decodes, blocks a sequence]. */
    Tensor decodeBlockTable() {
        return decodeBlockTable;
    }

    /** I32 [decodes]. */
    Tensor decodeSeqLens() {
        return decodeSeqLens;
    }

    /** I32 [prefills, blocks a sequence]. */
    Tensor prefillBlockTable() {
        return prefillBlockTable;
    }

    /** I32 [prefills]. */
    Tensor prefillSeqLens() {
        return prefillSeqLens;
    }

    /** I32 [prefills + 1]. */
    Tensor queryStart() {
        return queryStart.tensor();
    }
}
