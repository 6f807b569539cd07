/* SPDX-License-Identifier: BSD-3-Clause
 *
 * quantized_case.c: builds calls over quantised keys and values. What no key is at is NaN, or
 * whatever an integer can be.
 */
#include "quantized_case.h"

#include <math.h>
#include <string.h>

#include "quantized_element.h"
#include "support/oracle_tensor.h"

static const char *const engine_names[] = {"fused_float32", "fused_bfloat16", "native_float32"};
static const char *const dtype_names[] = {"int8", "uint8", "int4x2", "uint4x2",
                                          "q8_0", "q4_0",  "float16"};
static const int32_t dtypes[] = {ATTN_DTYPE_INT8,    ATTN_DTYPE_UINT8, ATTN_DTYPE_INT4X2,
                                 ATTN_DTYPE_UINT4X2, ATTN_DTYPE_Q8_0,  ATTN_DTYPE_Q4_0,
                                 ATTN_DTYPE_FLOAT16};
enum grain { NONE, TENSOR, HEAD, CHANNEL, ROW, FOUR_ROWS, BLOCK, THIRDS };
static const char *const grain_names[] = {"none", "tensor",    "head",  "channel",
                                          "row",  "four_rows", "block", "thirds_of_a_row"};
static const char *const zero_names[] = {"none", "row", "channel"};
static const enum grain zero_grains[] = {NONE, ROW, CHANNEL};
static const char *const scale_type_names[] = {"float32", "bfloat16", "float16"};
static const int32_t scale_types[] = {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_BFLOAT16, ATTN_DTYPE_FLOAT16};
enum place { TENSORS, STARTS, PAGES_4, PAGES_16, FLAT_8 };
static const char *const place_names[] = {"tensors", "starts", "pages_4", "pages_16", "flat_8"};
static const int64_t page_rows[] = {0, 0, 4, 16, 8};
static const char *const rows_names[] = {"1", "3", "40"};
static const int64_t rows_of[] = {1, 3, 40};
static const char *const keys_names[] = {"16", "304", "2512"};
static const int64_t rooms[] = {16, 304, 2512};
static const char *const heads_names[] = {"2,2", "6,2"};
static const int64_t heads_of[] = {2, 6};
enum { KEY_HEADS = 2 };
static const char *const features_names[] = {"96,192", "192,96"};
static const int64_t features_of[][2] = {{96, 192}, {192, 96}};
static const char *const option_names[] = {"none", "causal", "window", "softcap", "bias"};
static const char *const output_names[] = {"output", "weights", "scores"};
static const char *const layout_names[] = {"contiguous", "sequence_first", "step_two", "reversed",
                                           "unaligned"};
static const enum tensor_layout layouts[] = {LAYOUT_CONTIGUOUS, LAYOUT_SEQUENCE_FIRST,
                                             LAYOUT_STEP_TWO, LAYOUT_REVERSED, LAYOUT_UNALIGNED};

int quantized_level(const quantized_case *built, int of_factor) {
    return built->chosen->level[of_factor];
}

/* Blocks with their own scale, and numbers, have no other. */
static int is_plain(int dtype_level) {
    return dtypes[dtype_level] == ATTN_DTYPE_Q8_0 || dtypes[dtype_level] == ATTN_DTYPE_Q4_0 ||
           dtypes[dtype_level] == ATTN_DTYPE_FLOAT16;
}

static int may_fold(const quantized_case *built, int dtype, int scale, int zero) {
    const int grain = quantized_level(built, scale);
    return dtypes[quantized_level(built, dtype)] == ATTN_DTYPE_INT8 && grain != CHANNEL &&
           grain != BLOCK && grain != THIRDS && quantized_level(built, zero) == NONE;
}

/* A few rows of the fused engine. */
int quantized_may_fold(const quantized_case *built) {
    const int is_few = rows_of[quantized_level(built, QUANTIZED_ROWS)] <= 4;
    const int is_native = quantized_level(built, QUANTIZED_ENGINE) == 2;
    return is_few && !is_native &&
           (may_fold(built, QUANTIZED_KEY, QUANTIZED_KEY_SCALE, QUANTIZED_KEY_ZERO) ||
            may_fold(built, QUANTIZED_VALUE, QUANTIZED_VALUE_SCALE, QUANTIZED_VALUE_ZERO));
}

static int is_allowed(int factor_a, int level_a, int factor_b, int level_b) {
    int levels[QUANTIZED_FACTORS] = {0};
    levels[factor_a] = level_a;
    levels[factor_b] = level_b;
    const int has_key_numbers = levels[QUANTIZED_KEY_SCALE] + levels[QUANTIZED_KEY_ZERO] > 0;
    const int has_value_numbers = levels[QUANTIZED_VALUE_SCALE] + levels[QUANTIZED_VALUE_ZERO] > 0;
    const int is_large = levels[QUANTIZED_KEYS] == 2 && levels[QUANTIZED_ROWS] == 2;
    return !is_large && !(is_plain(levels[QUANTIZED_KEY]) && has_key_numbers) &&
           !(is_plain(levels[QUANTIZED_VALUE]) && has_value_numbers);
}

#define FACTOR(name, names) \
    { name, (int)(sizeof names / sizeof names[0]), names, 0 }

factor_set quantized_factor_set(int is_long) {
    factor_set set = {.factors = {[QUANTIZED_ENGINE] = FACTOR("engine", engine_names),
                                  [QUANTIZED_KEY] = FACTOR("key", dtype_names),
                                  [QUANTIZED_VALUE] = FACTOR("value", dtype_names),
                                  [QUANTIZED_KEY_SCALE] = FACTOR("key_scale", grain_names),
                                  [QUANTIZED_VALUE_SCALE] = FACTOR("value_scale", grain_names),
                                  [QUANTIZED_KEY_ZERO] = FACTOR("key_zero", zero_names),
                                  [QUANTIZED_VALUE_ZERO] = FACTOR("value_zero", zero_names),
                                  [QUANTIZED_SCALE_TYPE] = FACTOR("scales", scale_type_names),
                                  [QUANTIZED_PLACE] = FACTOR("place", place_names),
                                  [QUANTIZED_ROWS] = FACTOR("L", rows_names),
                                  [QUANTIZED_KEYS] = FACTOR("room", keys_names),
                                  [QUANTIZED_HEADS] = FACTOR("heads", heads_names),
                                  [QUANTIZED_FEATURES] = FACTOR("E,Ev", features_names),
                                  [QUANTIZED_OPTIONS] = FACTOR("options", option_names),
                                  [QUANTIZED_OUTPUTS] = FACTOR("outputs", output_names),
                                  [QUANTIZED_LAYOUT] = FACTOR("layout", layout_names)},
                      .count = QUANTIZED_FACTORS,
                      .is_allowed = is_allowed};
    set.factors[QUANTIZED_KEYS].num_levels -= is_long ? 0 : 1;
    return set;
}

/* ---- where a sequence's rows are ---- */

static int64_t first_row_of(const quantized_case *built, int64_t sequence) {
    return 4 + sequence * (built->room + 4);
}

static void set_places(quantized_case *built) {
    const int place = quantized_level(built, QUANTIZED_PLACE);
    const int64_t batch = QUANTIZED_BATCH, past_last = batch + 1;
    built->lengths = pool_input(&built->pool, ATTN_DTYPE_INT64, 1, &batch, LAYOUT_CONTIGUOUS);
    for (int64_t b = 0; b < batch; ++b) {
        oracle_store_integer(built->lengths, &b, built->room - 3 * b);
    }
    built->kv.struct_size = sizeof built->kv;
    built->kv.lengths = built->lengths;
    if (place == TENSORS) {
        return;
    }
    attn_tensor *starts =
        pool_input(&built->pool, ATTN_DTYPE_INT64, 1, &past_last, LAYOUT_CONTIGUOUS);
    if (place == STARTS) {
        for (int64_t b = 0; b <= batch; ++b) {
            oracle_store_integer(starts, &b, first_row_of(built, b) - (b == batch ? 4 : 0));
        }
        built->kv.starts = starts;
        return;
    }
    const int64_t entries = built->room / page_rows[place];
    const int64_t table[] = {batch, entries}, flat = batch * entries;
    built->page_table = place == FLAT_8 ? pool_input(&built->pool, ATTN_DTYPE_INT32, 1, &flat, 0)
                                        : pool_input(&built->pool, ATTN_DTYPE_INT32, 2, table, 0);
    for (int64_t i = 0; i < flat; ++i) {
        const int64_t index[] = {place == FLAT_8 ? i : i / entries, i % entries};
        oracle_store_integer(built->page_table, index, flat - i); /* page 0 is nobody's */
    }
    built->kv.page_table = built->page_table;
    for (int64_t b = 0; b <= batch && place == FLAT_8; ++b) {
        oracle_store_integer(starts, &b, b * entries);
    }
    built->kv.page_starts = place == FLAT_8 ? starts : NULL;
}

/* The index, in values, of a number of a sequence in the tensor that has it. */
static void place_of(const quantized_case *built, int64_t sequence, int64_t head, int64_t row,
                     int64_t feature, int64_t index[4]) {
    const int place = quantized_level(built, QUANTIZED_PLACE);
    const int64_t plain[] = {sequence, head, row, feature};
    const int64_t joined[] = {head, first_row_of(built, sequence) + row, feature, 0};
    memcpy(index, place == STARTS ? joined : plain, sizeof plain);
    if (page_rows[place] > 0) {
        const int64_t entries = built->room / page_rows[place];
        const int64_t at = sequence * entries + row / page_rows[place];
        index[0] = QUANTIZED_BATCH * entries - at;
        index[2] = row % page_rows[place];
    }
}

/* The shape, in values, of the tensor that has all rows. */
static int32_t placed_shape(const quantized_case *built, int64_t features, int64_t shape[4]) {
    const int place = quantized_level(built, QUANTIZED_PLACE);
    const int64_t plain[] = {QUANTIZED_BATCH, KEY_HEADS, built->room, features};
    const int64_t joined[] = {KEY_HEADS, first_row_of(built, QUANTIZED_BATCH), features, 0};
    memcpy(shape, place == STARTS ? joined : plain, sizeof plain);
    if (page_rows[place] > 0) {
        shape[0] = QUANTIZED_BATCH * (built->room / page_rows[place]) + 1;
        shape[2] = page_rows[place];
    }
    return place == STARTS ? 3 : 4;
}

/* ---- scales and zeros ---- */

static int64_t number_length(enum grain grain, int32_t rank, int32_t axis, const int64_t *shape) {
    const int32_t from_end = rank - axis;
    switch (grain) {
    case HEAD:
        return from_end == 3 ? shape[axis] : 1;
    case CHANNEL:
        return from_end == 3 || from_end == 1 ? shape[axis] : 1;
    case ROW:
        return from_end == 1 ? 1 : shape[axis];
    case FOUR_ROWS:
        return from_end == 1 ? 1 : from_end == 2 ? shape[axis] / 4 : shape[axis];
    case BLOCK:
        return from_end == 1 ? shape[axis] / 32 : shape[axis];
    case THIRDS:
        return from_end == 1 ? 3 : shape[axis];
    default:
        return 1;
    }
}

/* Where the number of a value is. */
static void number_index(const attn_tensor *numbers, const int64_t *shape, const int64_t *index,
                         int64_t *at) {
    for (int32_t axis = 0; axis < numbers->rank; ++axis) {
        at[axis] = index[axis] / (shape[axis] / numbers->shape[axis]);
    }
}

static attn_tensor *add_numbers(quantized_case *built, enum grain grain, int32_t rank,
                                const int64_t *shape) {
    int64_t own[4], index[4] = {0};
    for (int32_t axis = 0; axis < rank; ++axis) {
        own[axis] = number_length(grain, rank, axis, shape);
    }
    if (grain == NONE) {
        return NULL;
    }
    attn_tensor *numbers =
        pool_input(&built->pool, scale_types[quantized_level(built, QUANTIZED_SCALE_TYPE)], rank,
                   own, layouts[quantized_level(built, QUANTIZED_LAYOUT)]);
    do {
        oracle_store(numbers, index, NAN);
    } while (oracle_next_index(rank, own, index));
    return numbers;
}

/* The number of a value, which is drawn where nobody has yet. In whatever place a row is it must
 * have the same, so that it depends on the row alone. */
static double number_at(quantized_case *built, const attn_tensor *numbers, const int64_t *shape,
                        const int64_t *index, double lowest, double highest, double absent) {
    int64_t at[4];
    if (numbers == NULL) {
        return absent;
    }
    number_index(numbers, shape, index, at);
    if (isnan(oracle_element(numbers, at))) {
        oracle_store(numbers, at, random_real(&built->random, lowest, highest));
    }
    return oracle_element(numbers, at);
}

/* ---- keys, or values ---- */

typedef struct quantized_part {
    int32_t dtype;
    int64_t shape[4]; /* in values */
    attn_tensor *tensor, *scale, *zero, *numbers;
    int64_t plain_shape[4];
    attn_tensor *plain, *plain_scale, *plain_zero; /* the same in contiguous caches */
} quantized_part;

static void store_number(const attn_tensor *numbers, const int64_t *shape, const int64_t *index,
                         double number) {
    int64_t at[4];
    if (numbers != NULL) {
        number_index(numbers, shape, index, at);
        oracle_store(numbers, at, number);
    }
}

static void fill_number(quantized_case *built, const quantized_part *part, const int64_t *index,
                        const int64_t *plain) {
    const int32_t dtype = part->dtype;
    const int is_wide =
        dtype == ATTN_DTYPE_INT8 || dtype == ATTN_DTYPE_UINT8 || dtype == ATTN_DTYPE_Q8_0;
    const double unit = is_wide ? 0x1p-7 : 0x1p-3;
    if (dtype == ATTN_DTYPE_FLOAT16) {
        oracle_store(part->tensor, index, random_real(&built->random, -1, 1));
        oracle_store(part->numbers, plain, oracle_element(part->tensor, index));
        quantized_copy_element(part->plain, plain, part->tensor, index);
        return;
    }
    const int32_t level = quantized_random_level(&built->random, dtype);
    quantized_store_level(part->tensor, index, level);
    const double middle = dtype == ATTN_DTYPE_UINT8 ? 128 : dtype == ATTN_DTYPE_UINT4X2 ? 8 : 0;
    const float zero = (float)number_at(built, part->zero, part->shape, index, middle - 3.25,
                                        middle + 3.25, middle);
    const double scale =
        dtype == ATTN_DTYPE_Q8_0 || dtype == ATTN_DTYPE_Q4_0
            ? quantized_store_block_scale(&built->random, part->tensor, index)
            : number_at(built, part->scale, part->shape, index, unit / 2, unit * 1.5, 1);
    store_number(part->plain_scale, part->plain_shape, plain, scale);
    store_number(part->plain_zero, part->plain_shape, plain, (double)zero);
    quantized_copy_element(part->plain, plain, part->tensor, index);
    const float distance = (float)level - zero;
    oracle_store(part->numbers, plain, (double)(distance * (float)scale));
}

static void add_part(quantized_case *built, int is_value, quantized_part *part) {
    const int64_t features =
        features_of[quantized_level(built, QUANTIZED_FEATURES)][is_value ? 1 : 0];
    const enum grain scale =
        (enum grain)quantized_level(built, is_value ? QUANTIZED_VALUE_SCALE : QUANTIZED_KEY_SCALE);
    const enum grain zero =
        zero_grains[quantized_level(built, is_value ? QUANTIZED_VALUE_ZERO : QUANTIZED_KEY_ZERO)];
    const int64_t plain[] = {QUANTIZED_BATCH, KEY_HEADS, built->room, features};
    part->dtype = dtypes[quantized_level(built, is_value ? QUANTIZED_VALUE : QUANTIZED_KEY)];
    const int32_t rank = placed_shape(built, features, part->shape);
    int64_t elements[4], at[4] = {0};
    memcpy(elements, part->shape, sizeof elements);
    elements[rank - 1] /= attn_dtype_values(part->dtype);
    part->tensor = pool_input(&built->pool, part->dtype, rank, elements,
                              layouts[quantized_level(built, QUANTIZED_LAYOUT)]);
    part->scale = add_numbers(built, scale, rank, part->shape);
    part->zero = add_numbers(built, zero, rank, part->shape);
    memcpy(part->plain_shape, plain, sizeof plain);
    int64_t plain_elements[4];
    memcpy(plain_elements, plain, sizeof plain);
    plain_elements[3] /= attn_dtype_values(part->dtype);
    part->plain = pool_input(&built->pool, part->dtype, 4, plain_elements, LAYOUT_CONTIGUOUS);
    part->plain_scale = add_numbers(built, scale, 4, plain);
    part->plain_zero = add_numbers(built, zero, 4, plain);
    /* Numbers stay as they are stored, since kernels of another type sum in another order. */
    part->numbers = pool_input(
        &built->pool, part->dtype == ATTN_DTYPE_FLOAT16 ? ATTN_DTYPE_FLOAT16 : ATTN_DTYPE_FLOAT32,
        4, plain, LAYOUT_CONTIGUOUS);
    do {
        int64_t index[4];
        const int64_t length = oracle_integer(built->lengths, at);
        oracle_store(part->numbers, at, NAN);
        if (at[2] < length) {
            place_of(built, at[0], at[1], at[2], at[3], index);
            fill_number(built, part, index, at);
        }
    } while (oracle_next_index(4, plain, at));
}

/* ---- the calls ---- */

static void set_options(quantized_case *built) {
    const int options = quantized_level(built, QUANTIZED_OPTIONS);
    attn_sdpa_params *params = &built->numbers.params;
    params->struct_size = sizeof *params;
    params->enable_gqa = 1;
    params->is_causal = options == 1;
    params->align_end = options == 1;
    params->set = options == 2 ? ATTN_SDPA_SET_WINDOW : 0;
    params->window_left = options == 2 ? 19 : 0;
    params->window_right = options == 2 ? 3 : 0;
    params->softcap = options == 3 ? 1.5 : 0;
    if (options == 4) {
        attn_tensor *bias = pool_input(&built->pool, ATTN_DTYPE_FLOAT32, 1, &built->room, 0);
        random_fill(bias, &built->random, -1, 1, 0);
        params->bias = bias;
    }
}

static void add_outputs(quantized_case *built, quantized_call *call) {
    const int outputs = quantized_level(built, QUANTIZED_OUTPUTS);
    const int64_t heads = heads_of[quantized_level(built, QUANTIZED_HEADS)];
    const int64_t rows = rows_of[quantized_level(built, QUANTIZED_ROWS)];
    const int64_t value_dim = features_of[quantized_level(built, QUANTIZED_FEATURES)][1];
    const int64_t output[] = {QUANTIZED_BATCH, heads, rows, value_dim};
    const int64_t scores[] = {QUANTIZED_BATCH, heads, rows, built->room};
    call->output = pool_output(&built->pool, ATTN_DTYPE_FLOAT32, 4, output, LAYOUT_CONTIGUOUS);
    if (outputs == 1) {
        call->weights = pool_output(&built->pool, ATTN_DTYPE_FLOAT32, 4, scores, 0);
    } else if (outputs == 2) {
        call->scores = pool_output(&built->pool, ATTN_DTYPE_FLOAT32, 4, scores, 0);
        call->params.scores_stage = ATTN_SCORE_MASKED;
    }
    call->params.weights = call->weights;
    call->params.scores = call->scores;
}

void quantized_case_build(quantized_case *built, const factor_case *chosen, uint64_t seed) {
    memset(built, 0, sizeof *built);
    built->chosen = chosen;
    built->random = random_seeded(seed);
    built->room = rooms[quantized_level(built, QUANTIZED_KEYS)];
    const int64_t heads = heads_of[quantized_level(built, QUANTIZED_HEADS)];
    const int64_t query[] = {QUANTIZED_BATCH, heads,
                             rows_of[quantized_level(built, QUANTIZED_ROWS)],
                             features_of[quantized_level(built, QUANTIZED_FEATURES)][0]};
    built->query = pool_input(&built->pool,
                              quantized_level(built, QUANTIZED_ENGINE) == 1 ? ATTN_DTYPE_BFLOAT16
                                                                            : ATTN_DTYPE_FLOAT32,
                              4, query, LAYOUT_CONTIGUOUS);
    random_fill(built->query, &built->random, -1, 1, 0);
    set_places(built);
    quantized_part key = {0}, value = {0};
    add_part(built, 0, &key);
    add_part(built, 1, &value);
    built->kv.key = key.tensor;
    built->kv.value = value.tensor;
    built->kv.key_scale = key.scale;
    built->kv.value_scale = value.scale;
    built->kv.key_zero = key.zero;
    built->kv.value_zero = value.zero;
    built->plain_kv = (attn_kv){.struct_size = sizeof built->plain_kv,
                                .key = key.plain,
                                .value = value.plain,
                                .lengths = built->lengths,
                                .key_scale = key.plain_scale,
                                .value_scale = value.plain_scale,
                                .key_zero = key.plain_zero,
                                .value_zero = value.plain_zero};
    set_options(built);
    built->quantized.params = built->numbers.params;
    built->quantized.params.kv = &built->kv;
    built->plain.params = built->numbers.params;
    built->plain.params.kv = &built->plain_kv;
    built->numbers.params.key_lengths = built->lengths;
    built->numbers.key = key.numbers;
    built->numbers.value = value.numbers;
    add_outputs(built, &built->quantized);
    add_outputs(built, &built->plain);
    add_outputs(built, &built->numbers);
}

void quantized_case_destroy(quantized_case *built) {
    pool_destroy(&built->pool);
}
