/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bench_work.c: counting by intervals: row i sees keys [begin, end), as sdpa.h says.
 */
#include "bench_work.h"

#include <stddef.h>

#include <attention/sdpa.h>

#include "bench_block_mask.h"

typedef struct key_interval {
    int64_t begin;
    int64_t end; /* at most begin: nothing is seen */
} key_interval;

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static key_interval interval_of_row(const bench_options *o, int64_t sequence, int64_t row) {
    key_interval keys = {0, o->keys.value};
    if (o->key_lengths.text != NULL) {
        keys.end = o->key_lengths.items[sequence % o->key_lengths.count];
    }
    const int64_t offset =
        o->align_end ? keys.end - bench_query_rows(o, sequence) : o->query_offset.value;
    const int64_t position = row + offset;
    if (o->is_causal) {
        keys.end = least(keys.end, position + 1);
    }
    if (o->window_text != NULL && o->window[0] >= 0 && position > o->window[0]) {
        keys.begin = position - o->window[0];
    }
    if (o->window_text != NULL && o->window[1] >= 0) {
        keys.end = least(keys.end, position + o->window[1] + 1);
    }
    return keys;
}

/* What a row sees of a column of blocks; of all keys without a block mask. */
static key_interval interval_in_blocks(const bench_options *o, int64_t sequence, int64_t row,
                                       int64_t column) {
    const int64_t begin = column * bench_block_width(o);
    const int64_t block_row = o->blocks == BENCH_BLOCKS_NONE ? 0 : row / o->block_rows.value;
    key_interval keys = interval_of_row(o, sequence, row);
    keys.begin = keys.begin > begin ? keys.begin : begin;
    keys.end = least(keys.end, begin + bench_block_width(o));
    return bench_block_shows(o, block_row, column) ? keys : (key_interval){0, 0};
}

/* Adds a column of blocks of one sequence. Both ends of the interval grow with the row, so that the
 * keys seen by all rows together are counted by those past what earlier rows saw. */
static void add_blocks(const bench_options *o, int64_t sequence, int64_t column, bench_work *work) {
    int64_t counted_end = 0;
    const int64_t rows = bench_query_rows(o, sequence);
    for (int64_t row = 0; row < rows; row++) {
        const key_interval keys = interval_in_blocks(o, sequence, row, column);
        if (keys.begin < keys.end) {
            work->visible_pairs += keys.end - keys.begin;
            const int64_t begin = keys.begin > counted_end ? keys.begin : counted_end;
            work->visible_keys += keys.end > begin ? keys.end - begin : 0;
            counted_end = keys.end > counted_end ? keys.end : counted_end;
        }
    }
}

/* Features of all heads together: of queries, keys, values, and of the attended values. */
typedef struct head_features {
    double query;
    double key;
    double value;
    double context;
} head_features;

static void add_layer(const bench_options *o, const head_features *f, double element_bytes,
                      bench_work *work) {
    const double rows = (double)o->batch.value * (double)o->queries.value;
    const double embed = (double)o->embed_dim.value;
    const double source_rows = (double)o->batch.value * (double)o->keys.value;
    /* Backward: of each product the gradients of both its factors. */
    const double products = o->is_backward ? 2.0 : 1.0;
    work->flops += products * 2.0 * embed *
                   (rows * f->query + source_rows * (f->key + f->value) + rows * f->context);
    const double parameters =
        embed * (f->query + f->key + f->value + f->context) + f->query + f->key + f->value + embed;
    const double inputs = o->keys.given ? embed * (rows + source_rows) : embed * rows;
    work->bytes = element_bytes * (parameters + inputs);
}

bench_work bench_work_of(const bench_options *options) {
    const bench_options *o = options;
    const double element_bytes = (double)attn_dtype_size_bytes(bench_element_dtype(o));
    const double heads = (double)o->heads.value;
    const double kv_heads = (double)o->kv_heads.value;
    const double head_dim = (double)o->head_dim.value;
    const double value_dim = (double)o->value_dim.value;
    bench_work work = {0};
    for (int64_t sequence = 0; sequence < o->batch.value; sequence++) {
        for (int64_t column = 0; column < bench_block_count_columns(o); column++) {
            add_blocks(o, sequence, column, &work);
        }
    }
    const double scores = (double)work.visible_pairs * heads;
    /* Backward: scores and the gradients of weights, values, queries and keys. */
    work.flops = o->is_backward ? 2.0 * (3.0 * head_dim + 2.0 * value_dim) * scores
                                : 2.0 * (head_dim + value_dim) * scores;
    work.exponentials = o->normalizer == ATTN_NORMALIZER_LINEAR ? 0.0 : scores;
    work.bytes = element_bytes * (double)work.visible_keys * kv_heads * (head_dim + value_dim);
    if (o->function == BENCH_MHA) {
        const head_features features = {heads * head_dim, kv_heads * head_dim, kv_heads * value_dim,
                                        heads * value_dim};
        add_layer(o, &features, element_bytes, &work);
    }
    return work;
}

double bench_cycle_hz(double fma_flops, int flops_per_cycle, int threads) {
    return fma_flops / ((double)flops_per_cycle * threads);
}

double bench_bound_seconds(const bench_work *work, double fma_flops, int flops_per_cycle,
                           int threads) {
    const double cycles_per_second = bench_cycle_hz(fma_flops, flops_per_cycle, threads) * threads;
    return work->flops / fma_flops + work->exponentials / cycles_per_second;
}
