// SPDX-License-Identifier: BSD-3-Clause
package attention;

import com.sun.jna.Pointer;

/**
 * Options of {@link Attention#sdpa} and of the attention inside a {@link Multihead}; new ones are
 * PyTorch's defaults. Each method returns this.
 */
public final class SdpaOptions extends Argument {
    /** What makes weights of scores. */
    public enum Normalizer {
        SOFTMAX,
        SIGMOID,
        LINEAR
    }

    /** Which scores {@link #scores} gets; a key past its sequence's length is not read. */
    public enum ScoreStage {
        /** scale * (q . k) of every row and key. */
        SCALED,
        /** The same after softcap. */
        CAPPED,
        /** With biases, and -inf where a row does not see the key. */
        MASKED
    }

    private final Abi.SdpaParams params = new Abi.SdpaParams();
    // What the struct points at lives as long as these options.
    private Mask mask;
    private Tensor maskStart;
    private Tensor bias;
    private Tensor positionBias;
    private Tensor blockMask;
    private Abi.Dropout dropout;
    private Tensor queryOffset;
    private Tensor keyLengths;
    private Tensor alibiSlopes;
    private Tensor sinks;
    private KvPlaces kv;
    private Tensor queryStarts;
    private Tensor lse;
    private Tensor weights;
    private Tensor scores;

    public SdpaOptions mask(Mask chosen) {
        mask = chosen;
        return this;
    }

    /**
     * INT64 or INT32 over the batch axes: the key that mask's first column belongs to. Keys before it
     * are visible, those behind mask's last column hidden.
     */
    public SdpaOptions maskStart(Tensor keys) {
        maskStart = keys;
        return this;
    }

    /** (Hq or 1, 2 R + 1), added by a key's distance from its row, at most R and at least -R. */
    public SdpaOptions positionBias(Tensor table) {
        positionBias = table;
        return this;
    }

    /**
     * UINT8, broadcastable to (batch axes, Hq, rows of blocks, columns of blocks): what a block of so
     * many rows and columns, which are keys, is. 0: hidden and never read, 1: visible, 2: visible
     * where mask is.
     */
    public SdpaOptions blockMask(Tensor blocks, long rows, long columns) {
        blockMask = blocks;
        params.block_rows = rows;
        params.block_columns = columns;
        return this;
    }

    /**
     * Drops each weight with this probability, 0 to below 1, and divides the others by 1 -
     * probability. Which ones depends on seed and offset, 64 bits, and on a weight's place alone.
     */
    public SdpaOptions dropout(double probability, long seed, long offset) {
        dropout = new Abi.Dropout();
        dropout.probability = probability;
        dropout.seed = seed;
        dropout.offset = offset;
        return this;
    }

    /**
     * The same of a part of a larger problem, that drops what the whole would: numbers that are added
     * to those of a weight's place.
     */
    public SdpaOptions dropout(
            double probability, long seed, long offset, long batch, long head, long row, long column) {
        dropout(probability, seed, offset);
        dropout.batch = batch;
        dropout.head = head;
        dropout.row = row;
        dropout.column = column;
        return this;
    }

    /** Numbers that are added to the scores, beside any mask. */
    public SdpaOptions bias(Tensor added) {
        bias = added;
        return this;
    }

    /** Row i sees keys up to i + query offset. */
    public SdpaOptions causal(boolean isCausal) {
        params.is_causal = isCausal ? 1 : 0;
        return this;
    }

    /** Of the scores; without it 1 / sqrt(E). */
    public SdpaOptions scale(double factor) {
        params.set |= Abi.SET_SCALE;
        params.scale = factor;
        return this;
    }

    /** Hq is a multiple of Hk and of Hv. */
    public SdpaOptions enableGqa(boolean isGrouped) {
        params.enable_gqa = isGrouped ? 1 : 0;
        return this;
    }

    /** So many keys before and after a row's position; -1: all. */
    public SdpaOptions window(long left, long right) {
        params.set |= Abi.SET_WINDOW;
        params.window_left = left;
        params.window_right = right;
        return this;
    }

    public SdpaOptions softcap(double cap) {
        params.softcap = cap;
        return this;
    }

    public SdpaOptions normalizer(Normalizer chosen) {
        params.normalizer = chosen.ordinal();
        return this;
    }

    /** The last row stands at the last key; instead of queryOffset. */
    public SdpaOptions alignEnd(boolean aligns) {
        params.align_end = aligns ? 1 : 0;
        return this;
    }

    /** INT64 or INT32 over the batch axes: the position of row 0 among the keys. */
    public SdpaOptions queryOffset(Tensor positions) {
        queryOffset = positions;
        return this;
    }

    /** INT64 or INT32 over the batch axes: keys at or past it do not exist. */
    public SdpaOptions keyLengths(Tensor lengths) {
        keyLengths = lengths;
        return this;
    }

    public SdpaOptions alibiSlopes(Tensor slopes) {
        alibiSlopes = slopes;
        return this;
    }

    public SdpaOptions sinks(Tensor logits) {
        sinks = logits;
        return this;
    }

    /** Keys and values elsewhere: those of the call, and keyLengths, are null. Not in a layer. */
    public SdpaOptions kv(KvPlaces places) {
        kv = places;
        return this;
    }

    /**
     * INT64 or INT32, (B + 1): query is (Hq, total, E), and a sequence's rows begin there; output,
     * lse, weights and the rows of masks lie likewise. Not in a layer.
     */
    public SdpaOptions queryStarts(Tensor rows) {
        queryStarts = rows;
        return this;
    }

    /** Out: (..., Hq, L). */
    public SdpaOptions lse(Tensor output) {
        lse = Tensor.written("lse", output);
        return this;
    }

    /** Out: (..., Hq, L, S), or without Hq: the mean over the heads. */
    public SdpaOptions weights(Tensor output) {
        weights = Tensor.written("weights", output);
        return this;
    }

    /** Out: (..., Hq, L, S), the scores of a stage. */
    public SdpaOptions scores(Tensor output, ScoreStage stage) {
        scores = Tensor.written("scores", output);
        params.scores_stage = stage.ordinal();
        return this;
    }

    @Override
    Pointer pointer() {
        params.mask = mask == null ? null : Tensor.pointerOf(mask.tensor);
        params.mask_start = Tensor.pointerOf(maskStart);
        params.bias = Tensor.pointerOf(bias);
        params.position_bias = Tensor.pointerOf(positionBias);
        params.block_mask = Tensor.pointerOf(blockMask);
        if (dropout != null) {
            dropout.write();
            params.dropout = dropout.getPointer();
        }
        params.mask_kind = mask == null ? 0 : mask.kind;
        params.query_offset = Tensor.pointerOf(queryOffset);
        params.key_lengths = Tensor.pointerOf(keyLengths);
        params.alibi_slopes = Tensor.pointerOf(alibiSlopes);
        params.sinks = Tensor.pointerOf(sinks);
        params.kv = kv == null ? null : kv.pointer();
        params.query_starts = Tensor.pointerOf(queryStarts);
        params.lse = Tensor.pointerOf(lse);
        params.weights = Tensor.pointerOf(weights);
        params.scores = Tensor.pointerOf(scores);
        params.write();
        return params.getPointer();
    }
}
