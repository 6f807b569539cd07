/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_mha.c: multi-head attention as its formula reads, carrying the error bounds from
 * projection to projection.
 */
#include "support/oracle_mha.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/oracle_mha_layer.h"
#include "support/oracle_parameters.h"
#include "support/oracle_positions.h"

oracle_mha_sizes oracle_mha_resolve(const attn_mha_config *config) {
    oracle_mha_sizes s = {.embed_dim = config->embed_dim, .num_heads = config->num_heads};
    s.num_kv_heads = config->num_kv_heads != 0 ? config->num_kv_heads : s.num_heads;
    s.head_dim = config->head_dim != 0 ? config->head_dim : s.embed_dim / s.num_heads;
    s.value_head_dim = config->value_head_dim != 0 ? config->value_head_dim : s.head_dim;
    s.qdim = config->qdim != 0 ? config->qdim : s.embed_dim;
    s.kdim = config->kdim != 0 ? config->kdim : s.embed_dim;
    s.vdim = config->vdim != 0 ? config->vdim : s.embed_dim;
    s.query_rows = s.num_heads * s.head_dim;
    s.key_rows = s.num_kv_heads * s.head_dim;
    s.value_rows = s.num_kv_heads * s.value_head_dim;
    s.extra_keys = config->add_bias_kv + config->add_zero_attn;
    s.dtype = config->dtype != 0 ? config->dtype : ATTN_DTYPE_FLOAT32;
    s.parameter_dtype = config->parameter_dtype != 0 ? config->parameter_dtype : s.dtype;
    s.has_bias = !config->no_bias;
    s.is_packed = s.qdim == s.embed_dim && s.kdim == s.embed_dim && s.vdim == s.embed_dim;
    return s;
}

double *oracle_layer_parameter(const oracle_layer *l, const char *name) {
    for (int64_t p = 0; p < l->num_parameters; ++p) {
        if (strcmp(l->parameters[p].name, name) == 0) {
            const attn_tensor *values = &l->parameters[p].values;
            double *found = oracle_expand(values, values->rank, values->shape);
            oracle_keep_parameter(&l->parameters[p], l->sizes.parameter_dtype, found);
            return found;
        }
    }
    return NULL;
}

double *oracle_layer_part(const oracle_layer *l, const char *own_name, const char *packed_name,
                          int64_t start, int64_t count) {
    double *own = oracle_layer_parameter(l, own_name);
    double *packed = own == NULL ? oracle_layer_parameter(l, packed_name) : NULL;
    if (packed == NULL) {
        return own;
    }
    double *part = oracle_allocate(count, sizeof *part);
    memcpy(part, packed + start, (size_t)count * sizeof *part);
    free(packed);
    return part;
}

/* y[row, r] = sum over c of x[row, c] weight[r, c] + bias[r]. The terms are added to the bias one by
 * one; integers' sum is rounded once more, times its scale, before the bias is. */
static oracle_array project(const oracle_layer *l, const oracle_array *x, int64_t columns,
                            const double *weight, const double *bias, int64_t outputs) {
    const int64_t terms = columns + (l->sizes.parameter_dtype == ATTN_DTYPE_INT8 ? 2 : 1);
    const int64_t rows = columns > 0 ? x->count / columns : 0;
    oracle_array y = oracle_array_create(rows * outputs);
    for (int64_t at = 0; at < rows * outputs; ++at) {
        const int64_t row = at / outputs, r = at % outputs;
        double sum = bias != NULL ? bias[r] : 0, magnitude = fabs(sum), propagated = 0;
        for (int64_t c = 0; c < columns; ++c) {
            const double w = weight[r * columns + c], v = x->value[row * columns + c],
                         v_error = x->error[row * columns + c];
            sum += w * v;
            magnitude += fabs(w) * (fabs(v) + v_error);
            propagated += fabs(w) * v_error;
        }
        y.value[at] = sum;
        y.error[at] = propagated + bound_dot(l->rounding, terms, magnitude);
    }
    return y;
}

attn_tensor oracle_batch_major(const attn_tensor *tensor, int batch_first) {
    attn_tensor view = *tensor;
    if (tensor->rank == 2) {
        view.rank = 3;
        for (int32_t axis = 0; axis < 2; ++axis) {
            view.shape[axis + 1] = tensor->shape[axis];
            view.strides[axis + 1] = tensor->strides[axis];
        }
        view.shape[0] = 1;
    } else if (!batch_first) {
        view.shape[0] = tensor->shape[1];
        view.strides[0] = tensor->strides[1];
        view.shape[1] = tensor->shape[0];
        view.strides[1] = tensor->strides[0];
    }
    return view;
}

oracle_array oracle_layer_project(const oracle_layer *l, const attn_tensor *input,
                                  oracle_projection names, int64_t start, int64_t outputs) {
    const int64_t columns = input->shape[2];
    double *weight =
        oracle_layer_part(l, names.weight, "in_proj_weight", start * columns, outputs * columns);
    double *bias = oracle_layer_part(l, names.bias, "in_proj_bias", start, outputs);
    oracle_array x = oracle_array_create(oracle_count(3, input->shape));
    free(x.value);
    x.value = oracle_expand(input, 3, input->shape);
    const oracle_array y = project(l, &x, columns, weight, bias, outputs);
    oracle_array_destroy(&x);
    free(weight);
    free(bias);
    return y;
}

/*
 * (N, length, own_heads * width) -> (N, heads, all_length, width), where head h reads own head h /
 * (heads / own_heads) and the positions past `length` are left alone.
 */
static void split_heads(const oracle_array *from, const oracle_problem *p, int64_t length,
                        int64_t all_length, int64_t own_heads, int64_t width, oracle_array *to) {
    for (int64_t bh = 0; bh < p->batches * p->heads; ++bh) {
        const int64_t batch = bh / p->heads, own_head = bh % p->heads / (p->heads / own_heads);
        for (int64_t at = 0; at < length * width; ++at) {
            const int64_t position = at / width, d = at % width;
            const int64_t source = ((batch * length + position) * own_heads + own_head) * width + d;
            to->value[bh * all_length * width + at] = from->value[source];
            to->error[bh * all_length * width + at] = from->error[source];
        }
    }
}

/* The column of bias_k or bias_v; that of zero attention stays zero. */
static void append_bias(const double *bias, const oracle_problem *p, int64_t own_heads,
                        int64_t width, oracle_array *to) {
    const int64_t all_keys = p->keys + p->extra_keys;
    for (int64_t bh = 0; bh < p->batches * p->heads; ++bh) {
        const int64_t own_head = bh % p->heads / (p->heads / own_heads);
        for (int64_t d = 0; d < width; ++d) {
            to->value[(bh * all_keys + p->keys) * width + d] = bias[own_head * width + d];
        }
    }
}

/* Projected queries or keys, (N, length, heads * head_dim), as they meet. */
static void place_rows(const oracle_layer *l, const char *norm, int64_t batches, int64_t length,
                       int64_t heads, oracle_array *numbers) {
    const oracle_rows rows = {numbers, batches, length, heads, l->sizes.head_dim, l->rounding};
    double *weight = oracle_layer_parameter(l, norm);
    if (weight != NULL) {
        oracle_normalize_rows(l->config, weight, &rows);
    }
    free(weight);
    if (l->rope != NULL) {
        oracle_rotate_rows(l->rope, l->is_batched, &rows);
    }
}

static void project_inputs(const oracle_layer *l, const attn_tensor *query, const attn_tensor *key,
                           const attn_tensor *value, oracle_problem *p) {
    const oracle_mha_sizes *s = &l->sizes;
    const int64_t all_keys = p->keys + p->extra_keys, value_start = s->query_rows + s->key_rows;
    const oracle_projection query_names = {"q_proj_weight", "q_proj_bias"};
    const oracle_projection key_names = {"k_proj_weight", "k_proj_bias"};
    const oracle_projection value_names = {"v_proj_weight", "v_proj_bias"};
    oracle_array q = oracle_layer_project(l, query, query_names, 0, s->query_rows);
    oracle_array k = oracle_layer_project(l, key, key_names, s->query_rows, s->key_rows);
    oracle_array v = oracle_layer_project(l, value, value_names, value_start, s->value_rows);
    place_rows(l, "q_norm.weight", p->batches, p->rows, s->num_heads, &q);
    place_rows(l, "k_norm.weight", p->batches, p->keys, s->num_kv_heads, &k);
    split_heads(&q, p, p->rows, p->rows, s->num_heads, s->head_dim, &p->query);
    split_heads(&k, p, p->keys, all_keys, s->num_kv_heads, s->head_dim, &p->key);
    split_heads(&v, p, p->keys, all_keys, s->num_kv_heads, s->value_head_dim, &p->value);
    oracle_array_destroy(&q);
    oracle_array_destroy(&k);
    oracle_array_destroy(&v);

    double *bias_k = oracle_layer_parameter(l, "bias_k"),
           *bias_v = oracle_layer_parameter(l, "bias_v");
    if (bias_k != NULL) {
        append_bias(bias_k, p, s->num_kv_heads, s->head_dim, &p->key);
        append_bias(bias_v, p, s->num_kv_heads, s->value_head_dim, &p->value);
    }
    free(bias_k);
    free(bias_v);
}

/* A mask (N * H, L, S) as (N, H, L, S); other ranks broadcast as they are. */
static attn_tensor layer_mask_view(const attn_tensor *mask, int64_t num_heads) {
    attn_tensor view = *mask;
    if (mask->rank == 3) {
        view.rank = 4;
        view.shape[0] = mask->shape[0] / num_heads;
        view.strides[0] = mask->strides[0] * num_heads;
        view.shape[1] = num_heads;
        view.strides[1] = mask->strides[0];
        for (int32_t axis = 1; axis < 3; ++axis) {
            view.shape[axis + 1] = mask->shape[axis];
            view.strides[axis + 1] = mask->strides[axis];
        }
    }
    return view;
}

/* A key_padding_mask (N, S) or (S) as (N, 1, 1, S). */
static attn_tensor padding_mask_view(const attn_tensor *mask) {
    const int32_t last = mask->rank - 1;
    attn_tensor view = {.data = mask->data, .dtype = mask->dtype, .rank = 4};
    view.shape[0] = mask->rank == 2 ? mask->shape[0] : 1;
    view.strides[0] = mask->rank == 2 ? mask->strides[0] : 0;
    view.shape[1] = view.shape[2] = 1;
    view.shape[3] = mask->shape[last];
    view.strides[3] = mask->strides[last];
    return view;
}

/* Which keys a key_padding_mask hides, from the mask as (N, 1, 1, S). */
static void mark_padding(int32_t kind, const attn_tensor *mask, oracle_problem *p) {
    const int64_t padding[] = {p->batches, 1, 1, p->keys};
    oracle_mask hidden = oracle_mask_create(p->batches * p->keys);
    oracle_mask_add(&hidden, kind, mask, 4, padding);
    for (int64_t at = 0; at < p->batches * p->keys; ++at) {
        p->is_padding[at] = hidden.bias[at] == -INFINITY;
    }
    oracle_mask_destroy(&hidden);
}

static void apply_masks(const attn_mha_params *params, oracle_problem *p) {
    const int64_t scores[] = {p->batches, p->heads, p->rows, p->keys};
    const attn_sdpa_params *inner = params->attention;
    if (inner != NULL && inner->mask != NULL) {
        const attn_tensor mask = layer_mask_view(inner->mask, p->heads);
        oracle_problem_add_mask(p, inner->mask_kind, &mask, 4, scores);
    }
    if (inner != NULL && inner->bias != NULL) {
        oracle_mask_add(&p->mask, ATTN_MASK_ADDITIVE, inner->bias, 4, scores);
    }
    oracle_problem_add_position_bias(p, inner);
    if (params->key_padding_mask != NULL) {
        const attn_tensor mask = padding_mask_view(params->key_padding_mask);
        oracle_mask_add(&p->mask, params->key_padding_mask_kind, &mask, 4, scores);
    }
}

/* What hides keys whatever they hold; the window is in the options that need no broadcasting. */
static void apply_sight(const attn_mha_params *params, oracle_problem *p) {
    const attn_sdpa_params *inner = params->attention;
    if (params->key_padding_mask != NULL) {
        const attn_tensor mask = padding_mask_view(params->key_padding_mask);
        mark_padding(params->key_padding_mask_kind, &mask, p);
    }
    if (inner != NULL && inner->query_offset != NULL) {
        free(p->query_offset);
        p->query_offset = oracle_expand_integers(inner->query_offset, 1, &p->batches);
    }
    if (inner != NULL && inner->key_lengths != NULL) {
        free(p->key_lengths);
        p->key_lengths = oracle_expand_integers(inner->key_lengths, 1, &p->batches);
    }
    if (inner != NULL && inner->align_end) {
        oracle_problem_align_end(p);
    }
    if (inner != NULL && inner->mask_start != NULL) {
        p->mask_start = oracle_expand_integers(inner->mask_start, 1, &p->batches);
        p->mask_columns = inner->mask->shape[inner->mask->rank - 1];
    }
    const int64_t lead[] = {p->batches, p->heads};
    oracle_problem_set_blocks(p, inner, 2, lead);
}

/* (N, H, L, Dv) -> (N, L, H * Dv) */
static oracle_array merge_heads(const oracle_problem *p, const oracle_array *context) {
    oracle_array merged = oracle_array_create(context->count);
    const int64_t width = p->value_features;
    for (int64_t at = 0; at < context->count; ++at) {
        const int64_t d = at % width, i = at / width % p->rows, bh = at / width / p->rows;
        const int64_t to = ((bh / p->heads * p->rows + i) * p->heads + bh % p->heads) * width + d;
        merged.value[to] = context->value[at];
        merged.error[to] = context->error[at];
    }
    return merged;
}

static oracle_array project_output(const oracle_layer *l, const oracle_problem *p,
                                   const oracle_array *context) {
    oracle_array merged = merge_heads(p, context);
    double *weight = oracle_layer_parameter(l, "out_proj.weight"),
           *bias = oracle_layer_parameter(l, "out_proj.bias");
    const oracle_array output =
        project(l, &merged, p->heads * p->value_features, weight, bias, l->sizes.embed_dim);
    oracle_array_destroy(&merged);
    free(weight);
    free(bias);
    return output;
}

oracle_layer oracle_layer_of(const attn_mha_config *config, const oracle_parameter *parameters,
                             int64_t num_parameters, const attn_tensor *query,
                             const attn_mha_params *params) {
    oracle_layer l = {.sizes = oracle_mha_resolve(config),
                      .config = config,
                      .rope = params != NULL ? params->rope : NULL,
                      .is_batched = query->rank == 3,
                      .parameters = parameters,
                      .num_parameters = num_parameters};
    l.rounding = bound_rounding_of(l.sizes.dtype);
    return l;
}

oracle_problem oracle_layer_problem(const oracle_layer *l, const attn_tensor *query,
                                    const attn_tensor *key, const attn_tensor *value,
                                    const attn_mha_params *params) {
    oracle_problem problem = {
        .batches = query->shape[0],
        .heads = l->sizes.num_heads,
        .rows = query->shape[1],
        .keys = key->shape[1],
        .extra_keys = l->sizes.extra_keys,
        .features = l->sizes.head_dim,
        .value_features = l->sizes.value_head_dim,
        .rounding = l->rounding,
    };
    oracle_problem_allocate(&problem);
    oracle_problem_set_options(&problem, params != NULL ? params->attention : NULL);
    project_inputs(l, query, key, value, &problem);
    if (params != NULL) {
        apply_sight(params, &problem);
        apply_masks(params, &problem);
    }
    return problem;
}

oracle_mha_result oracle_mha(const attn_mha_config *config, const oracle_parameter *parameters,
                             int64_t num_parameters, const attn_tensor *query,
                             const attn_tensor *key, const attn_tensor *value,
                             const attn_mha_params *params) {
    const oracle_layer l = oracle_layer_of(config, parameters, num_parameters, query, params);
    const attn_tensor q = oracle_batch_major(query, config->batch_first);
    const attn_tensor k = oracle_batch_major(key, config->batch_first);
    const attn_tensor v = oracle_batch_major(value, config->batch_first);
    oracle_problem problem = oracle_layer_problem(&l, &q, &k, &v, params);
    oracle_mha_result result = {.inner = oracle_attention(&problem)};
    result.output = project_output(&l, &problem, &result.inner.output);
    oracle_problem_destroy(&problem);
    return result;
}

void oracle_mha_result_destroy(oracle_mha_result *result) {
    oracle_array_destroy(&result->output);
    oracle_result_destroy(&result->inner);
}

unsigned char *oracle_mha_hidden_keys(const attn_mha_config *config, const attn_tensor *query,
                                      const attn_tensor *key, const attn_mha_params *params) {
    /* Without features there is nothing in it but who may see what. */
    oracle_problem problem = {
        .batches = oracle_batch_major(query, config->batch_first).shape[0],
        .heads = config->num_heads,
        .rows = oracle_batch_major(query, config->batch_first).shape[1],
        .keys = oracle_batch_major(key, config->batch_first).shape[1],
    };
    oracle_problem_allocate(&problem);
    oracle_problem_set_options(&problem, params != NULL ? params->attention : NULL);
    if (params != NULL) {
        apply_sight(params, &problem);
    }
    unsigned char *hidden = oracle_hidden_keys(&problem);
    oracle_problem_destroy(&problem);
    return hidden;
}
