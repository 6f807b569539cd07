/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_case_parameters.c: gives the layer of a case its parameters: under which names, copied or
 * bound, in which layout.
 */
#include <stdio.h>

#include "attention_options.h"
#include "mha_case.h"

typedef struct parameter_source {
    const factor_case *chosen;
    random_state *random;
    mha_call *call;
} parameter_source;

static enum tensor_layout storage_layout(int level, int number) {
    switch (level) {
    case STORAGE_COPIED_STRIDED:
        return number % 2 ? LAYOUT_STEP_TWO : LAYOUT_TRANSPOSED;
    case STORAGE_BOUND_TRANSPOSED:
        return LAYOUT_TRANSPOSED;
    case STORAGE_BOUND_REVERSED:
        return LAYOUT_REVERSED;
    case STORAGE_BOUND_UNALIGNED:
        return LAYOUT_UNALIGNED;
    default:
        return LAYOUT_CONTIGUOUS;
    }
}

static int is_bound(int level, int number) {
    return level >= STORAGE_BOUND && (level != STORAGE_MIXED || number % 2 == 1);
}

int32_t mha_parameter_dtype(int level, int32_t own) {
    return level == PARAMETERS_INT8 ? ATTN_DTYPE_INT8 : stored_dtype(level, own);
}

/* A weight's integers, and a scale for each row of them: a vector or a column. */
static void add_integers(const parameter_source *source, const char *name, const int64_t *shape,
                         enum tensor_layout layout) {
    static const int32_t dtypes[] = {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_FLOAT64, ATTN_DTYPE_FLOAT16,
                                     ATTN_DTYPE_BFLOAT16};
    const int number = source->call->num_parameters++;
    const int64_t scale_shape[] = {shape[0], 1};
    const attn_tensor *values = pool_input(&source->call->pool, ATTN_DTYPE_INT8, 2, shape, layout);
    const attn_tensor *scale =
        pool_input(&source->call->pool, dtypes[number % 4], 1 + number % 2, scale_shape, layout);
    random_fill_integers(values, source->random, -128, 127);
    random_fill(scale, source->random, 0.001, 0.004, 0);
    source->call->parameters[number] = (oracle_parameter){name, *values, *scale};
}

static void add_parameter_around(const parameter_source *source, const char *name, int32_t rank,
                                 const int64_t *shape, double middle) {
    const int level = source->chosen->level[MHA_STORAGE], number = source->call->num_parameters;
    static const int32_t others[] = {ATTN_DTYPE_FLOAT64, ATTN_DTYPE_FLOAT32, ATTN_DTYPE_FLOAT16,
                                     ATTN_DTYPE_BFLOAT16};
    const int32_t kept = mha_parameter_dtype(source->chosen->level[MHA_PARAMETER_TYPE],
                                             dtype_of_case(source->chosen));
    const int is_int8 = kept == ATTN_DTYPE_INT8 && rank == 2;
    if (is_int8 && level != STORAGE_COPIED_CONVERTED && number % 2 == 0) {
        add_integers(source, name, shape, storage_layout(level, number));
        return;
    }
    const int32_t own = kept == ATTN_DTYPE_INT8 ? ATTN_DTYPE_FLOAT32 : kept;
    const int32_t other = others[number % 4] != own ? others[number % 4] : others[(number + 1) % 4];
    const int32_t dtype = level == STORAGE_COPIED_CONVERTED ? other : own;
    const attn_tensor *values =
        pool_input(&source->call->pool, dtype, rank, shape, storage_layout(level, number));
    random_fill(values, source->random, middle - 0.5, middle + 0.5, 0);
    source->call->parameters[number] = (oracle_parameter){.name = name, .values = *values};
    source->call->is_bound[number] = is_bound(level, number) && !is_int8;
    ++source->call->num_parameters;
}

static void add_parameter(const parameter_source *source, const char *name, int32_t rank,
                          const int64_t *shape) {
    add_parameter_around(source, name, rank, shape, 0);
}

static void add_matrix(const parameter_source *source, const char *name, int64_t rows,
                       int64_t columns) {
    add_parameter(source, name, 2, (const int64_t[]){rows, columns});
}

static void add_vector(const parameter_source *source, const char *name, int64_t length) {
    add_parameter(source, name, 1, &length);
}

void mha_case_parameters(const factor_case *chosen, random_state *random, mha_call *call) {
    const oracle_mha_sizes s = oracle_mha_resolve(&call->config);
    const parameter_source source = {chosen, random, call};
    const int names = chosen->level[MHA_NAMES];
    if (s.is_packed && names == NAMES_STATE_DICT) {
        add_matrix(&source, "in_proj_weight", s.query_rows + s.key_rows + s.value_rows,
                   s.embed_dim);
    } else {
        add_matrix(&source, "q_proj_weight", s.query_rows, s.qdim);
        add_matrix(&source, "k_proj_weight", s.key_rows, s.kdim);
        add_matrix(&source, "v_proj_weight", s.value_rows, s.vdim);
    }
    if (s.has_bias && names != NAMES_SEPARATE) {
        add_vector(&source, "in_proj_bias", s.query_rows + s.key_rows + s.value_rows);
    } else if (s.has_bias) {
        add_vector(&source, "q_proj_bias", s.query_rows);
        add_vector(&source, "k_proj_bias", s.key_rows);
        add_vector(&source, "v_proj_bias", s.value_rows);
    }
    if (call->config.add_bias_kv) {
        add_parameter(&source, "bias_k", 3, (const int64_t[]){1, 1, s.key_rows});
        add_parameter(&source, "bias_v", 3, (const int64_t[]){1, 1, s.value_rows});
    }
    add_matrix(&source, "out_proj.weight", s.embed_dim, s.num_heads * s.value_head_dim);
    if (s.has_bias) {
        add_vector(&source, "out_proj.bias", s.embed_dim);
    }
    if (call->config.qk_norm != ATTN_QK_NORM_NONE) {
        const int is_of_head = call->config.qk_norm == ATTN_QK_NORM_HEAD;
        const double middle = 1 - call->config.qk_norm_weight_offset;
        add_parameter_around(&source, "q_norm.weight", 1, is_of_head ? &s.head_dim : &s.query_rows,
                             middle);
        add_parameter_around(&source, "k_norm.weight", 1, is_of_head ? &s.head_dim : &s.key_rows,
                             middle);
    }
}

attn_mha *mha_call_layer(const mha_call *call, call_outcome *outcome) {
    attn_mha *layer = NULL;
    int failed =
        call_failed("attn_mha_create", attn_mha_create(NULL, &call->config, &layer), outcome);
    for (int i = 0; i < call->num_parameters && !failed; ++i) {
        const oracle_parameter *parameter = &call->parameters[i];
        const int has_scale = parameter->values.dtype == ATTN_DTYPE_INT8;
        const attn_mha_load_params params = {.struct_size = sizeof params,
                                             .scale = has_scale ? &parameter->scale : NULL};
        const attn_status status =
            call->is_bound[i] ? attn_mha_bind_parameter(layer, parameter->name, &parameter->values)
                              : attn_mha_load_parameter(NULL, layer, parameter->name,
                                                        &parameter->values, &params);
        failed = call_failed(parameter->name, status, outcome);
    }
    if (failed) {
        attn_mha_destroy(layer);
        return NULL;
    }
    return layer;
}
