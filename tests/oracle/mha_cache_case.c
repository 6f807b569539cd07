/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_cache_case.c: the layer, its caches and the steps of a case.
 */
#include "mha_cache_case.h"

#include <string.h>

#include "property_setup.h"
#include "support/oracle_tensor.h"

const cache_step cache_steps[NUM_CACHE_STEPS] = {
    {.queries = 7, .keys = 7},      /* a prompt */
    {.queries = 1, .keys = 1},      /* a token */
    {.queries = 0, .keys = 2},      /* rows for nobody yet */
    {.queries = 2, .keys = 3},      /* as many as are asked for, and one more */
    {.queries = 3, .only_reads = 1} /* as a decoder reads an encoder's */
};

static const char *const engine_names[] = {"fused_float32", "fused_bfloat16", "fused_float16",
                                           "native_float32", "native_float64"};
static const char *const parameter_names[] = {"own", "bfloat16"};
static const char *const place_names[] = {"own", "starts", "pages", "flat_pages"};
static const char *const storage_names[] = {"computed", "bfloat16", "float16", "int8",
                                            "uint8",    "int4",     "q8_0"};
static const char *const head_names[] = {"4/4", "4/2", "4/1"};
static const char *const feature_names[] = {"32/32", "8/4", "10/16"};
static const char *const form_names[] = {"batch_first", "sequence_first", "unbatched"};
static const char *const rope_names[] = {"none",        "by_cache", "part",
                                         "frequencies", "tables",   "positions"};
static const char *const norm_names[] = {"none", "head", "all_heads"};
static const char *const extra_names[] = {"none", "bias_kv", "zero", "both"};
static const char *const switch_names[] = {"off", "on"};
static const char *const option_names[] = {"none", "causal", "window", "mask", "offset"};
static const char *const output_names[] = {"output", "all"};
static const char *const beginning_names[] = {"empty", "filled"};
static const char *const workspace_names[] = {"library", "exact"};
static const char *const thread_names[] = {"1", "3"};

static const int64_t heads_of[][2] = {{4, 4}, {4, 2}, {4, 1}};
static const int64_t features_of[][2] = {{32, 32}, {8, 4}, {10, 16}};

/* What cannot be, or would need another oracle: the attention of extra columns is compared with
 * float64, for which the test has few options. */
static int goes_with(int a, int level_a, int b, int level_b) {
    switch (a) {
    case CACHE_ENGINE:
        return level_a != CACHE_NATIVE_FLOAT64 ||
               ((b != CACHE_STORAGE || level_b == STORED_AS_COMPUTED) &&
                (b != CACHE_PARAMETERS || level_b == 0));
    case CACHE_PLACE:
        return level_a == PLACE_OWN || level_a == PLACE_PAGES || b != CACHE_FORM ||
               level_b != FORM_UNBATCHED;
    case CACHE_STORAGE:
        return level_a != STORED_Q8_0 || b != CACHE_FEATURES || level_b == 0;
    case CACHE_EXTRA:
        return level_a == 0 || ((b != CACHE_PADDING || level_b == 0) &&
                                (b != CACHE_OPTIONS || level_b <= OPTIONS_CAUSAL));
    default:
        return 1;
    }
}

static int is_allowed(int a, int level_a, int b, int level_b) {
    return goes_with(a, level_a, b, level_b) && goes_with(b, level_b, a, level_a);
}

#define FACTOR(NAMES) .num_levels = sizeof(NAMES) / sizeof(NAMES)[0], .level_names = NAMES

factor_set mha_cache_factor_set(void) {
    return (factor_set){
        .factors = {[CACHE_ENGINE] = {.name = "engine", FACTOR(engine_names)},
                    [CACHE_PARAMETERS] = {.name = "parameters", FACTOR(parameter_names)},
                    [CACHE_PLACE] = {.name = "place", FACTOR(place_names)},
                    [CACHE_STORAGE] = {.name = "storage", FACTOR(storage_names)},
                    [CACHE_HEADS] = {.name = "heads", FACTOR(head_names)},
                    [CACHE_FEATURES] = {.name = "features", FACTOR(feature_names)},
                    [CACHE_FORM] = {.name = "form", FACTOR(form_names)},
                    [CACHE_ROPE] = {.name = "rope", FACTOR(rope_names)},
                    [CACHE_NORM] = {.name = "norm", FACTOR(norm_names)},
                    [CACHE_EXTRA] = {.name = "extra", FACTOR(extra_names)},
                    [CACHE_PADDING] = {.name = "padding", FACTOR(switch_names)},
                    [CACHE_OPTIONS] = {.name = "options", FACTOR(option_names)},
                    [CACHE_OUTPUTS] = {.name = "outputs", FACTOR(output_names)},
                    [CACHE_BEGINNING] = {.name = "beginning", FACTOR(beginning_names)},
                    [CACHE_WORKSPACE] = {.name = "workspace", FACTOR(workspace_names)},
                    [CACHE_THREADS] = {.name = "threads", FACTOR(thread_names)}},
        .count = CACHE_FACTORS,
        .is_allowed = is_allowed,
    };
}

int cache_level(const mha_cache_case *built, enum cache_factor which) {
    return built->chosen->level[which];
}

int64_t mha_cache_length(const mha_cache_case *built, int64_t batch) {
    const int64_t index[] = {batch};
    return oracle_integer(built->lengths, index);
}

static int is_batched(const mha_cache_case *built) {
    return cache_level(built, CACHE_FORM) != FORM_UNBATCHED;
}

void mha_cache_input_index(const mha_cache_case *built, int64_t batch, int64_t row, int64_t col,
                           int64_t index[3]) {
    const int form = cache_level(built, CACHE_FORM);
    const int64_t of_form[][3] = {{batch, row, col}, {row, batch, col}, {row, col, 0}};
    memcpy(index, of_form[form], sizeof of_form[form]);
}

/* Sequence b has page (M - 1 - i) * B + b as its i-th one: neighbours are others'. */
static int64_t page_of(const mha_cache_case *built, int64_t batch, int64_t place) {
    return (CACHE_ROOM / CACHE_PAGE - 1 - place) * built->batch + batch;
}

void mha_cache_index(const mha_cache_case *built, int64_t batch, int64_t head, int64_t row,
                     int64_t col, int64_t index[4]) {
    const int64_t own[] = {batch, head, row, col}, alone[] = {head, row, col, 0};
    const int64_t joined[] = {head, batch * CACHE_ROOM + row + 1, col, 0};
    const int64_t paged[] = {page_of(built, batch, row / CACHE_PAGE), head, row % CACHE_PAGE, col};
    const int place = cache_level(built, CACHE_PLACE);
    const int64_t *chosen = place == PLACE_STARTS ? joined
                            : place != PLACE_OWN  ? paged
                            : is_batched(built)   ? own
                                                  : alone;
    memcpy(index, chosen, sizeof own);
}

/* ---- the layer ---- */

/* Multiples of 1/4 around `middle`, which every type holds. */
static attn_tensor *add_numbers(mha_cache_case *built, int32_t rank, const int64_t *shape,
                                double middle) {
    attn_tensor *tensor =
        pool_input(&built->pool, built->score_dtype, rank, shape, LAYOUT_CONTIGUOUS);
    random_fill(tensor, &built->random, middle - 1, middle + 1, 0.25);
    return tensor;
}

static void load(mha_cache_case *built, const char *name, const attn_tensor *values) {
    assert_ok(attn_mha_load_parameter(NULL, built->layer, name, values, NULL));
}

static void load_identity(mha_cache_case *built) {
    const int64_t shape[] = {built->config.embed_dim, built->config.embed_dim};
    attn_tensor *weight = add_numbers(built, 2, shape, 0);
    int64_t index[2] = {0, 0};
    do {
        oracle_store(weight, index, index[0] == index[1] ? 1 : 0);
    } while (oracle_next_index(2, shape, index));
    attn_tensor *bias = add_numbers(built, 1, shape, 0);
    random_fill(bias, &built->random, 0, 0, 0);
    load(built, "out_proj.weight", weight);
    load(built, "out_proj.bias", bias);
}

static void load_parameters(mha_cache_case *built) {
    static const char *const weights[] = {"q_proj_weight", "k_proj_weight", "v_proj_weight"};
    static const char *const biases[] = {"q_proj_bias", "k_proj_bias", "v_proj_bias"};
    static const char *const norms[] = {"q_norm.weight", "k_norm.weight"};
    static const char *const extra[] = {"bias_k", "bias_v"};
    const int64_t heads[] = {built->heads, built->kv_heads, built->kv_heads};
    const int64_t features[] = {built->head_dim, built->head_dim, built->value_dim};
    for (int i = 0; i < 3; ++i) {
        const int64_t shape[] = {heads[i] * features[i], built->config.embed_dim};
        built->weight[i] = add_numbers(built, 2, shape, 0);
        built->bias[i] = add_numbers(built, 1, shape, 0);
        load(built, weights[i], built->weight[i]);
        load(built, biases[i], built->bias[i]);
    }
    for (int i = 0; i < 2 && built->config.qk_norm != ATTN_QK_NORM_NONE; ++i) {
        const int is_of_head = built->config.qk_norm == ATTN_QK_NORM_HEAD;
        const int64_t shape[] = {is_of_head ? built->head_dim : heads[i] * features[i]};
        built->norm[i] = add_numbers(built, 1, shape, 1);
        load(built, norms[i], built->norm[i]);
    }
    for (int i = 0; i < 2 && built->config.add_bias_kv; ++i) {
        const int64_t shape[] = {1, 1, heads[i + 1] * features[i + 1]};
        built->extra[i] = add_numbers(built, 3, shape, 0);
        load(built, extra[i], built->extra[i]);
    }
    load_identity(built);
}

static void make_layer(mha_cache_case *built) {
    static const int32_t dtypes[] = {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_BFLOAT16, ATTN_DTYPE_FLOAT16,
                                     ATTN_DTYPE_FLOAT32, ATTN_DTYPE_FLOAT64};
    built->dtype = dtypes[cache_level(built, CACHE_ENGINE)];
    built->score_dtype =
        built->dtype == ATTN_DTYPE_FLOAT64 ? ATTN_DTYPE_FLOAT64 : ATTN_DTYPE_FLOAT32;
    built->batch = cache_level(built, CACHE_FORM) == FORM_RAGGED ? CACHE_MOST_BATCH
                   : is_batched(built)                           ? CACHE_BATCH
                                                                 : 1;
    built->heads = heads_of[cache_level(built, CACHE_HEADS)][0];
    built->kv_heads = heads_of[cache_level(built, CACHE_HEADS)][1];
    built->head_dim = features_of[cache_level(built, CACHE_FEATURES)][0];
    built->value_dim = features_of[cache_level(built, CACHE_FEATURES)][1];
    const int extra = cache_level(built, CACHE_EXTRA), norm = cache_level(built, CACHE_NORM);
    built->config = (attn_mha_config){
        .struct_size = sizeof built->config,
        .embed_dim = built->heads * built->value_dim,
        .num_heads = built->heads,
        .num_kv_heads = built->kv_heads,
        .head_dim = built->head_dim,
        .value_head_dim = built->value_dim,
        .dtype = built->dtype,
        .add_bias_kv = extra & 1,
        .add_zero_attn = extra >> 1,
        .batch_first = cache_level(built, CACHE_FORM) != FORM_SEQUENCE_FIRST,
        .parameter_dtype = cache_level(built, CACHE_PARAMETERS) == 1 ? ATTN_DTYPE_BFLOAT16 : 0,
        .qk_norm = norm,
        .qk_norm_epsilon = norm == ATTN_QK_NORM_HEAD ? 1e-5 : 0,
        .qk_norm_weight_offset = norm == ATTN_QK_NORM_ALL_HEADS ? 1 : 0,
    };
    assert_ok(attn_mha_create(NULL, &built->config, &built->layer));
    load_parameters(built);
}

/* ---- the caches ---- */

/* A tensor of the cache with so many elements in a row. */
static attn_tensor *add_cached(mha_cache_case *built, int32_t dtype, int64_t elements) {
    const int64_t pages = built->batch * CACHE_ROOM / CACHE_PAGE;
    const int64_t shapes[][4] = {
        [PLACE_OWN] = {built->batch, built->kv_heads, CACHE_ROOM, elements},
        [PLACE_STARTS] = {built->kv_heads, built->batch * CACHE_ROOM + 2, elements},
        [PLACE_PAGES] = {pages, built->kv_heads, CACHE_PAGE, elements},
        [PLACE_FLAT_PAGES] = {pages, built->kv_heads, CACHE_PAGE, elements}};
    const int place = cache_level(built, CACHE_PLACE);
    const int skipped = place == PLACE_OWN && !is_batched(built);
    const int32_t rank = place == PLACE_STARTS || skipped ? 3 : 4;
    attn_tensor *cached =
        pool_output(&built->pool, dtype, rank, shapes[place] + skipped,
                    random_bits(&built->random) % 2 ? LAYOUT_SEQUENCE_FIRST : LAYOUT_CONTIGUOUS);
    return cached;
}

static void make_cache(mha_cache_case *built, cache_memory *memory) {
    static const int32_t dtypes[] = {0,
                                     ATTN_DTYPE_BFLOAT16,
                                     ATTN_DTYPE_FLOAT16,
                                     ATTN_DTYPE_INT8,
                                     ATTN_DTYPE_UINT8,
                                     ATTN_DTYPE_INT4X2,
                                     ATTN_DTYPE_Q8_0};
    const int storage = cache_level(built, CACHE_STORAGE), place = cache_level(built, CACHE_PLACE);
    const int32_t dtype = storage == STORED_AS_COMPUTED ? built->score_dtype : dtypes[storage];
    const int64_t values = attn_dtype_values(dtype);
    const int has_scale = storage >= STORED_INT8 && storage <= STORED_INT4;
    memory->key = add_cached(built, dtype, built->head_dim / values);
    memory->value = add_cached(built, dtype, built->value_dim / values);
    for (int i = 0; i < 2 && has_scale; ++i) {
        const int32_t scale_dtype = i == 0 ? ATTN_DTYPE_FLOAT32 : ATTN_DTYPE_BFLOAT16;
        memory->scale[i] = add_cached(built, scale_dtype, 1);
        memory->zero[i] = storage == STORED_UINT8 ? add_cached(built, scale_dtype, 1) : NULL;
    }
    memory->kv = (attn_kv){
        .struct_size = sizeof memory->kv,
        .key = memory->key,
        .value = memory->value,
        .page_table = built->page_table,
        .page_starts = place == PLACE_FLAT_PAGES ? built->places : NULL,
        .starts = place == PLACE_STARTS ? built->places : NULL,
        .lengths = built->lengths,
        .key_scale = memory->scale[0],
        .value_scale = memory->scale[1],
        .key_zero = memory->zero[0],
        .value_zero = memory->zero[1],
    };
}

static attn_tensor *add_integers(tensor_pool *pool, int32_t rank, const int64_t *shape) {
    return pool_input(pool, ATTN_DTYPE_INT64, rank, shape, LAYOUT_CONTIGUOUS);
}

static void make_places(mha_cache_case *built) {
    const int64_t entries = CACHE_ROOM / CACHE_PAGE, batch = built->batch;
    const int place = cache_level(built, CACHE_PLACE);
    /* As an output, since steps advance them: an input stays as it was at the first call. */
    built->lengths =
        pool_output(&built->pool, ATTN_DTYPE_INT64, is_batched(built), &batch, LAYOUT_CONTIGUOUS);
    if (place == PLACE_PAGES || place == PLACE_FLAT_PAGES) {
        const int64_t shape[] = {batch, entries}, flat[] = {batch * entries};
        const int32_t rank = place == PLACE_FLAT_PAGES ? 1 : 1 + is_batched(built);
        built->page_table = add_integers(&built->pool, rank, rank == 2 ? shape : flat);
        for (int64_t i = 0; i < batch * entries; ++i) {
            const int64_t index[] = {rank == 2 ? i / entries : i, i % entries};
            oracle_store_integer(built->page_table, index,
                                 page_of(built, i / entries, i % entries));
        }
    }
    if (place == PLACE_STARTS || place == PLACE_FLAT_PAGES) {
        const int64_t shape[] = {batch + 1};
        built->places = add_integers(&built->pool, 1, shape);
        for (int64_t i = 0; i <= batch; ++i) {
            oracle_store_integer(built->places, &i,
                                 place == PLACE_STARTS ? 1 + i * CACHE_ROOM : i * entries);
        }
    }
}

static void set_lengths(mha_cache_case *built, const int64_t *lengths) {
    for (int64_t b = 0; b < built->batch; ++b) {
        oracle_store_integer(built->lengths, &b, lengths[b]);
    }
}

/* Rows that were there before: 5 of the first sequence, 2 of the second and so on, or none. */
static void fill_beginning(mha_cache_case *built, attn_context *context) {
    static const int64_t lengths[][CACHE_MOST_BATCH] = {{0}, {5, 2, 4}};
    const int64_t *chosen = lengths[cache_level(built, CACHE_BEGINNING)];
    const int32_t skipped = !is_batched(built);
    const int64_t shape[] = {built->batch, built->kv_heads, 5, built->head_dim};
    const int64_t value_shape[] = {built->batch, built->kv_heads, 5, built->value_dim};
    const int64_t rows[] = {built->batch, 5};
    attn_tensor *key = add_numbers(built, 4 - skipped, shape + skipped, 0);
    attn_tensor *value = add_numbers(built, 4 - skipped, value_shape + skipped, 0);
    attn_tensor *positions = add_integers(&built->pool, 2 - skipped, rows + skipped);
    for (int64_t i = 0; i < built->batch * 5; ++i) {
        const int64_t index[] = {i / 5, i % 5};
        const int is_there = i % 5 < chosen[i / 5];
        oracle_store_integer(positions, index + skipped, is_there ? i % 5 : -1);
    }
    const attn_kv_append_params params = {.struct_size = sizeof params, .positions = positions};
    set_lengths(built, chosen);
    assert_ok(attn_kv_append(context, &built->by_layer.kv, key, value, &params));
    assert_ok(attn_kv_append(context, &built->by_calls.kv, key, value, &params));
}

/* ---- the whole ---- */

static void make_rope_tables(mha_cache_case *built) {
    const int64_t pairs[] = {built->head_dim / 2};
    const int64_t table[] = {CACHE_ROOM + 1, built->head_dim / 2};
    if (cache_level(built, CACHE_ROPE) == ROPE_FREQUENCIES) {
        built->frequencies = add_numbers(built, 1, pairs, 1);
    }
    for (int i = 0; i < 2 && cache_level(built, CACHE_ROPE) == ROPE_TABLES; ++i) {
        built->tables[i] = pool_input(&built->pool, built->score_dtype, 2, table, LAYOUT_PACKED);
        random_fill(built->tables[i], &built->random, -1, 1, 0);
    }
}

void mha_cache_case_build(mha_cache_case *built, attn_context *context, const factor_case *chosen,
                          uint64_t seed) {
    memset(built, 0, sizeof *built);
    built->chosen = chosen;
    built->random = random_seeded(seed);
    make_layer(built);
    make_places(built);
    make_rope_tables(built);
    const random_state before = built->random;
    make_cache(built, &built->by_layer);
    built->random = before; /* The same layouts. */
    make_cache(built, &built->by_calls);
    fill_beginning(built, context);
}

void mha_cache_case_destroy(mha_cache_case *built) {
    attn_mha_destroy(built->layer);
    pool_destroy(&built->pool);
}

attn_sdpa_params mha_cache_options(const mha_cache_case *built) {
    const int level = cache_level(built, CACHE_OPTIONS);
    attn_sdpa_params options = {.struct_size = sizeof options,
                                .is_causal = level != OPTIONS_NONE,
                                .scores_stage = ATTN_SCORE_MASKED};
    if (level == OPTIONS_WINDOW) {
        options.set = ATTN_SDPA_SET_WINDOW;
        options.window_left = 4;
        options.softcap = 2;
    } else if (level == OPTIONS_MASK) {
        options.mask_kind = ATTN_MASK_ADDITIVE;
    }
    return options;
}

attn_rope_params mha_cache_rope(const mha_cache_case *built) {
    const int is_part = cache_level(built, CACHE_ROPE) == ROPE_PART;
    return (attn_rope_params){.struct_size = sizeof(attn_rope_params),
                              .rotary_dim = is_part ? built->head_dim / 4 * 2 : 0,
                              .base = is_part ? 500 : 0,
                              .interleaved = is_part,
                              .frequencies = built->frequencies,
                              .cos = built->tables[0],
                              .sin = built->tables[1]};
}
