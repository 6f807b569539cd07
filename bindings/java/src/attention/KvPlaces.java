// SPDX-License-Identifier: BSD-3-Clause
package attention;

import com.sun.jna.Pointer;

/**
 * Where the keys and values of sequences lie: key (batch axes, Hk, C, E), with starts (Hk, total, E),
 * with a page table (pages, Hk, page, E); value likewise. Elements of INT8 and UINT8 mean (element -
 * zero) * scale. Each method returns this.
 */
public final class KvPlaces extends Argument {
    private final Abi.Kv places = new Abi.Kv();
    // What the struct points at lives as long as this.
    private final Tensor key;
    private final Tensor value;
    private Tensor pageTable;
    private Tensor pageStarts;
    private Tensor starts;
    private Tensor lengths;
    private Tensor keyScale;
    private Tensor valueScale;
    private Tensor keyZero;
    private Tensor valueZero;

    public KvPlaces(Tensor key, Tensor value) {
        this.key = key;
        this.value = value;
    }

    /** INT64 or INT32, (batch axes, M): key j is row j % page of page [b, j / page]. */
    public KvPlaces pageTable(Tensor pages) {
        pageTable = pages;
        return this;
    }

    /** INT64 or INT32, (B + 1): a sequence's entries of the page table, then (P), begin there. */
    public KvPlaces pageStarts(Tensor entries) {
        pageStarts = entries;
        return this;
    }

    /** INT64 or INT32, (B + 1): key j is row starts[b] + j. */
    public KvPlaces starts(Tensor rows) {
        starts = rows;
        return this;
    }

    /** INT64 or INT32 over the batch axes: rows in use of a sequence; without it all. */
    public KvPlaces lengths(Tensor inUse) {
        lengths = inUse;
        return this;
    }

    /**
     * Beside keys of INT8 or UINT8: FLOAT32 or of 16 bits, of as many axes, each of whose lengths
     * divides key's; without it 1. One of each row is written with the row, a coarser one is read.
     */
    public KvPlaces keyScale(Tensor scale) {
        keyScale = scale;
        return this;
    }

    /** Likewise of value. */
    public KvPlaces valueScale(Tensor scale) {
        valueScale = scale;
        return this;
    }

    /**
     * By the same rule, what is subtracted from elements before they are scaled; without it 0 of INT8,
     * 128 of UINT8.
     */
    public KvPlaces keyZero(Tensor zero) {
        keyZero = zero;
        return this;
    }

    /** Likewise of value. */
    public KvPlaces valueZero(Tensor zero) {
        valueZero = zero;
        return this;
    }

    /** This, which a call is to fill. */
    KvPlaces written() {
        Tensor.written("kv.key", key);
        Tensor.written("kv.value", value);
        writtenIfOfRows("kv.key_scale", keyScale, key);
        writtenIfOfRows("kv.value_scale", valueScale, value);
        writtenIfOfRows("kv.key_zero", keyZero, key);
        writtenIfOfRows("kv.value_zero", valueZero, value);
        return this;
    }

    private static void writtenIfOfRows(String name, Tensor scale, Tensor rows) {
        if (scale != null && rows != null && scale.rows() == rows.rows()) {
            Tensor.written(name, scale);
        }
    }

    @Override
    Pointer pointer() {
        places.key = Tensor.pointerOf(key);
        places.value = Tensor.pointerOf(value);
        places.page_table = Tensor.pointerOf(pageTable);
        places.page_starts = Tensor.pointerOf(pageStarts);
        places.starts = Tensor.pointerOf(starts);
        places.lengths = Tensor.pointerOf(lengths);
        places.key_scale = Tensor.pointerOf(keyScale);
        places.value_scale = Tensor.pointerOf(valueScale);
        places.key_zero = Tensor.pointerOf(keyZero);
        places.value_zero = Tensor.pointerOf(valueZero);
        places.write();
        return places.getPointer();
    }
}
