/* SPDX-License-Identifier: BSD-3-Clause
 *
 * engine_cache.h: the keys and values of several sequences in pages, a pool of them for each layer,
 * all with one page table.
 *
 * A sequence takes its next page when it needs it, from whatever is free, so that memory follows
 * what sequences hold, not what the longest may hold. In 8 bits each key and value has a scale of
 * its own, which attn_kv_append writes.
 */
#ifndef ENGINE_CACHE_H
#define ENGINE_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include <attention/attention.h>

#include "engine_model.h"

enum { ENGINE_PAGE_ROWS = 16 };

/* Where one layer's keys or values are: (pages, kv heads, ENGINE_PAGE_ROWS, head_dim), and their
 * scales, (pages, kv heads, ENGINE_PAGE_ROWS, 1). */
typedef struct engine_pool {
    attn_tensor rows;
    attn_tensor scales;
} engine_pool;

typedef struct engine_cache {
    int64_t num_layers;
    int64_t num_sequences;
    int64_t most_pages; /* of a sequence */
    int64_t pages_used; /* of the pool */
    bool has_scales;
    engine_pool *keys;   /* for each layer */
    engine_pool *values; /* likewise */
    int64_t *lengths;    /* (num_sequences): rows in use */
    int32_t *page_table; /* (num_sequences, most_pages) */
} engine_cache;

/* Room for `most_rows` keys in each of num_sequences. dtype: ATTN_DTYPE_FLOAT32, or ATTN_DTYPE_INT8
 * with scales. 0, or -1 where memory is out. */
int engine_cache_create(engine_cache *cache, const engine_config *config, int64_t num_sequences,
                        int64_t most_rows, int32_t dtype);

/* Makes room for a sequence's next rows and counts them. Of a sequence that is full nothing is
 * counted: -1. */
int engine_cache_grow(engine_cache *cache, int64_t sequence, int64_t rows);

/* Bytes of keys, values and scales that pages in use hold. */
int64_t engine_cache_bytes(const engine_cache *cache);

void engine_cache_free(engine_cache *cache);

#endif
