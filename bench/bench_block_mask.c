/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bench_block_mask.c: blocks at random, as many as were asked for on average, or documents that see
 * themselves.
 */
#include "bench_block_mask.h"

#include <stdlib.h>
#include <string.h>

#include "bench_tensor.h"
#include "program_exit.h"

/* As many documents, of equal length, as the structured cells of scripts/bench have. */
enum { DOCUMENTS = 8 };

int bench_block_mask_read(bench_options *o) {
    const char *text = o->block_mask_text;
    char *end = NULL;
    o->blocks = BENCH_BLOCKS_NONE;
    if (text == NULL && (o->block_rows.given || o->block_columns.given)) {
        return program_fail(EXIT_USAGE, "%s: expected --block-mask with it",
                            o->block_rows.given ? "--block-rows" : "--block-columns");
    }
    if (text == NULL) {
        return EXIT_DONE;
    }
    if (strcmp(text, "documents") == 0) {
        o->blocks = BENCH_BLOCKS_DOCUMENTS;
        return EXIT_DONE;
    }
    o->blocks = BENCH_BLOCKS_SHARE;
    o->block_share = strtod(text, &end);
    return end != text && *end == '\0' && o->block_share >= 0 && o->block_share <= 1
               ? EXIT_DONE
               : program_fail(EXIT_USAGE,
                              "--block-mask: expected a share from 0 to 1, or documents, got '%s'",
                              text);
}

static int64_t longest_rows(const bench_options *o) {
    int64_t longest = 0;
    for (int64_t sequence = 0; sequence < o->batch.value; sequence++) {
        const int64_t rows = bench_query_rows(o, sequence);
        longest = rows > longest ? rows : longest;
    }
    return longest;
}

int64_t bench_block_count_rows(const bench_options *o) {
    return o->blocks == BENCH_BLOCKS_NONE
               ? 1
               : (longest_rows(o) + o->block_rows.value - 1) / o->block_rows.value;
}

int64_t bench_block_width(const bench_options *o) {
    return o->blocks == BENCH_BLOCKS_NONE ? o->keys.value : o->block_columns.value;
}

int64_t bench_block_count_columns(const bench_options *o) {
    const int64_t width = bench_block_width(o);
    return (o->keys.value + width - 1) / width;
}

int bench_block_shows(const bench_options *o, int64_t block_row, int64_t block_column) {
    const int64_t columns = bench_block_count_columns(o);
    if (o->blocks == BENCH_BLOCKS_NONE) {
        return 1;
    }
    if (o->blocks == BENCH_BLOCKS_DOCUMENTS) {
        return block_row * DOCUMENTS / bench_block_count_rows(o) ==
               block_column * DOCUMENTS / columns;
    }
    const uint64_t bits = bench_random_bits((uint64_t)o->seed.value + 3000,
                                            (uint64_t)(block_row * columns + block_column));
    return (double)(bits >> 11) * 0x1p-53 < o->block_share;
}
