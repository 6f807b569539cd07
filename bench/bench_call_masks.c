/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bench_call_masks.c: what hides keys, or is added to scores: masks, dense and by blocks, and bias.
 */
#include <math.h>

#include "bench_block_mask.h"
#include "bench_call.h"
#include "program_exit.h"

/* Whether a mask shows key `key`; keys: the last ones of each sequence are padding, up to half of
 * them; else one of eight is hidden at random. */
static int mask_shows(const bench_options *o, int64_t index) {
    const uint64_t seed = (uint64_t)o->seed.value + 1000;
    if (o->mask_shape != BENCH_MASK_KEYS) {
        return bench_random_bits(seed, (uint64_t)index) % 8 != 0;
    }
    const int64_t keys = o->keys.value;
    const uint64_t padding =
        bench_random_bits(seed, (uint64_t)(index / keys)) % (uint64_t)(keys / 2 + 1);
    return index % keys < keys - (int64_t)padding;
}

/* A dense mask: (L, S), (B, H, L, S) or (B, 1, 1, S); as a layer's key_padding_mask (B, S).
 * Additive ones hold random numbers, and those of padding 0 and -inf. */
static int make_mask(bench_call *call) {
    const bench_options *o = &call->options;
    const int64_t per_head[] = {o->batch.value, o->heads.value, o->queries.value, o->keys.value};
    const int64_t keys[] = {o->batch.value, 1, 1, o->keys.value};
    const int64_t padding[] = {o->batch.value, o->keys.value};
    const int is_keys = o->mask_shape == BENCH_MASK_KEYS;
    const int is_padding = is_keys && o->function == BENCH_MHA;
    const int is_full = o->mask_shape == BENCH_MASK_FULL;
    const int64_t *shape = is_padding ? padding : is_keys ? keys : per_head + (is_full ? 2 : 0);
    const int32_t rank = is_padding || is_full ? 2 : 4;
    bench_tensor *mask = &call->tensors[ROLE_MASK];
    if (o->mask == BENCH_MASK_ADDITIVE && !is_keys) {
        return bench_make_filled(call, ROLE_MASK, bench_element_dtype(o), rank, shape);
    }
    const int is_bool = o->mask == BENCH_MASK_BOOL;
    const int exit_code = bench_make_tensor(
        call, ROLE_MASK, is_bool ? ATTN_DTYPE_BOOL : ATTN_DTYPE_FLOAT32, rank, shape);
    for (int64_t i = 0; exit_code == EXIT_DONE && i < mask->count; i++) {
        if (is_bool) {
            ((unsigned char *)mask->memory)[i] = (unsigned char)mask_shows(o, i);
        } else {
            ((float *)mask->memory)[i] = mask_shows(o, i) ? 0.0f : -INFINITY;
        }
    }
    return exit_code;
}

/* A learned bias, one matrix (L, S) for every head or one for all; or each head's table by
 * distance, as large as T5's. */
static int make_bias(bench_call *call) {
    enum { REACH = 128 };
    const bench_options *o = &call->options;
    const int64_t table[] = {o->heads.value, 2 * REACH + 1};
    if (o->bias == BENCH_BIAS_DISTANCES) {
        return bench_make_filled(call, ROLE_BIAS, bench_element_dtype(o), 2, table);
    }
    const int64_t shape[] = {o->heads.value, o->queries.value, o->keys.value};
    const int skipped = o->bias == BENCH_BIAS_FULL;
    return o->bias == BENCH_BIAS_NONE ? EXIT_DONE
                                      : bench_make_filled(call, ROLE_BIAS, bench_element_dtype(o),
                                                          3 - skipped, shape + skipped);
}

/* One mask by blocks for all sequences and heads. */
static int make_block_mask(bench_call *call) {
    const bench_options *o = &call->options;
    const int64_t shape[] = {bench_block_count_rows(o), bench_block_count_columns(o)};
    const int exit_code = bench_make_tensor(call, ROLE_BLOCK_MASK, ATTN_DTYPE_UINT8, 2, shape);
    unsigned char *blocks = call->tensors[ROLE_BLOCK_MASK].memory;
    for (int64_t i = 0; exit_code == EXIT_DONE && i < shape[0] * shape[1]; i++) {
        blocks[i] = bench_block_shows(o, i / shape[1], i % shape[1]) ? ATTN_BLOCK_VISIBLE
                                                                     : ATTN_BLOCK_HIDDEN;
        /* A dense mask beside it is asked where blocks are seen. */
        if (blocks[i] == ATTN_BLOCK_VISIBLE && o->mask != BENCH_MASK_NONE) {
            blocks[i] = ATTN_BLOCK_MASKED;
        }
    }
    return exit_code;
}

int bench_masks_make(bench_call *call) {
    int exit_code = call->options.mask == BENCH_MASK_NONE ? EXIT_DONE : make_mask(call);
    exit_code = exit_code == EXIT_DONE ? make_bias(call) : exit_code;
    return exit_code == EXIT_DONE && call->options.blocks != BENCH_BLOCKS_NONE
               ? make_block_mask(call)
               : exit_code;
}
