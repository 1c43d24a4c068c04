package io.github.sparkmla.model;

import io.github.sparkmla.tensor.DType;
import io.github.sparkmla.tensor.Device;
import io.github.sparkmla.tensor.Ops;
import io.github.sparkmla.tensor.Staging;
import io.github.sparkmla.tensor.Tensor;

/**
 * The tokens of one step, where they belong, and how the next ones are drawn. Sequences that decode, with a single token,
 * come first, then those that prefill any number, so that each kind is one contiguous range for its kernel.
 *
 * <p>Everything crosses to the device in one copy. The block table comes last in it, packed to the step's width: the
 * blocks of its longest sequence, not of the longest possible one.
 */
public final class StepInputs implements AutoCloseable {
    /** Tokens in one KV cache block. */
    public static final int BLOCK_TOKENS = 64;

    /** Host buffers: one is filled while the device still reads the other. */
    public static final int HOST_BUFFERS = 2;

    private final Staging staging;
    private final Staging.Section tokenIds;
    private final Staging.Section positions;
    private final Staging.Section slots;
    private final Staging.Section seqLens;
    private final Staging.Section queryStart;
    private final Staging.Section sampledRows;
    private final Staging.Section temperature;
    private final Staging.Section topK;
    private final Staging.Section topP;
    private final Staging.Section seed;
    private final Staging.Section drawPosition;
    private final Staging.Section idSources;
    private final Staging.Section blockTable;
    private final Staging.Section drawnIds; // never uploaded
    private final Staging.Section stepIds; // of the device alone
    private final Tensor idTable; // F32 [all ids, 1]: those of the host, and far behind them those drawn
    private final Tensor stepIdRows; // F32 [tokens, 1], of stepIds
    private final Ops.Draws draws;
    private final Tensor decodeBlockTable;
    private final Tensor decodeSeqLens;
    private final Tensor prefillBlockTable;
    private final Tensor prefillSeqLens;
    private final int[][] blocks; // of each sequence
    private final int[] blockCounts;
    private final int maxTableWidth;
    private int tokens;
    private int sequences;
    private int decodes;
    private int sampled;

    StepInputs(Device device, MlaModel.Limits limits) {
        int maxTokens = limits.maxTokens();
        int maxSequences = limits.maxSequences();
        maxTableWidth = blocksFor(limits.maxModelLen());
        blocks = new int[maxSequences][];
        blockCounts = new int[maxSequences];
        staging = new Staging(device, HOST_BUFFERS);
        tokenIds = staging.section(DType.I32, maxTokens);
        positions = staging.section(DType.I32, maxTokens);
        idSources = staging.section(DType.I32, maxTokens);
        slots = staging.section(DType.I64, maxTokens);
        seqLens = staging.section(DType.I32, maxSequences);
        queryStart = staging.section(DType.I32, maxSequences + 1);
        sampledRows = staging.section(DType.I32, maxSequences);
        temperature = staging.section(DType.F32, maxSequences);
        topK = staging.section(DType.I32, maxSequences);
        topP = staging.section(DType.F32, maxSequences);
        seed = staging.section(DType.I64, maxSequences);
        drawPosition = staging.section(DType.I32, maxSequences);
        blockTable = staging.section(DType.I32, (long) maxSequences * maxTableWidth);
        drawnIds = staging.section(DType.I32, maxSequences);
        stepIds = staging.section(DType.I32, maxTokens);
        staging.allocate();
        idTable = tokenIds.tensor().at(0, DType.F32, stepIds.index(), 1);
        stepIdRows = stepIds.tensor().at(0, DType.F32, maxTokens, 1);
        draws = new Ops.Draws(temperature.tensor(), topK.tensor(), topP.tensor(), seed.tensor(), drawPosition.tensor());
        decodeBlockTable = blockTable.tensor().reshape(maxSequences, maxTableWidth);
        decodeSeqLens = seqLens.tensor().alias();
        prefillBlockTable = decodeBlockTable.alias();
        prefillSeqLens = seqLens.tensor().alias();
    }

    /** Blocks that hold this many tokens. */
    public static int blocksFor(int tokens) {
        return (tokens + BLOCK_TOKENS - 1) / BLOCK_TOKENS;
    }

    /**
     * Starts a new step in one of the {@link #HOST_BUFFERS} host buffers, counted from 0. The device is done with the step
     * that was there before.
     */
    public void clear(int hostBuffer) {
        staging.use(hostBuffer);
        tokens = 0;
        sequences = 0;
        decodes = 0;
        sampled = 0;
    }

    /**
     * Adds tokens [from, to) of a sequence, all earlier ones being in the cache already.
     *
     * @param ids the sequence's tokens, at least {@code to}; one that the host does not know yet counts nothing
     * @param decode whether a single token takes the way of decode
     * @param drawnRow if not negative, the last of the tokens is the one that this row of the step before drew
     * @param itsBlocks its cache blocks, enough for {@code to} tokens; must not change before {@link #upload}
     */
    public void add(int[] ids, int from, int to, boolean decode, int drawnRow, int[] itsBlocks) {
        if (decode && (decodes < sequences || to - from != 1)) {
            throw new IllegalStateException("sequences that decode must come first, with one token each");
        }
        for (int p = from; p < to; p++) {
            boolean known = p < to - 1 || drawnRow < 0;
            addToken(
                    known ? ids[p] : 0,
                    known ? tokens : drawnIds.index() + drawnRow,
                    p,
                    (long) itsBlocks[p / BLOCK_TOKENS] * BLOCK_TOKENS + p % BLOCK_TOKENS);
        }
        addSequence(to, itsBlocks, blocksFor(to), decode);
    }

    private void addToken(int id, int source, int position, long slot) {
        tokenIds.ints().put(tokens, id);
        idSources.ints().put(tokens, source);
        positions.ints().put(tokens, position);
        slots.longs().put(tokens, slot);
        tokens++;
    }

    private void addSequence(int length, int[] itsBlocks, int count, boolean decode) {
        blocks[sequences] = itsBlocks;
        blockCounts[sequences] = count;
        seqLens.ints().put(sequences, length);
        sequences++;
        if (decode) {
            decodes++;
        }
        // Counted from the first prefill token: the prefill kernel sees only its own range.
        queryStart.ints().put(sequences - decodes, tokens - decodes);
    }

    /** Asks for a token after the last one added, at {@code position}; see {@link Ops.Draws} for the rest. */
    public void draw(int position, float itsTemperature, int itsTopK, float itsTopP, long itsSeed) {
        sampledRows.ints().put(sampled, tokens - 1);
        temperature.floats().put(sampled, itsTemperature);
        topK.ints().put(sampled, itsTopK);
        topP.floats().put(sampled, itsTopP);
        seed.longs().put(sampled, itsSeed);
        drawPosition.ints().put(sampled, position);
        sampled++;
    }

    /**
     * Fills a step that only decodes up to {@code rows} sequences: the rest are empty, and what they leave in the cache goes
     * to {@code dump}, a block that belongs to nobody. Draws are filled up, too, whatever they give.
     */
    public void pad(int rows, int dump) {
        while (sequences < rows) {
            addToken(0, tokens, 0, (long) dump * BLOCK_TOKENS + tokens % BLOCK_TOKENS);
            addSequence(0, null, 0, true);
        }
        while (sampled < rows) {
            draw(0, 0, 0, 1, 0);
        }
    }

    /** Blocks of the step's longest sequence. */
    public int tableWidth() {
        int width = 1;
        for (int i = 0; i < sequences; i++) {
            width = Math.max(width, blockCounts[i]);
        }
        return width;
    }

    /** The widest that a block table can be. */
    public int maxTableWidth() {
        return maxTableWidth;
    }

    /** Sends the step to the device, the block table {@code width} wide. */
    public void upload(int width) {
        queryStart.ints().put(0, 0);
        for (int i = 0; i < sequences; i++) {
            if (blockCounts[i] > 0) {
                blockTable.ints().put(i * width, blocks[i], 0, blockCounts[i]);
            }
            blocks[i] = null;
        }
        staging.upload(blockTable, (long) sequences * width);
        resize(width);
    }

    private void resize(int width) {
        for (Staging.Section byToken : new Staging.Section[] {idSources, positions, slots, stepIds}) {
            byToken.tensor().resize(tokens);
        }
        stepIdRows.resize(tokens);
        drawnIds.tensor().resize(sampled);
        for (Staging.Section byDraw :
                new Staging.Section[] {sampledRows, temperature, topK, topP, seed, drawPosition}) {
            byDraw.tensor().resize(sampled);
        }
        queryStart.tensor().resize(prefills() + 1);
        decodeBlockTable.repack(decodes, width);
        decodeSeqLens.resize(decodes);
        prefillBlockTable.repack(prefills(), width);
        prefillBlockTable.moveTo(decodeBlockTable, decodes, prefills());
        prefillSeqLens.moveTo(seqLens.tensor(), decodes, prefills());
    }

    /** Puts the step's token ids together, on the device: some may have been drawn there just before. */
    void gatherIds(Ops ops) {
        // Any four bytes are a float as long as nobody computes with it.
        ops.embedding(idTable, idSources.tensor(), stepIdRows);
    }

    /** Asks for the ids that the first {@code rows} draws gave; they are in the host buffer once the device is done. */
    public void fetchDrawn(int rows) {
        staging.download(drawnIds, drawnIds, rows);
    }

    /** An id that {@link #fetchDrawn} brought into a host buffer. */
    public int drawn(int hostBuffer, int row) {
        return drawnIds.ints(hostBuffer).get(row);
    }

    /** Tokens of the step, of all sequences. */
    public int tokens() {
        return tokens;
    }

    /** Sequences of the step. */
    public int sequences() {
        return sequences;
    }

    /** Tokens to be drawn after the step. */
    public int sampled() {
        return sampled;
    }

    /** Sequences that prefill in the step. */
    public int prefills() {
        return sequences - decodes;
    }

    int decodes() {
        return decodes;
    }

    /** How each token is drawn, [sampled]. */
    public Ops.Draws draws() {
        return draws;
    }

    /** I32 [sampled]: where the ids go that are drawn after the step. */
    public Tensor drawnIds() {
        return drawnIds.tensor();
    }

    /** I32 [tokens]; after {@link #gatherIds}. */
    Tensor tokenIds() {
        return stepIds.tensor();
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

    /** I32 [decodes, width]. */
    Tensor decodeBlockTable() {
        return decodeBlockTable;
    }

    /** I32 [decodes]. */
    Tensor decodeSeqLens() {
        return decodeSeqLens;
    }

    /** I32 [prefills, width]. */
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

    @Override
    public void close() {
        staging.close();
    }
}
