package io.github.sparkmla.engine;

import io.github.sparkmla.engine.Completion.FinishReason;
import io.github.sparkmla.engine.Completion.TokenLogprobs;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletableFuture;

/** A request on its way: its tokens, how many of them are in the KV cache, and the blocks that hold them. */
final class Sequence {
    final Request request;
    final CompletableFuture<Completion> future = new CompletableFuture<>();
    private final int maxLength;
    private final List<TokenLogprobs> logprobs = new ArrayList<>();
    private int[] tokens;
    private int known; // of the tokens, how many the host has
    private int drawing; // tokens that a step under way draws: 0 or 1
    private int drawnRow = -1; // in that step
    private int computed;
    private int[] blocks = new int[4];
    private int blockCount;

    /** @param maxModelLen longest sequence; cuts the completion where it comes before the request's own limit */
    Sequence(Request request, int maxModelLen) {
        this.request = request;
        this.known = request.promptIds().length;
        this.maxLength = (int) Math.min((long) known + request.sampling().maxTokens(), maxModelLen);
        this.tokens = Arrays.copyOf(request.promptIds(), Math.min(maxLength, known + 64));
    }

    int[] tokens() {
        return tokens;
    }

    int promptLength() {
        return request.promptIds().length;
    }

    /** Tokens: the prompt and what was generated, that which a step under way draws included. */
    int length() {
        return known + drawing;
    }

    /** Tokens of which the key is, or is going to be, wanted: the last that the sequence may have is only an answer. */
    int wanted() {
        return Math.min(length(), maxLength - 1);
    }

    /** A step that draws the next token is on its way. */
    void expectToken() {
        drawing++;
    }

    /** In which row of the newest step that draws for this sequence. */
    void drawnIn(int row) {
        drawnRow = row;
    }

    /** That row, where it gives token {@code index} and the host does not have it yet; else -1. */
    int rowThatDraws(int index) {
        return index < known ? -1 : drawnRow;
    }

    /** Tokens whose keys are, or are going to be, in the cache. */
    int computed() {
        return computed;
    }

    int[] blocks() {
        return blocks;
    }

    /** Blocks that the longest possible form of this sequence needs; its last token never enters the cache. */
    int maxBlocks() {
        return BlockPool.blocksFor(maxLength - 1);
    }

    /** Blocks missing for the first {@code upTo} tokens. */
    int blocksMissing(int upTo) {
        return Math.max(0, BlockPool.blocksFor(upTo) - blockCount);
    }

    void reserve(int upTo, BlockPool pool) {
        for (int missing = blocksMissing(upTo); missing > 0; missing--) {
            if (blockCount == blocks.length) {
                blocks = Arrays.copyOf(blocks, 2 * blockCount);
            }
            blocks[blockCount++] = pool.take();
        }
    }

    /** Gives all blocks back; what was computed has to be computed again. */
    void release(BlockPool pool) {
        while (blockCount > 0) {
            pool.giveBack(blocks[--blockCount]);
        }
        computed = 0;
    }

    void advance(int upTo) {
        computed = upTo;
    }

    /** Appends a token that was drawn. Returns whether the sequence is finished, and completes nothing. */
    FinishReason append(int token, TokenLogprobs logprob, boolean endOfSequence) {
        if (known == tokens.length) {
            tokens = Arrays.copyOf(tokens, Math.min(maxLength, 2 * known));
        }
        tokens[known++] = token;
        drawing--;
        if (logprob != null) {
            logprobs.add(logprob);
        }
        if (endOfSequence && !request.sampling().ignoreEos()) {
            return FinishReason.STOP;
        }
        return known == maxLength ? FinishReason.LENGTH : null;
    }

    Completion completion(FinishReason reason) {
        int prompt = promptLength();
        return new Completion(Arrays.copyOfRange(tokens, prompt, known), reason, prompt, 0, List.copyOf(logprobs));
    }
}
