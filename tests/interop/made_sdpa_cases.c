/* SPDX-License-Identifier: BSD-3-Clause
 *
 * made_sdpa_cases.c: sdpa cases of the options that PyTorch does not have, on random numbers, with
 * what the float64 oracle of the tests makes of them.
 */
#include <attention/attention.h>

#include "case_writer.h"
#include "export_cases.h"
#include "made_tensors.h"
#include "support/half_numbers.h"
#include "support/oracle_sdpa.h"
#include "support/random_tensor.h"

enum { BATCH = 2 };

/* What the bias is added to. */
enum made_bias { BIAS_NONE, BIAS_OF_HEADS /* (H, L, S) */, BIAS_OF_ALL /* (BATCH, H, L, S) */ };

typedef struct made_case {
    const char *name;
    int32_t dtype; /* 0: float32 */
    int64_t heads, kv_heads, rows, keys, features, value_features;
    attn_sdpa_params params;
    const int64_t *query_offset; /* BATCH of them, or NULL */
    const int64_t *key_lengths;
    int32_t index_dtype; /* of those; 0: int64 */
    enum made_bias bias;
    int has_mask, has_alibi, has_sinks, has_lse, has_weights;
    int32_t key_dtype, value_dtype; /* 0: dtype */
    const int64_t *mask_start;      /* with has_mask: it has mask_columns */
    int64_t mask_columns;           /* 0: as many as keys */
    int64_t reach, table_heads;     /* of a position bias; no heads: there is none */
    int64_t block_heads;            /* of a block mask, likewise */
} made_case;

static const int64_t offsets[] = {3, -1};
static const int64_t lengths[] = {5, 0};
static const int64_t short_lengths[] = {2, 7};
static const int64_t tree_lengths[] = {11, 7};
static const int64_t tree_starts[] = {7, 3};
static const int64_t no_starts[] = {0, 0};
static const int64_t cache_lengths[] = {23, 17};
static const int64_t last_positions[] = {22, 16};

static const made_case cases[] = {
    {"made_window_lse", 0, 2, 2, 7, 9, 8, 6,
     .params = {.set = ATTN_SDPA_SET_WINDOW, .window_left = 2, .window_right = 1}, .has_lse = 1},
    {"made_window_causal_offset", 0, 2, 2, 6, 11, 5, 5,
     .params = {.set = ATTN_SDPA_SET_WINDOW, .window_left = 3, .window_right = -1, .is_causal = 1},
     .query_offset = offsets},
    {"made_softcap_weights", 0, 2, 2, 4, 7, 8, 3, .params = {.softcap = 1.5}, .has_weights = 1},
    {"made_sinks_lse", 0, 4, 4, 3, 6, 8, 8, .has_sinks = 1, .has_lse = 1},
    {"made_alibi", 0, 4, 4, 5, 8, 8, 8, .has_alibi = 1},
    {"made_lengths_empty_row", 0, 2, 2, 3, 7, 4, 4, .key_lengths = lengths, .has_lse = 1},
    {"made_decode_grouped", 0, 8, 2, 1, 23, 16, 16, .params = {.enable_gqa = 1, .is_causal = 1},
     .query_offset = last_positions, .key_lengths = cache_lengths},
    {"made_sigmoid", 0, 2, 2, 5, 6, 8, 8,
     .params = {.normalizer = ATTN_NORMALIZER_SIGMOID, .is_causal = 1}, .has_weights = 1},
    {"made_linear", 0, 2, 2, 5, 6, 8, 8,
     .params = {.set = ATTN_SDPA_SET_SCALE, .scale = 0.125, .normalizer = ATTN_NORMALIZER_LINEAR}},
    {"made_bias", 0, 3, 3, 6, 9, 8, 8, .bias = BIAS_OF_HEADS, .has_weights = 1},
    {"made_bias_mask_causal", 0, 2, 2, 6, 6, 8, 4, .params = {.is_causal = 1}, .bias = BIAS_OF_ALL,
     .has_mask = 1, .has_lse = 1},
    {"made_draft_tree", 0, 2, 2, 4, 11, 8, 6, .params = {.enable_gqa = 1}, .has_mask = 1,
     .key_lengths = tree_lengths, .mask_start = tree_starts, .mask_columns = 4, .has_lse = 1},
    {"made_short_mask_int32", 0, 2, 2, 5, 9, 8, 8, .has_mask = 1, .mask_start = no_starts,
     .mask_columns = 6, .index_dtype = ATTN_DTYPE_INT32, .has_weights = 1},
    {"made_position_bias", 0, 3, 3, 6, 9, 8, 8, .params = {.is_causal = 1, .align_end = 1},
     .reach = 4, .table_heads = 3, .has_lse = 1},
    {"made_position_bias_shared", ATTN_DTYPE_BFLOAT16, 4, 2, 5, 9, 8, 8,
     .params = {.enable_gqa = 1}, .query_offset = offsets, .bias = BIAS_OF_HEADS, .has_alibi = 1,
     .reach = 12, .table_heads = 1},
    {"made_block_mask", 0, 2, 2, 7, 9, 8, 8, .params = {.block_rows = 3, .block_columns = 2},
     .block_heads = 2, .has_mask = 1, .has_lse = 1, .has_weights = 1},
    {"made_block_mask_shared", ATTN_DTYPE_BFLOAT16, 4, 2, 5, 9, 8, 8,
     .params =
         {.enable_gqa = 1, .is_causal = 1, .align_end = 1, .block_rows = 5, .block_columns = 4},
     .bias = BIAS_OF_HEADS, .block_heads = 1, .has_lse = 1},
    {"made_dropout", 0, 2, 2, 7, 9, 8, 8,
     .params = {.dropout = &(const attn_dropout){.struct_size = sizeof(attn_dropout),
                                                 .probability = 0.25,
                                                 .seed = 2026}},
     .has_lse = 1, .has_weights = 1},
    {"made_dropout_of_a_part", ATTN_DTYPE_BFLOAT16, 4, 2, 5, 9, 8, 8,
     .params = {.enable_gqa = 1,
                .dropout = &(const attn_dropout){sizeof(attn_dropout), 0.5, 1234567890123456, 7, 11,
                                                 3, 100, 4001}},
     .bias = BIAS_OF_HEADS, .has_lse = 1},
    {"made_align_end", 0, 2, 2, 3, 9, 8, 8, .params = {.is_causal = 1, .align_end = 1}},
    {"made_align_end_lengths_int32", 0, 2, 2, 3, 9, 8, 8,
     .params = {.is_causal = 1, .align_end = 1}, .key_lengths = short_lengths,
     .index_dtype = ATTN_DTYPE_INT32, .has_lse = 1},
    {"made_offset_int32", 0, 2, 2, 6, 11, 5, 5, .params = {.is_causal = 1}, .query_offset = offsets,
     .index_dtype = ATTN_DTYPE_INT32},
    {"made_float64", ATTN_DTYPE_FLOAT64, 2, 2, 5, 6, 8, 3, .has_lse = 1, .has_weights = 1},
    {"made_bfloat16", ATTN_DTYPE_BFLOAT16, 2, 2, 5, 6, 8, 3, .has_lse = 1, .has_weights = 1},
    {"made_float16", ATTN_DTYPE_FLOAT16, 2, 2, 5, 6, 8, 3, .has_lse = 1, .has_weights = 1},
    {"made_float16_options", ATTN_DTYPE_FLOAT16, 4, 2, 5, 9, 8, 8,
     .params = {.softcap = 1.5, .enable_gqa = 1, .is_causal = 1}, .query_offset = offsets,
     .key_lengths = short_lengths, .bias = BIAS_OF_HEADS, .has_mask = 1, .has_alibi = 1,
     .has_sinks = 1, .has_lse = 1},
    {"made_float32_of_16_bits", 0, 2, 2, 5, 6, 8, 3, .has_lse = 1, .has_weights = 1,
     .key_dtype = ATTN_DTYPE_BFLOAT16, .value_dtype = ATTN_DTYPE_FLOAT16},
    {"made_bfloat16_of_others", ATTN_DTYPE_BFLOAT16, 2, 2, 5, 6, 8, 3, .bias = BIAS_OF_ALL,
     .has_lse = 1, .key_dtype = ATTN_DTYPE_FLOAT16, .value_dtype = ATTN_DTYPE_FLOAT32},
};

/* The tensors of one case; those that it does not have stay NULL. */
typedef struct made_tensors {
    tensor_pool pool;
    attn_tensor *query, *key, *value, *mask, *bias, *query_offset, *key_lengths, *alibi_slopes,
        *sinks, *mask_start, *position_bias, *block_mask;
} made_tensors;

static attn_tensor *make_numbers(tensor_pool *pool, int32_t dtype, const int64_t *numbers) {
    static const int64_t shape[] = {BATCH};
    if (numbers == NULL) {
        return NULL;
    }
    attn_tensor *tensor =
        pool_input(pool, dtype == 0 ? ATTN_DTYPE_INT64 : dtype, 1, shape, LAYOUT_CONTIGUOUS);
    for (int64_t i = 0; i < BATCH; ++i) {
        oracle_store_integer(tensor, &i, numbers[i]);
    }
    return tensor;
}

/* A bool mask and a bias; one in four numbers of the bias hides. */
static void make_masks(const made_case *made, int32_t dtype, random_state *random,
                       made_tensors *tensors) {
    const int64_t scores[] = {BATCH, made->heads, made->rows, made->keys};
    if (made->bias != BIAS_NONE) {
        const int skipped = made->bias == BIAS_OF_HEADS;
        tensors->bias = made_input(&tensors->pool, random, dtype, 4 - skipped, scores + skipped);
        made_hide(tensors->bias, random, 0.25);
    }
    if (made->has_mask) {
        const int64_t columns = made->mask_columns > 0 ? made->mask_columns : made->keys;
        const int64_t shape[] = {made->rows, columns};
        tensors->mask = pool_input(&tensors->pool, ATTN_DTYPE_BOOL, 2, shape, LAYOUT_CONTIGUOUS);
        random_fill_bool(tensors->mask, random, 0.25);
    }
}

static int64_t blocks_of(int64_t length, int64_t of_one) {
    return (length + of_one - 1) / of_one;
}

/* Blocks of each kind. */
static void make_blocks(const made_case *made, random_state *random, made_tensors *tensors) {
    if (made->block_heads == 0) {
        return;
    }
    const int64_t shape[] = {BATCH, made->block_heads,
                             blocks_of(made->rows, made->params.block_rows),
                             blocks_of(made->keys, made->params.block_columns)};
    int64_t index[4] = {0};
    tensors->block_mask = pool_input(&tensors->pool, ATTN_DTYPE_UINT8, 4, shape, LAYOUT_CONTIGUOUS);
    do {
        oracle_store(tensors->block_mask, index, (double)random_between(random, 0, 2));
    } while (oracle_next_index(4, shape, index));
}

static void make_tensors(const made_case *made, int32_t dtype, uint64_t seed,
                         made_tensors *tensors) {
    random_state random = random_seeded(seed);
    tensor_pool *pool = &tensors->pool;
    const int64_t query[] = {BATCH, made->heads, made->rows, made->features};
    const int64_t key[] = {BATCH, made->kv_heads, made->keys, made->features};
    const int64_t value[] = {BATCH, made->kv_heads, made->keys, made->value_features};
    *tensors = (made_tensors){.query = NULL};
    tensors->query = made_input(pool, &random, dtype, 4, query);
    tensors->key = made_input(pool, &random, made->key_dtype ? made->key_dtype : dtype, 4, key);
    tensors->value =
        made_input(pool, &random, made->value_dtype ? made->value_dtype : dtype, 4, value);
    tensors->query_offset = make_numbers(pool, made->index_dtype, made->query_offset);
    tensors->key_lengths = make_numbers(pool, made->index_dtype, made->key_lengths);
    make_masks(made, dtype, &random, tensors);
    if (made->has_alibi) {
        tensors->alibi_slopes = made_input(pool, &random, dtype, 1, &made->heads);
    }
    if (made->has_sinks) {
        tensors->sinks = made_input(pool, &random, dtype, 1, &made->heads);
    }
    tensors->mask_start = make_numbers(pool, made->index_dtype, made->mask_start);
    if (made->table_heads > 0) {
        const int64_t table[] = {made->table_heads, 2 * made->reach + 1};
        tensors->position_bias = made_input(pool, &random, dtype, 2, table);
    }
    make_blocks(made, &random, tensors);
}

static void write_dropout(FILE *file, const attn_dropout *dropout) {
    if (dropout == NULL) {
        return;
    }
    case_write_line(file, "option dropout_probability %.17g", dropout->probability);
    case_write_line(file, "option dropout_seed %llu", (unsigned long long)dropout->seed);
    case_write_line(file, "option dropout_offset %llu", (unsigned long long)dropout->offset);
    case_write_line(file, "option dropout_batch %lld", (long long)dropout->batch);
    case_write_line(file, "option dropout_head %lld", (long long)dropout->head);
    case_write_line(file, "option dropout_row %lld", (long long)dropout->row);
    case_write_line(file, "option dropout_column %lld", (long long)dropout->column);
}

static void write_options(FILE *file, const attn_sdpa_params *params) {
    static const char *const normalizers[] = {"softmax", "sigmoid", "linear"};
    case_write_line(file, "option is_causal %d", params->is_causal);
    case_write_line(file, "option softcap %.17g", params->softcap);
    case_write_line(file, "option normalizer %s", normalizers[params->normalizer]);
    case_write_line(file, "option enable_gqa %d", params->enable_gqa);
    case_write_line(file, "option align_end %d", params->align_end);
    if (params->block_rows > 0) {
        case_write_line(file, "option block_rows %lld", (long long)params->block_rows);
        case_write_line(file, "option block_columns %lld", (long long)params->block_columns);
    }
    write_dropout(file, params->dropout);
    if (params->set & ATTN_SDPA_SET_SCALE) {
        case_write_line(file, "option scale %.17g", params->scale);
    }
    if (params->set & ATTN_SDPA_SET_WINDOW) {
        case_write_line(file, "option window_left %lld", (long long)params->window_left);
        case_write_line(file, "option window_right %lld", (long long)params->window_right);
    }
}

static void write_tensors(FILE *file, const made_tensors *tensors) {
    const struct {
        const char *name;
        const attn_tensor *view;
    } inputs[] = {
        {"query", tensors->query},
        {"key", tensors->key},
        {"value", tensors->value},
        {"attn_mask", tensors->mask},
        {"bias", tensors->bias},
        {"query_offset", tensors->query_offset},
        {"key_lengths", tensors->key_lengths},
        {"alibi_slopes", tensors->alibi_slopes},
        {"sinks", tensors->sinks},
        {"mask_start", tensors->mask_start},
        {"position_bias", tensors->position_bias},
        {"block_mask", tensors->block_mask},
    };
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; ++i) {
        if (inputs[i].view != NULL) {
            case_write_tensor(file, inputs[i].name, inputs[i].view);
        }
    }
}

static void export_made(const export_folder *folder, const made_case *made, uint64_t seed) {
    made_tensors tensors;
    const int32_t dtype = made->dtype == 0 ? ATTN_DTYPE_FLOAT32 : made->dtype;
    make_tensors(made, dtype, seed, &tensors);
    attn_sdpa_params params = made->params;
    params.struct_size = sizeof params;
    params.mask = tensors.mask;
    params.mask_kind = tensors.mask != NULL ? ATTN_MASK_BOOL_INCLUDE : ATTN_MASK_NONE;
    params.bias = tensors.bias;
    params.query_offset = tensors.query_offset;
    params.key_lengths = tensors.key_lengths;
    params.alibi_slopes = tensors.alibi_slopes;
    params.sinks = tensors.sinks;
    params.mask_start = tensors.mask_start;
    params.position_bias = tensors.position_bias;
    params.block_mask = tensors.block_mask;
    oracle_result result = oracle_sdpa(tensors.query, tensors.key, tensors.value, &params, 0);
    const int64_t output[] = {BATCH, made->heads, made->rows, made->value_features};
    const int64_t weights[] = {BATCH, made->heads, made->rows, made->keys};
    const int32_t score_dtype = half_is(dtype) ? ATTN_DTYPE_FLOAT32 : dtype;
    FILE *file = export_open(folder, made->name);
    case_write_line(file, "call sdpa");
    write_options(file, &params);
    write_tensors(file, &tensors);
    made_result(file, "output", dtype, 4, output, &result.output);
    if (made->has_lse) {
        made_result(file, "lse", score_dtype, 3, output, &result.lse);
    }
    if (made->has_weights) {
        made_result(file, "weights", dtype, 4, weights, &result.weights);
    }
    export_close(file, made->name);
    oracle_result_destroy(&result);
    pool_destroy(&tensors.pool);
}

void export_made_sdpa_cases(const export_folder *folder) {
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        export_made(folder, &cases[i], i + 1);
    }
}
