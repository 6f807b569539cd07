/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mixed_calls.c: a table of calls, and how one is made of its row.
 */
#include "mixed_calls.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
    HEAD_DIM = MIXED_EMBED / MIXED_HEADS,
    INPUT_VALUES = 3 * MIXED_LONGEST * MIXED_EMBED,
    MIXED_MOST_KEYS = 560, /* whose gradients threads share, block by block of a head's keys */
    MIXED_PARTS = 9
};

typedef enum call_kind { LAYER, ATTENTION, BACKWARD, SOFTMAX, ROPE, NORM, MERGE } call_kind;

enum call_option {
    CAUSAL = 1,
    WINDOW = 2,
    SOFTCAP = 4,
    MASK = 8,
    SLOPES = 16,
    WEIGHTS = 32,
    LSE = 64,
    GROUPED = 128,
    SCORES = 256 /* the masked ones, behind weights */
};

typedef struct call_row {
    call_kind kind;
    int32_t dtype;
    int64_t rows, keys;
    int options;
} call_row;

/* Below and above the sizes from which the threads are used; attention of float64 is the BLAS
 * engine's. */
static const call_row rows_of_calls[] = {
    {LAYER, ATTN_DTYPE_FLOAT32, 1, 1, 0},
    {LAYER, ATTN_DTYPE_FLOAT32, 7, 7, CAUSAL | WEIGHTS},
    {LAYER, ATTN_DTYPE_FLOAT32, 96, 60, MASK},
    {LAYER, ATTN_DTYPE_FLOAT32, MIXED_LONGEST, MIXED_LONGEST, CAUSAL | MASK},
    {ATTENTION, ATTN_DTYPE_FLOAT32, 1, MIXED_LONGEST, GROUPED},
    {ATTENTION, ATTN_DTYPE_FLOAT32, 3, 50, MASK | SLOPES},
    {ATTENTION, ATTN_DTYPE_FLOAT32, 65, 65, CAUSAL | SOFTCAP | LSE},
    {ATTENTION, ATTN_DTYPE_FLOAT32, MIXED_LONGEST, 130, WINDOW | WEIGHTS | SCORES},
    {ATTENTION, ATTN_DTYPE_FLOAT32, 0, 5, LSE},
    {ATTENTION, ATTN_DTYPE_FLOAT64, 2, 9, MASK | LSE},
    {ATTENTION, ATTN_DTYPE_FLOAT64, 90, 100, CAUSAL | WEIGHTS | GROUPED | SCORES},
    {ATTENTION, ATTN_DTYPE_FLOAT64, MIXED_LONGEST, MIXED_LONGEST, SLOPES | WINDOW},
    {BACKWARD, ATTN_DTYPE_FLOAT32, 1, MIXED_LONGEST, GROUPED | LSE},
    {BACKWARD, ATTN_DTYPE_FLOAT32, 96, 96, CAUSAL | MASK | SLOPES | LSE},
    {BACKWARD, ATTN_DTYPE_FLOAT32, MIXED_LONGEST, MIXED_MOST_KEYS, SOFTCAP | LSE},
    {BACKWARD, ATTN_DTYPE_FLOAT64, 70, MIXED_MOST_KEYS, WINDOW | GROUPED | LSE},
    {SOFTMAX, ATTN_DTYPE_FLOAT32, 80, MIXED_LONGEST, 0},
    {SOFTMAX, ATTN_DTYPE_FLOAT64, 5, 33, 0},
    {ROPE, ATTN_DTYPE_FLOAT32, MIXED_LONGEST, MIXED_EMBED, 0},
    {ROPE, ATTN_DTYPE_FLOAT64, MIXED_LONGEST, MIXED_EMBED, 0},
    {NORM, ATTN_DTYPE_FLOAT32, MIXED_LONGEST, MIXED_EMBED, 0},
    {NORM, ATTN_DTYPE_FLOAT64, 3, MIXED_EMBED, 0},
    {MERGE, ATTN_DTYPE_FLOAT32, MIXED_LONGEST, MIXED_PARTS, LSE},
    {MERGE, ATTN_DTYPE_FLOAT64, 7, MIXED_PARTS, LSE},
};

int mixed_calls_count(void) {
    return (int)(sizeof rows_of_calls / sizeof rows_of_calls[0]);
}

bool mixed_call_is_float32(int which) {
    return rows_of_calls[which].dtype == ATTN_DTYPE_FLOAT32;
}

attn_context *mixed_context(int32_t num_threads, int32_t engine) {
    const attn_context_config settings = {.struct_size = sizeof settings,
                                          .num_threads = num_threads,
                                          .engine = engine,
                                          .gemm = ATTN_GEMM_NATIVE};
    attn_context *context;
    assert_int_equal(attn_context_create(&settings, &context), ATTN_OK);
    return context;
}

static int64_t bytes_of(int32_t dtype) {
    return dtype == ATTN_DTYPE_FLOAT32 ? (int64_t)sizeof(float) : (int64_t)sizeof(double);
}

/* The shape holds nothing that could be refused. */
static attn_tensor view_of(void *data, int32_t dtype, int32_t rank, const int64_t *shape) {
    attn_tensor view = {0};
    if (attn_tensor_init(&view, data, dtype, rank, shape) != ATTN_OK) {
        abort();
    }
    return view;
}

/* Hides a third of the keys: true is hidden. */
static attn_tensor mask_of(unsigned char *hidden, int64_t keys) {
    for (int64_t i = 0; i < keys; ++i) {
        hidden[i] = i % 3 == 1;
    }
    return view_of(hidden, ATTN_DTYPE_BOOL, 1, &keys);
}

static attn_status run_layer(const mixed_calls *calls, attn_context *context, const attn_mha *layer,
                             const call_row *row, void *memory) {
    const int64_t query_shape[] = {row->rows, MIXED_EMBED};
    const int64_t key_shape[] = {row->keys, MIXED_EMBED};
    const int64_t weight_shape[] = {row->rows, row->keys};
    float *input = calls->inputs[0];
    float *out = memory;
    unsigned char hidden[MIXED_LONGEST];
    const attn_tensor query = view_of(input, row->dtype, 2, query_shape);
    const attn_tensor key = view_of(input + 64, row->dtype, 2, key_shape);
    const attn_tensor value = view_of(input + 999, row->dtype, 2, key_shape);
    const attn_tensor output = view_of(out, row->dtype, 2, query_shape);
    const attn_tensor weights = view_of(out + row->rows * MIXED_EMBED, row->dtype, 2, weight_shape);
    const attn_tensor mask = mask_of(hidden, row->keys);
    attn_mha_params params = {.struct_size = sizeof params};
    const attn_sdpa_params attention = {
        .struct_size = sizeof attention,
        .is_causal = (row->options & CAUSAL) != 0,
        .weights = (row->options & WEIGHTS) != 0 ? &weights : NULL,
    };
    params.attention = &attention;
    if ((row->options & MASK) != 0) {
        params.key_padding_mask = &mask;
        params.key_padding_mask_kind = ATTN_MASK_BOOL_EXCLUDE;
    }
    return attn_mha_forward(context, layer, &query, &key, &value, &params, &output, NULL, 0);
}

/* Everything that a call of attention points to. */
typedef struct attention_call {
    attn_tensor query, key, value, output, weights, scores, lse, alibi, mask;
    float slopes[MIXED_HEADS];
    unsigned char hidden[MIXED_LONGEST];
    attn_sdpa_params params;
} attention_call;

static void make_attention(const mixed_calls *calls, const call_row *row, char *out,
                           attention_call *call) {
    static const float slopes[MIXED_HEADS] = {0.5F, 0.25F, 0.125F, 0.0625F};
    const int64_t kv_heads = (row->options & GROUPED) != 0 ? MIXED_HEADS / 2 : MIXED_HEADS;
    const int64_t query_shape[] = {MIXED_HEADS, row->rows, HEAD_DIM};
    const int64_t key_shape[] = {kv_heads, row->keys, HEAD_DIM};
    const int64_t weight_shape[] = {MIXED_HEADS, row->rows, row->keys};
    const int64_t head_shape[] = {MIXED_HEADS};
    const int64_t bytes = bytes_of(row->dtype);
    const int64_t output_bytes = MIXED_HEADS * row->rows * HEAD_DIM * bytes;
    const int64_t weight_bytes = MIXED_HEADS * row->rows * row->keys * bytes;
    char *input = calls->inputs[row->dtype == ATTN_DTYPE_FLOAT64];
    memcpy(call->slopes, slopes, sizeof slopes);
    call->query = view_of(input, row->dtype, 3, query_shape);
    call->key = view_of(input + 64 * bytes, row->dtype, 3, key_shape);
    call->value = view_of(input + 999 * bytes, row->dtype, 3, key_shape);
    call->output = view_of(out, row->dtype, 3, query_shape);
    call->weights = view_of(out + output_bytes, row->dtype, 3, weight_shape);
    call->scores = view_of(out + output_bytes + weight_bytes, row->dtype, 3, weight_shape);
    call->lse = view_of(out + output_bytes, row->dtype, 2, query_shape);
    call->alibi = view_of(call->slopes, ATTN_DTYPE_FLOAT32, 1, head_shape);
    attn_sdpa_params *params = &call->params;
    *params = (attn_sdpa_params){.struct_size = sizeof *params};
    params->is_causal = (row->options & CAUSAL) != 0;
    params->softcap = (row->options & SOFTCAP) != 0 ? 1.5 : 0;
    params->alibi_slopes = (row->options & SLOPES) != 0 ? &call->alibi : NULL;
    params->weights = (row->options & WEIGHTS) != 0 ? &call->weights : NULL;
    params->lse = (row->options & LSE) != 0 ? &call->lse : NULL;
    params->scores = (row->options & SCORES) != 0 ? &call->scores : NULL;
    params->scores_stage = ATTN_SCORE_MASKED;
    params->enable_gqa = (row->options & GROUPED) != 0;
    if ((row->options & WINDOW) != 0) {
        params->set |= ATTN_SDPA_SET_WINDOW;
        params->window_left = 40;
        params->window_right = 3;
    }
    if ((row->options & MASK) != 0) {
        call->mask = mask_of(call->hidden, row->keys);
        params->mask = &call->mask;
        params->mask_kind = ATTN_MASK_BOOL_EXCLUDE;
    }
}

static attn_status run_attention(const mixed_calls *calls, attn_context *context,
                                 const call_row *row, void *memory) {
    attention_call call;
    make_attention(calls, row, memory, &call);
    return attn_sdpa(context, &call.query, &call.key, &call.value, &call.params, &call.output, NULL,
                     0);
}

/* Of numbers that `of` has, behind what was written so far. */
static attn_tensor place_behind(char **out, int32_t dtype, const attn_tensor *of) {
    const attn_tensor view = view_of(*out, dtype, of->rank, of->shape);
    int64_t count = 0;
    if (attn_tensor_count(&view, &count) != ATTN_OK) {
        abort();
    }
    *out += count * bytes_of(dtype);
    return view;
}

/* The gradients of query, key, value and slopes, behind what attention writes itself. Views are made
 * before, so that a detail stays. */
static attn_status run_backward(const mixed_calls *calls, attn_context *context,
                                const call_row *row, void *memory) {
    attention_call call;
    make_attention(calls, row, memory, &call);
    char *out = (char *)call.lse.data + MIXED_HEADS * row->rows * bytes_of(row->dtype);
    const attn_tensor of_query = place_behind(&out, row->dtype, &call.query);
    const attn_tensor of_key = place_behind(&out, row->dtype, &call.key);
    const attn_tensor of_value = place_behind(&out, row->dtype, &call.value);
    const attn_tensor of_slopes = place_behind(&out, ATTN_DTYPE_FLOAT32, &call.alibi);
    const attn_sdpa_gradients gradients = {
        .struct_size = sizeof gradients,
        .output = &call.output,
        .lse = &call.lse,
        .query = &of_query,
        .key = &of_key,
        .value = &of_value,
        .alibi_slopes = call.params.alibi_slopes != NULL ? &of_slopes : NULL};
    const attn_status status = run_attention(calls, context, row, memory);
    return status != ATTN_OK ? status
                             : attn_sdpa_backward(context, &call.query, &call.key, &call.value,
                                                  &call.params, &call.output, &gradients, NULL, 0);
}

static attn_status run_softmax(const mixed_calls *calls, attn_context *context, const call_row *row,
                               void *memory) {
    const int64_t shape[] = {row->rows, row->keys};
    void *input = calls->inputs[row->dtype == ATTN_DTYPE_FLOAT64];
    const attn_tensor scores = view_of(input, row->dtype, 2, shape);
    const attn_tensor weights = view_of(memory, row->dtype, 2, shape);
    return attn_softmax(context, &scores, NULL, &weights, NULL, 0);
}

/* keys are the features. Of every second one, so that rows are copied. */
static attn_status run_features(const mixed_calls *calls, attn_context *context,
                                const call_row *row, void *memory) {
    const int64_t shape[] = {row->rows, row->keys};
    void *input = calls->inputs[row->dtype == ATTN_DTYPE_FLOAT64];
    attn_tensor from = view_of(input, row->dtype, 2, shape);
    const attn_tensor to = view_of(memory, row->dtype, 2, shape);
    from.strides[1] = 2;
    return row->kind == ROPE ? attn_rope(context, &from, NULL, &to)
                             : attn_rms_norm(context, &from, NULL, &to);
}

/* Parts begin 99 numbers apart, their lses 7. */
static attn_status run_merge(const mixed_calls *calls, attn_context *context, const call_row *row,
                             void *memory) {
    const int64_t shape[] = {row->rows, MIXED_EMBED};
    const int64_t bytes = bytes_of(row->dtype);
    char *input = calls->inputs[row->dtype == ATTN_DTYPE_FLOAT64];
    attn_tensor outputs[MIXED_PARTS], lses[MIXED_PARTS];
    for (int part = 0; part < MIXED_PARTS; ++part) {
        outputs[part] = view_of(input + 99 * part * bytes, row->dtype, 2, shape);
        lses[part] = view_of(input + 7 * part * bytes, row->dtype, 1, shape);
    }
    const attn_tensor output = view_of(memory, row->dtype, 2, shape);
    const attn_tensor lse =
        view_of((char *)memory + row->rows * MIXED_EMBED * bytes, row->dtype, 1, shape);
    return attn_sdpa_merge(context, MIXED_PARTS, outputs, lses, NULL, &output, &lse);
}

attn_status mixed_call_run(const mixed_calls *calls, attn_context *context, const attn_mha *layer,
                           int which, void *memory) {
    const call_row *row = &rows_of_calls[which];
    switch (row->kind) {
    case LAYER:
        return run_layer(calls, context, layer, row, memory);
    case ATTENTION:
        return run_attention(calls, context, row, memory);
    case BACKWARD:
        return run_backward(calls, context, row, memory);
    case ROPE:
    case NORM:
        return run_features(calls, context, row, memory);
    case MERGE:
        return run_merge(calls, context, row, memory);
    default:
        return run_softmax(calls, context, row, memory);
    }
}

/* The bytes that a call writes. */
static size_t result_bytes(int which) {
    const call_row *row = &rows_of_calls[which];
    const int64_t heads = row->kind == ATTENTION || row->kind == BACKWARD ? MIXED_HEADS : 1;
    int64_t values = row->rows * (row->kind >= SOFTMAX ? row->keys : MIXED_EMBED);
    values += (row->options & WEIGHTS) != 0 ? heads * row->rows * row->keys : 0;
    values += (row->options & SCORES) != 0 ? heads * row->rows * row->keys : 0;
    values += (row->options & LSE) != 0 ? heads * row->rows : 0;
    if (row->kind == BACKWARD) {
        const int64_t kv_embed = (row->options & GROUPED) != 0 ? MIXED_EMBED / 2 : MIXED_EMBED;
        values += row->rows * MIXED_EMBED + 2 * row->keys * kv_embed;
    }
    const size_t slopes =
        row->kind == BACKWARD && (row->options & SLOPES) != 0 ? MIXED_HEADS * sizeof(float) : 0;
    return (size_t)(values * bytes_of(row->dtype)) + slopes;
}

bool mixed_call_is_expected(const mixed_calls *calls, int which, const void *memory) {
    return memcmp(memory, calls->expected[which], result_bytes(which)) == 0;
}

int mixed_call_mismatch(const mixed_calls *calls, attn_context *context, int which, void *memory) {
    memset(memory, 0xA5, result_bytes(which));
    return mixed_call_run(calls, context, calls->layer, which, memory) != ATTN_OK ||
           !mixed_call_is_expected(calls, which, memory);
}

void mixed_calls_create(mixed_calls *calls) {
    float *single = malloc(INPUT_VALUES * sizeof *single);
    double *wide = malloc(INPUT_VALUES * sizeof *wide);
    assert_true(single != NULL && wide != NULL);
    for (int i = 0; i < INPUT_VALUES; ++i) {
        wide[i] = sin(0.37 * i) + 0.5 * cos(1.13 * i);
        single[i] = (float)wide[i];
    }
    calls->inputs[0] = single;
    calls->inputs[1] = wide;
    const attn_mha_config config = {
        .struct_size = sizeof config, .embed_dim = MIXED_EMBED, .num_heads = MIXED_HEADS};
    attn_context *alone = mixed_context(1, ATTN_ENGINE_AUTO);
    assert_int_equal(attn_mha_create(alone, &config, &calls->layer), ATTN_OK);
    assert_int_equal(attn_mha_init_parameters(NULL, calls->layer, NULL), ATTN_OK);
    for (int i = 0; i < mixed_calls_count(); ++i) {
        assert_true(result_bytes(i) <= MIXED_MOST_BYTES);
        calls->expected[i] = malloc(MIXED_MOST_BYTES);
        assert_non_null(calls->expected[i]);
        assert_int_equal(mixed_call_run(calls, alone, calls->layer, i, calls->expected[i]),
                         ATTN_OK);
    }
    attn_context_destroy(alone);
}

void mixed_calls_destroy(mixed_calls *calls) {
    attn_mha_destroy(calls->layer);
    for (int i = 0; i < mixed_calls_count(); ++i) {
        free(calls->expected[i]);
    }
    free(calls->inputs[0]);
    free(calls->inputs[1]);
}

static double value_at(int32_t dtype, const void *memory, size_t index) {
    return dtype == ATTN_DTYPE_FLOAT32 ? (double)((const float *)memory)[index]
                                       : ((const double *)memory)[index];
}

double mixed_call_error(const mixed_calls *calls, int which, const void *memory) {
    const int32_t dtype = rows_of_calls[which].dtype;
    const size_t count = result_bytes(which) / (size_t)bytes_of(dtype);
    const double unit = dtype == ATTN_DTYPE_FLOAT32 ? 0x1p-24 : 0x1p-53;
    double largest = 0;
    for (size_t i = 0; i < count; ++i) {
        const double actual = value_at(dtype, memory, i);
        const double expected = value_at(dtype, calls->expected[which], i);
        if (actual == expected || (isnan(actual) && isnan(expected))) {
            continue;
        }
        const double error = fabs(actual - expected) / (1 + fabs(expected)) / unit;
        largest = error <= largest ? largest : isnan(error) ? HUGE_VAL : error;
    }
    return largest;
}
