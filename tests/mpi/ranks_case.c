/* SPDX-License-Identifier: BSD-3-Clause
 *
 * ranks_case.c: makes wholes and parts of them.
 */
#include "ranks_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/oracle_tensor.h"

/* ---- which rows are whose, by the words of mpi.h ---- */

static void append_rows(int64_t *rows, int64_t *count, int64_t first, int64_t length) {
    for (int64_t i = 0; i < length; ++i) {
        rows[(*count)++] = first + i;
    }
}

/* Deals `total` rows out to the ranks at random, some of which get none, so that stretches begin at
 * multiples of `unit`; returns this rank's. */
static int64_t *deal_rows(random_state *random, const ranks_case *made, int64_t total, int64_t unit,
                          int64_t *count) {
    const int num_ranks = made->num_ranks;
    const int is_zigzag = made->mpi_params.placement == ATTN_MPI_PLACEMENT_ZIGZAG;
    int64_t *lengths = oracle_allocate(num_ranks, sizeof *lengths);
    int64_t *rows = oracle_allocate(total + 1, sizeof *rows);
    int64_t at = 0;
    const int64_t step = unit == 1 ? 1 : unit * (is_zigzag ? 2 : 1);
    for (int64_t row = 0; row + step <= total; row += step) {
        lengths[random_between(random, 0, num_ranks - 1)] += step;
    }
    lengths[num_ranks - 1] += total % step;
    *count = 0;
    for (int rank = 0; rank < num_ranks; ++rank) {
        const int64_t length = is_zigzag ? (lengths[rank] + 1) / 2 : lengths[rank];
        if (rank == made->rank) {
            append_rows(rows, count, at, length);
        }
        at += length;
    }
    for (int rank = num_ranks - 1; rank >= 0 && is_zigzag; --rank) {
        if (rank == made->rank) {
            append_rows(rows, count, at, lengths[rank] / 2);
        }
        at += lengths[rank] / 2;
    }
    free(lengths);
    return rows;
}

/* ---- the whole ---- */

static int64_t one_of(random_state *random, int count, const int64_t *choices) {
    return choices[random_between(random, 0, count - 1)];
}

static int chance(random_state *random, double probability) {
    return random_real(random, 0, 1) < probability;
}

static attn_tensor *filled(tensor_pool *pool, random_state *random, int32_t dtype, int32_t rank,
                           const int64_t *shape, double lowest, double highest) {
    attn_tensor *tensor = pool_input(pool, dtype, rank, shape, LAYOUT_CONTIGUOUS);
    random_fill(tensor, random, lowest, highest, 0);
    return tensor;
}

typedef struct heads_level {
    int64_t query, key, value;
    int is_grouped;
} heads_level;

typedef struct whole_sizes {
    int32_t rank, dtype, key_dtype, value_dtype;
    int64_t batch, rows, keys, features, value_features;
    heads_level heads;
} whole_sizes;

static whole_sizes choose_sizes(random_state *random) {
    static const heads_level levels[] = {{4, 2, 2, 1}, {6, 2, 3, 1}, {4, 1, 4, 1}, {7, 7, 7, 0},
                                         {3, 1, 1, 1}, {4, 1, 1, 0}, {1, 4, 4, 0}, {8, 4, 4, 1}};
    static const int64_t dtypes[] = {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_FLOAT64, ATTN_DTYPE_BFLOAT16,
                                     ATTN_DTYPE_FLOAT16};
    static const int64_t lengths[] = {0, 1, 2, 7, 19, 33, 50};
    whole_sizes sizes = {.heads = levels[random_between(random, 0, 7)],
                         .batch = random_between(random, 1, 2),
                         .rank = (int32_t)random_between(random, 2, 5),
                         .dtype = (int32_t)one_of(random, 4, dtypes),
                         .rows = one_of(random, 7, lengths),
                         .keys = one_of(random, 7, lengths),
                         .features = random_between(random, 1, 9),
                         .value_features = random_between(random, 1, 9)};
    sizes.key_dtype = sizes.value_dtype = sizes.dtype;
    if (sizes.dtype != ATTN_DTYPE_FLOAT64 && chance(random, 0.3)) {
        static const int64_t narrow[] = {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_BFLOAT16,
                                         ATTN_DTYPE_FLOAT16};
        sizes.key_dtype = (int32_t)one_of(random, 3, narrow);
        sizes.value_dtype = (int32_t)one_of(random, 3, narrow);
    }
    if (sizes.rank == 2) {
        sizes.heads = (heads_level){1, 1, 1, 0};
    }
    if (sizes.rank < 4) {
        sizes.batch = 1;
    }
    return sizes;
}

/* (batch, 1, heads, rows, columns), as many of the last axes as there are. */
static int32_t operand_shape(const whole_sizes *sizes, int64_t heads, int64_t rows, int64_t columns,
                             int64_t *shape) {
    const int64_t axes[] = {1, sizes->batch, heads, rows, columns};
    memcpy(shape, axes + 5 - sizes->rank, (size_t)sizes->rank * sizeof shape[0]);
    return sizes->rank;
}

static void make_operands(ranks_case *made, random_state *random, const whole_sizes *sizes) {
    ranks_tensors *const whole = &made->whole;
    tensor_pool *const pool = &made->whole_pool;
    int64_t shape[5];
    operand_shape(sizes, sizes->heads.query, sizes->rows, sizes->features, shape);
    whole->query = filled(pool, random, sizes->dtype, sizes->rank, shape, -2, 2);
    operand_shape(sizes, sizes->heads.key, sizes->keys, sizes->features, shape);
    whole->key = filled(pool, random, sizes->key_dtype, sizes->rank, shape, -2, 2);
    operand_shape(sizes, sizes->heads.value, sizes->keys, sizes->value_features, shape);
    whole->value = filled(pool, random, sizes->value_dtype, sizes->rank, shape,
                          -RANKS_LARGEST_VALUE, RANKS_LARGEST_VALUE);
}

/* (batch,) for tensors of rank 4 and 5, for which it is an axis; or one for all. */
static attn_tensor *make_numbers(ranks_case *made, random_state *random, const whole_sizes *sizes,
                                 int64_t lowest, int64_t highest) {
    const int32_t dtype = chance(random, 0.5) ? ATTN_DTYPE_INT32 : ATTN_DTYPE_INT64;
    const int32_t rank = sizes->rank >= 4 && chance(random, 0.7);
    attn_tensor *numbers =
        pool_input(&made->whole_pool, dtype, rank, &sizes->batch,
                   chance(random, 0.2) ? LAYOUT_REPEATED_COLUMNS : LAYOUT_CONTIGUOUS);
    random_fill_integers(numbers, random, lowest, highest);
    return numbers;
}

/* A mask or bias of `columns` columns, with rows or without, with any axes before them. */
static int32_t scores_shape(random_state *random, const whole_sizes *sizes, int64_t num_heads,
                            int has_rows, int64_t columns, int64_t *shape) {
    const int64_t axes[] = {chance(random, 0.5) ? sizes->batch : 1,
                            chance(random, 0.5) ? num_heads : 1, has_rows ? sizes->rows : 1,
                            columns};
    const int32_t most = sizes->rank < 4 ? sizes->rank : 4;
    const int32_t rank = (int32_t)random_between(random, has_rows ? 2 : 1, most);
    memcpy(shape, axes + 4 - rank, (size_t)rank * sizeof shape[0]);
    return rank;
}

static int64_t num_output_heads(const whole_sizes *sizes) {
    return sizes->heads.query > sizes->heads.key ? sizes->heads.query : sizes->heads.key;
}

static void make_masks(ranks_case *made, random_state *random, const whole_sizes *sizes) {
    ranks_tensors *const whole = &made->whole;
    const int has_rows = made->mpi_params.scheme != ATTN_MPI_SCHEME_HEADS && chance(random, 0.7);
    const int64_t num_heads = num_output_heads(sizes);
    int64_t shape[4];
    if (chance(random, 0.5)) {
        const int has_start = chance(random, 0.3);
        const int64_t columns = has_start             ? random_between(random, 0, sizes->keys)
                                : chance(random, 0.1) ? 1
                                                      : sizes->keys;
        const int32_t rank = scores_shape(random, sizes, num_heads, has_rows, columns, shape);
        made->params.mask_kind =
            (int32_t)random_between(random, ATTN_MASK_ADDITIVE, ATTN_MASK_BOOL_EXCLUDE);
        if (made->params.mask_kind == ATTN_MASK_ADDITIVE) {
            whole->mask = filled(&made->whole_pool, random, sizes->dtype, rank, shape, -3, 3);
        } else {
            whole->mask =
                pool_input(&made->whole_pool, ATTN_DTYPE_BOOL, rank, shape, LAYOUT_CONTIGUOUS);
            random_fill_bool(whole->mask, random, 0.5);
        }
        if (has_start) {
            whole->mask_start = make_numbers(made, random, sizes, -3, sizes->keys);
        }
    }
    if (chance(random, 0.3)) {
        const int32_t rank = scores_shape(random, sizes, num_heads, has_rows, sizes->keys, shape);
        whole->bias = filled(&made->whole_pool, random, sizes->dtype, rank, shape, -2, 2);
    }
}

static void make_options(ranks_case *made, random_state *random, const whole_sizes *sizes) {
    ranks_tensors *const whole = &made->whole;
    attn_sdpa_params *const params = &made->params;
    tensor_pool *const pool = &made->whole_pool;
    const int64_t num_heads = num_output_heads(sizes);
    const int64_t per_head = chance(random, 0.7) ? num_heads : 1;
    params->enable_gqa = sizes->heads.is_grouped;
    params->is_causal = chance(random, 0.5);
    if (chance(random, 0.3)) {
        params->set |= ATTN_SDPA_SET_WINDOW;
        params->window_left = random_between(random, -1, 20);
        params->window_right = random_between(random, -1, 20);
    }
    if (chance(random, 0.2)) {
        params->set |= ATTN_SDPA_SET_SCALE;
        params->scale = random_real(random, -1, 1);
    }
    params->softcap = chance(random, 0.2) ? 3 : 0;
    if (chance(random, 0.3)) {
        whole->key_lengths = make_numbers(made, random, sizes, 0, sizes->keys);
    }
    if (chance(random, 0.3)) {
        whole->query_offset = make_numbers(made, random, sizes, -10, 30);
    } else {
        params->align_end = chance(random, 0.4);
    }
    if (chance(random, 0.3)) {
        whole->alibi_slopes = filled(pool, random, sizes->dtype, 1, &per_head, 0, 0.3);
    }
    if (chance(random, 0.3)) {
        const int64_t shape[] = {per_head, 2 * random_between(random, 0, 9) + 1};
        whole->position_bias = filled(pool, random, sizes->dtype, 2, shape, -2, 2);
    }
    if (chance(random, 0.3)) {
        made->dropout = (attn_dropout){.struct_size = sizeof made->dropout,
                                       .probability = random_real(random, 0, 0.6),
                                       .seed = (uint64_t)random_between(random, 0, 1000),
                                       .offset = (uint64_t)random_between(random, 0, 3),
                                       .batch = random_between(random, 0, 2),
                                       .head = random_between(random, 0, 2),
                                       .row = random_between(random, 0, 9),
                                       .column = random_between(random, 0, 9)};
        params->dropout = &made->dropout;
    }
    if (params->normalizer == ATTN_NORMALIZER_SOFTMAX && chance(random, 0.3)) {
        whole->sinks = filled(pool, random, sizes->dtype, 1, &per_head, -2, 2);
    }
}

/* A size of blocks whose borders ranks can be dealt along; of whatever `total` is, 1. */
static int64_t block_size(random_state *random, const ranks_case *made, int64_t total) {
    const int64_t size = random_between(random, 1, 4);
    const int is_zigzag = made->mpi_params.placement == ATTN_MPI_PLACEMENT_ZIGZAG;
    return is_zigzag && total % (2 * size) != 0 ? 1 : size;
}

static int64_t blocks_in(int64_t total, int64_t size) {
    return (total + size - 1) / size;
}

static void make_blocks(ranks_case *made, random_state *random, const whole_sizes *sizes) {
    const int has_rows = made->mpi_params.scheme != ATTN_MPI_SCHEME_HEADS && chance(random, 0.7);
    if (!chance(random, 0.3)) {
        return;
    }
    made->params.block_rows = block_size(random, made, sizes->rows);
    made->params.block_columns = block_size(random, made, sizes->keys);
    const int64_t axes[] = {
        chance(random, 0.5) ? sizes->batch : 1, chance(random, 0.5) ? num_output_heads(sizes) : 1,
        has_rows ? blocks_in(sizes->rows, made->params.block_rows) : 1,
        chance(random, 0.9) ? blocks_in(sizes->keys, made->params.block_columns) : 1};
    const int32_t most = sizes->rank < 4 ? sizes->rank : 4;
    const int32_t rank = (int32_t)random_between(random, has_rows ? 2 : 1, most);
    attn_tensor *const blocks =
        pool_input(&made->whole_pool, ATTN_DTYPE_UINT8, rank, axes + 4 - rank, LAYOUT_CONTIGUOUS);
    int64_t index[ATTN_MAX_RANK] = {0};
    if (oracle_count(rank, blocks->shape) > 0) {
        do {
            *(unsigned char *)oracle_address(blocks, index) =
                (unsigned char)random_between(random, ATTN_BLOCK_HIDDEN, ATTN_BLOCK_MASKED);
        } while (oracle_next_index(rank, blocks->shape, index));
    }
    made->whole.block_mask = blocks;
}

/* Keys and values that no row of a batch sees by causality, window or lengths may hold anything. */
static void poison_hidden_keys(ranks_case *made, const whole_sizes *sizes) {
    const ranks_tensors *const whole = &made->whole;
    attn_sdpa_params params = ranks_case_params(made, whole);
    params.block_mask = NULL; /* what only blocks hide a backward pass may read */
    params.block_rows = 0;
    params.block_columns = 0;
    unsigned char *const hidden =
        oracle_sdpa_hidden_keys(whole->query, whole->key, whole->value, &params);
    attn_tensor *const poisoned[] = {whole->key, whole->value};
    for (int i = 0; i < 2; ++i) {
        int64_t index[ATTN_MAX_RANK] = {0};
        const attn_tensor *const tensor = poisoned[i];
        if (oracle_count(tensor->rank, tensor->shape) == 0) {
            continue;
        }
        do {
            const int64_t batch = tensor->rank >= 4 ? index[tensor->rank - 4] : 0;
            if (hidden[batch * sizes->keys + index[tensor->rank - 2]]) {
                oracle_store(tensor, index, NAN);
            }
        } while (oracle_next_index(tensor->rank, tensor->shape, index));
    }
    free(hidden);
}

/* ---- a rank's own ---- */

attn_tensor *ranks_take_rows(ranks_case *made, random_state *random, const attn_tensor *tensor,
                             int32_t axis, const int64_t *rows, int64_t count, int is_output) {
    const int32_t layout = (int32_t)random_between(random, 0, LAYOUT_NUM_OUTPUT - 1);
    int64_t shape[ATTN_MAX_RANK], index[ATTN_MAX_RANK] = {0}, from[ATTN_MAX_RANK];
    const int32_t at = tensor->rank + axis;
    const int is_cut = count >= 0;
    memcpy(shape, tensor->shape, sizeof shape);
    if (is_cut) {
        shape[at] = count;
    }
    attn_tensor *own = is_output ? pool_output(&made->own_pool, tensor->dtype, tensor->rank, shape,
                                               (enum tensor_layout)layout)
                                 : pool_input(&made->own_pool, tensor->dtype, tensor->rank, shape,
                                              (enum tensor_layout)layout);
    if (oracle_count(own->rank, own->shape) == 0) {
        return own;
    }
    do {
        memcpy(from, index, sizeof from);
        if (is_cut) {
            from[at] = rows[index[at]];
        }
        memcpy(oracle_address(own, index), oracle_address(tensor, from),
               attn_dtype_size_bytes(tensor->dtype));
    } while (oracle_next_index(own->rank, own->shape, index));
    return own;
}

static attn_tensor *take_rows(ranks_case *made, random_state *random, const attn_tensor *tensor,
                              const int64_t *rows, int64_t count) {
    return ranks_take_rows(made, random, tensor, -2, rows, count, 0);
}

/* The blocks of the rank's own rows. */
static attn_tensor *take_blocks(ranks_case *made, random_state *random) {
    const attn_tensor *const blocks = made->whole.block_mask;
    const int64_t size = made->params.block_rows;
    int64_t *const rows = oracle_allocate(made->num_query_rows + 1, sizeof *rows);
    int64_t count = 0;
    if (blocks == NULL) {
        free(rows);
        return NULL;
    }
    const int is_cut = made->mpi_params.scheme != ATTN_MPI_SCHEME_DECODE && blocks->rank >= 2 &&
                       blocks->shape[blocks->rank - 2] != 1;
    for (int64_t row = 0; row < made->num_query_rows; row += size) {
        rows[count++] = made->query_rows[row] / size;
    }
    attn_tensor *const own = take_rows(made, random, blocks, rows, is_cut ? count : -1);
    free(rows);
    return own;
}

/* A mask of one row is for all rows of every rank. */
static attn_tensor *take_masks_rows(ranks_case *made, random_state *random,
                                    const attn_tensor *mask) {
    if (mask == NULL) {
        return NULL;
    }
    const int is_everywhere = made->mpi_params.scheme == ATTN_MPI_SCHEME_DECODE;
    const int is_cut = !is_everywhere && mask->rank >= 2 && mask->shape[mask->rank - 2] != 1;
    return take_rows(made, random, mask, made->query_rows, is_cut ? made->num_query_rows : -1);
}

static void take_own(ranks_case *made, random_state *random, const whole_sizes *sizes) {
    ranks_tensors *const own = &made->own;
    const ranks_tensors *const whole = &made->whole;
    const attn_sdpa_params params = ranks_case_params(made, whole);
    const oracle_sdpa_shape shape =
        oracle_sdpa_output_shape(whole->query, whole->key, whole->value, &params);
    int64_t own_shape[ATTN_MAX_RANK];
    *own = *whole;
    own->query = take_rows(made, random, whole->query, made->query_rows, made->num_query_rows);
    own->key = take_rows(made, random, whole->key, made->key_rows, made->num_key_rows);
    own->value = take_rows(made, random, whole->value, made->key_rows, made->num_key_rows);
    own->mask = take_masks_rows(made, random, whole->mask);
    own->bias = take_masks_rows(made, random, whole->bias);
    own->block_mask = take_blocks(made, random);
    memcpy(own_shape, shape.shape, sizeof own_shape);
    own_shape[shape.rank - 2] = made->num_query_rows;
    const int32_t score_dtype =
        sizes->dtype == ATTN_DTYPE_FLOAT64 ? ATTN_DTYPE_FLOAT64 : ATTN_DTYPE_FLOAT32;
    own->output = pool_output(&made->own_pool, chance(random, 0.5) ? sizes->dtype : score_dtype,
                              shape.rank, own_shape,
                              (enum tensor_layout)random_between(random, 0, LAYOUT_NUM_OUTPUT - 1));
    own->lse = NULL;
    if (made->params.normalizer == ATTN_NORMALIZER_SOFTMAX && chance(random, 0.6)) {
        own->lse =
            pool_output(&made->own_pool, score_dtype, shape.rank - 1, own_shape, LAYOUT_CONTIGUOUS);
    }
}

void ranks_case_make(uint64_t seed, int rank, int num_ranks, ranks_case *made) {
    static const char *const schemes[] = {"auto", "ring", "heads", "decode"};
    random_state random = random_seeded(seed);
    memset(made, 0, sizeof *made);
    made->rank = rank;
    made->num_ranks = num_ranks;
    made->mpi_params = (attn_mpi_params){.struct_size = sizeof made->mpi_params,
                                         .scheme = (int32_t)(seed % 4),
                                         .placement = (int32_t)(seed / 4 % 2)};
    made->params.struct_size = sizeof made->params;
    made->params.normalizer =
        seed / 8 % 4 < 2 ? ATTN_NORMALIZER_SOFTMAX : (int32_t)(seed / 8 % 4 - 1);
    whole_sizes sizes = choose_sizes(&random);
    const int is_everywhere = made->mpi_params.scheme == ATTN_MPI_SCHEME_DECODE;
    make_operands(made, &random, &sizes);
    make_options(made, &random, &sizes);
    /* Where each rank has one row, a mask of one row could be for that, which heads refuses. */
    if (made->mpi_params.scheme != ATTN_MPI_SCHEME_HEADS || sizes.rows != num_ranks) {
        make_masks(made, &random, &sizes);
        make_blocks(made, &random, &sizes);
    }
    poison_hidden_keys(made, &sizes);
    const int has_blocks = made->whole.block_mask != NULL;
    made->query_rows = deal_rows(&random, made, sizes.rows,
                                 has_blocks ? made->params.block_rows : 1, &made->num_query_rows);
    made->key_rows = deal_rows(&random, made, sizes.keys,
                               has_blocks ? made->params.block_columns : 1, &made->num_key_rows);
    if (is_everywhere) {
        made->num_query_rows = 0;
        append_rows(made->query_rows, &made->num_query_rows, 0, sizes.rows);
    }
    snprintf(made->text, sizeof made->text,
             "seed %llu: %s, placement %d, dtype %d, heads %d/%d/%d, %d rows, %d keys",
             (unsigned long long)seed, schemes[made->mpi_params.scheme],
             (int)made->mpi_params.placement, (int)sizes.dtype, (int)sizes.heads.query,
             (int)sizes.heads.key, (int)sizes.heads.value, (int)sizes.rows, (int)sizes.keys);
    take_own(made, &random, &sizes);
}

void ranks_case_destroy(ranks_case *made) {
    free(made->query_rows);
    free(made->key_rows);
    pool_destroy(&made->whole_pool);
    pool_destroy(&made->own_pool);
}

attn_sdpa_params ranks_case_params(const ranks_case *made, const ranks_tensors *tensors) {
    attn_sdpa_params params = made->params;
    params.mask = tensors->mask;
    params.bias = tensors->bias;
    params.query_offset = tensors->query_offset;
    params.key_lengths = tensors->key_lengths;
    params.mask_start = tensors->mask_start;
    params.alibi_slopes = tensors->alibi_slopes;
    params.sinks = tensors->sinks;
    params.position_bias = tensors->position_bias;
    params.block_mask = tensors->block_mask;
    params.lse = tensors->lse;
    return params;
}
