/* SPDX-License-Identifier: BSD-3-Clause
 *
 * made_mha_cases.c: mha cases of what PyTorch's layer does not have, on random numbers, with what
 * the float64 oracle of the tests makes of them.
 */
#include <attention/attention.h>

#include "case_writer.h"
#include "export_cases.h"
#include "made_tensors.h"
#include "support/oracle_mha.h"

enum { MAX_PARAMETERS = 8, ROWS = 5, KEYS = 7 };

typedef struct made_case {
    const char *name;
    int64_t batch;                            /* 0: unbatched */
    int is_averaged, has_padding, bias_skips; /* leading axes that the bias goes without */
    attn_mha_config config;
} made_case;

static const made_case cases[] = {
    {"made_mha_bias", 2, 0, 1, 0, {.embed_dim = 12, .num_heads = 3}},
    {"made_mha_bias_averaged",
     2,
     1,
     0,
     1,
     {.embed_dim = 12, .num_heads = 3, .no_bias = 1, .add_zero_attn = 1, .batch_first = 1}},
    {"made_mha_bias_unbatched", 0, 1, 1, 0, {.embed_dim = 16, .num_heads = 4, .num_kv_heads = 2}},
    {"made_mha_unbatched_per_head", 0, 0, 0, 1, {.embed_dim = 8, .num_heads = 2}},
    {"made_mha_bfloat16",
     2,
     0,
     1,
     0,
     {.embed_dim = 12, .num_heads = 3, .dtype = ATTN_DTYPE_BFLOAT16}},
    {"made_mha_float16",
     2,
     1,
     1,
     0,
     {.embed_dim = 12,
      .num_heads = 3,
      .dtype = ATTN_DTYPE_FLOAT16,
      .batch_first = 1,
      .parameter_dtype = ATTN_DTYPE_FLOAT32}},
    {"made_mha_float32_of_bfloat16",
     0,
     1,
     1,
     0,
     {.embed_dim = 16, .num_heads = 4, .parameter_dtype = ATTN_DTYPE_BFLOAT16}},
    {"made_mha_float32_of_int8",
     2,
     1,
     0,
     1,
     {.embed_dim = 20, .num_heads = 4, .parameter_dtype = ATTN_DTYPE_INT8}},
};

/* One layer with the tensors of one call. */
typedef struct made_call {
    tensor_pool pool;
    attn_mha_config config;
    oracle_parameter parameters[MAX_PARAMETERS];
    int64_t num_parameters;
    attn_tensor *query, *key, *value;
    attn_sdpa_params attention;
    attn_mha_params params;
} made_call;

/* (N, length, E), (length, N, E) or (length, E). */
static attn_tensor *make_sequence(const made_case *made, made_call *call, random_state *random,
                                  int64_t length) {
    const int64_t n = made->batch, e = made->config.embed_dim;
    const int64_t batch_first[] = {n, length, e}, sequence_first[] = {length, n, e};
    const int64_t *shape = made->config.batch_first ? batch_first : sequence_first;
    const int64_t unbatched[] = {length, e};
    return n == 0 ? made_input(&call->pool, random, call->config.dtype, 2, unbatched)
                  : made_input(&call->pool, random, call->config.dtype, 3, shape);
}

/* Small enough that softmax does not choose one key for each row. */
static void make_parameters(made_call *call, random_state *random) {
    attn_mha *layer = NULL;
    if (attn_mha_create(NULL, &call->config, &layer) != ATTN_OK ||
        attn_mha_parameter_count(layer, &call->num_parameters) != ATTN_OK) {
        export_fail("cannot make", "layer", attn_last_error());
    }
    for (int64_t i = 0; i < call->num_parameters; ++i) {
        oracle_parameter *parameter = &call->parameters[i];
        attn_tensor shape;
        if (attn_mha_parameter_describe(layer, i, &parameter->name, &shape) != ATTN_OK) {
            export_fail("cannot describe", "parameter", attn_last_error());
        }
        attn_tensor *values =
            pool_input(&call->pool, shape.dtype, shape.rank, shape.shape, LAYOUT_CONTIGUOUS);
        random_fill(values, random, -0.5, 0.5, 0);
        parameter->values = *values;
    }
    attn_mha_destroy(layer);
}

static void make_masks(const made_case *made, made_call *call, random_state *random) {
    const int64_t scores[] = {made->batch, made->config.num_heads, ROWS, KEYS};
    const int64_t padding[] = {made->batch, KEYS};
    const int skipped = made->batch == 0, bias_skipped = skipped + made->bias_skips;
    attn_tensor *bias = made_input(&call->pool, random, call->config.dtype, 4 - bias_skipped,
                                   scores + bias_skipped);
    made_hide(bias, random, 0.25);
    call->attention.bias = bias;
    if (made->has_padding) {
        attn_tensor *mask = pool_input(&call->pool, ATTN_DTYPE_BOOL, 2 - skipped, padding + skipped,
                                       LAYOUT_CONTIGUOUS);
        random_fill_bool(mask, random, 0.75);
        call->params.key_padding_mask = mask;
        call->params.key_padding_mask_kind = ATTN_MASK_BOOL_EXCLUDE;
    }
}

static void make_call(const made_case *made, uint64_t seed, made_call *call) {
    random_state random = random_seeded(seed);
    *call = (made_call){.config = made->config,
                        .attention = {.struct_size = sizeof call->attention},
                        .params = {.struct_size = sizeof call->params}};
    call->config.struct_size = sizeof call->config;
    if (made->config.dtype == 0) {
        call->config.dtype = ATTN_DTYPE_FLOAT32;
    }
    call->params.attention = &call->attention;
    make_parameters(call, &random);
    call->query = make_sequence(made, call, &random, ROWS);
    call->key = make_sequence(made, call, &random, KEYS);
    call->value = make_sequence(made, call, &random, KEYS);
    make_masks(made, call, &random);
}

static void write_options(FILE *file, const attn_mha_config *config) {
    case_write_line(file, "option embed_dim %lld", (long long)config->embed_dim);
    case_write_line(file, "option num_heads %lld", (long long)config->num_heads);
    case_write_line(file, "option num_kv_heads %lld", (long long)config->num_kv_heads);
    case_write_line(file, "option no_bias %d", config->no_bias);
    case_write_line(file, "option add_zero_attn %d", config->add_zero_attn);
    case_write_line(file, "option batch_first %d", config->batch_first);
    if (config->parameter_dtype != 0) {
        case_write_line(file, "option parameter_dtype %s",
                        case_dtype_name(config->parameter_dtype));
    }
}

static void write_inputs(FILE *file, const made_call *call) {
    char name[64];
    case_write_tensor(file, "query", call->query);
    case_write_tensor(file, "key", call->key);
    case_write_tensor(file, "value", call->value);
    case_write_tensor(file, "bias", call->attention.bias);
    if (call->params.key_padding_mask != NULL) {
        case_write_tensor(file, "key_padding_mask", call->params.key_padding_mask);
    }
    for (int64_t i = 0; i < call->num_parameters; ++i) {
        snprintf(name, sizeof name, "parameter.%s", call->parameters[i].name);
        case_write_tensor(file, name, &call->parameters[i].values);
    }
}

/* The oracle's output is batch-major: (L, N, E) is its transpose. */
static void write_output(FILE *file, const made_case *made, const oracle_array *output) {
    const int64_t n = made->batch == 0 ? 1 : made->batch, e = made->config.embed_dim;
    const int64_t batch_first[] = {made->batch, ROWS, e}, sequence_first[] = {ROWS, made->batch, e};
    const int skipped = made->batch == 0;
    if (made->config.batch_first || skipped) {
        made_result(file, "attn_output", made->config.dtype, 3 - skipped, batch_first + skipped,
                    output);
        return;
    }
    oracle_array transposed = oracle_array_create(output->count);
    for (int64_t at = 0; at < output->count; ++at) {
        const int64_t feature = at % e, row = at / e % ROWS, batch = at / e / ROWS;
        const int64_t to = (row * n + batch) * e + feature;
        transposed.value[to] = output->value[at];
        transposed.error[to] = output->error[at];
    }
    made_result(file, "attn_output", made->config.dtype, 3, sequence_first, &transposed);
    oracle_array_destroy(&transposed);
}

static void write_weights(FILE *file, const made_case *made, const oracle_result *result) {
    const int64_t columns = KEYS + made->config.add_bias_kv + made->config.add_zero_attn;
    const int64_t per_head[] = {made->batch, made->config.num_heads, ROWS, columns};
    const int64_t averaged[] = {made->batch, ROWS, columns};
    const int skipped = made->batch == 0;
    case_write_line(file, "option average_attn_weights %d", made->is_averaged);
    if (made->is_averaged) {
        made_result(file, "attn_weights", made->config.dtype, 3 - skipped, averaged + skipped,
                    &result->average_weights);
    } else {
        made_result(file, "attn_weights", made->config.dtype, 4 - skipped, per_head + skipped,
                    &result->weights);
    }
}

static void export_made(const export_folder *folder, const made_case *made, uint64_t seed) {
    made_call call;
    make_call(made, seed, &call);
    oracle_mha_result result = oracle_mha(&call.config, call.parameters, call.num_parameters,
                                          call.query, call.key, call.value, &call.params);
    FILE *file = export_open(folder, made->name);
    case_write_line(file, "call mha");
    write_options(file, &call.config);
    write_inputs(file, &call);
    write_output(file, made, &result.output);
    write_weights(file, made, &result.inner);
    export_close(file, made->name);
    oracle_mha_result_destroy(&result);
    pool_destroy(&call.pool);
}

void export_made_mha_cases(const export_folder *folder) {
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        export_made(folder, &cases[i], 100 + i);
    }
}
