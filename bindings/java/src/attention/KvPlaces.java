// SPDX-License-Identifier: BSD-3-Clause
package attention;

import com.sun.jna.Pointer;

/**
 * Where the keys and values of sequences lie: key (batch axes, Hk, C, E), with starts (Hk, total, E),
 * with a page table (pages, Hk, page, E); value likewise. Each method returns this.
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

    /** This, which a call is to fill. */
    KvPlaces written() {
        Tensor.written("kv.key", key);
        Tensor.written("kv.value", value);
        return this;
    }

    @Override
    Pointer pointer() {
        places.key = Tensor.pointerOf(key);
        places.value = Tensor.pointerOf(value);
        places.page_table = Tensor.pointerOf(pageTable);
        places.page_starts = Tensor.pointerOf(pageStarts);
        places.starts = Tensor.pointerOf(starts);
        places.lengths = Tensor.pointerOf(lengths);
        places.write();
        return places.getPointer();
    }
}
