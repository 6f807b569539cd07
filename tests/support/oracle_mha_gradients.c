/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_mha_gradients.c: from the output back to the inputs, each step with its error bound.
 */
#include "support/oracle_mha_gradients.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/oracle_mha_layer.h"
#include "support/oracle_positions.h"
#include "support/oracle_tensor.h"

/* A sum of products on its way. */
typedef struct running {
    double value, error, magnitude;
    int64_t terms;
} running;

static void add(running *sum, double x, double x_error, double y, double y_error) {
    sum->value += x * y;
    sum->error += bound_product(x, x_error, y, y_error);
    sum->magnitude += (fabs(x) + x_error) * (fabs(y) + y_error);
    ++sum->terms;
}

static void finish(bound_rounding rounding, const running *sum, oracle_array *to, int64_t at) {
    to->value[at] = sum->value;
    to->error[at] =
        sum->error + (sum->terms > 0 ? bound_dot(rounding, sum->terms, sum->magnitude) : 0);
}

static oracle_array exact(const attn_tensor *tensor) {
    oracle_array array = oracle_array_create(oracle_count(tensor->rank, tensor->shape));
    free(array.value);
    array.value = oracle_expand(tensor, tensor->rank, tensor->shape);
    return array;
}

/* dx = dy W of rows of dy, which has `out` columns. */
static oracle_array rows_back(bound_rounding rounding, const oracle_array *dy, int64_t out,
                              const double *weight, int64_t in) {
    const int64_t rows = dy->count / out;
    oracle_array dx = oracle_array_create(rows * in);
    for (int64_t at = 0; at < rows * in; ++at) {
        running sum = {0};
        for (int64_t o = 0; o < out; ++o) {
            const int64_t from = at / in * out + o;
            add(&sum, dy->value[from], dy->error[from], weight[o * in + at % in], 0);
        }
        finish(rounding, &sum, &dx, at);
    }
    return dx;
}

/* Rows whose gradient is certainly 0 are in no sum, whatever x holds. */
static oracle_array weight_back(bound_rounding rounding, const oracle_array *dy, int64_t out,
                                const oracle_array *x, int64_t in) {
    const int64_t rows = dy->count / out;
    oracle_array dw = oracle_array_create(out * in);
    for (int64_t at = 0; at < out * in; ++at) {
        running sum = {0};
        for (int64_t row = 0; row < rows; ++row) {
            const int64_t from = row * out + at / in, with = row * in + at % in;
            add(&sum, dy->value[from], dy->error[from], x->value[with], x->error[with]);
        }
        finish(rounding, &sum, &dw, at);
    }
    return dw;
}

static oracle_array bias_back(bound_rounding rounding, const oracle_array *dy, int64_t out) {
    oracle_array db = oracle_array_create(out);
    for (int64_t o = 0; o < out; ++o) {
        running sum = {0};
        for (int64_t row = 0; row < dy->count / out; ++row) {
            add(&sum, dy->value[row * out + o], dy->error[row * out + o], 1, 0);
        }
        finish(rounding, &sum, &db, o);
    }
    return db;
}

/* ---- heads ---- */

/* (N, L, heads * width) -> (N, heads, L, width) */
static oracle_array split(const oracle_array *from, int64_t batches, int64_t rows, int64_t heads,
                          int64_t width) {
    oracle_array to = oracle_array_create(from->count);
    for (int64_t at = 0; at < to.count; ++at) {
        const int64_t d = at % width, row = at / width % rows, head = at / width / rows % heads;
        const int64_t batch = at / width / rows / heads;
        const int64_t source = ((batch * rows + row) * heads + head) * width + d;
        to.value[at] = from->value[source];
        to.error[at] = from->error[source];
    }
    (void)batches;
    return to;
}

/* (N, heads, all_rows, width) -> (N, rows, own_heads * width): heads that share one are added. */
static oracle_array merge(const oracle_problem *p, const oracle_array *from, int64_t all_rows,
                          int64_t rows, int64_t own_heads, int64_t width) {
    const int64_t group = p->heads / own_heads;
    oracle_array to = oracle_array_create(p->batches * rows * own_heads * width);
    for (int64_t at = 0; at < to.count; ++at) {
        const int64_t d = at % width, head = at / width % own_heads;
        const int64_t row = at / width / own_heads % rows, batch = at / width / own_heads / rows;
        running sum = {0};
        for (int64_t h = head * group; h < (head + 1) * group; ++h) {
            const int64_t source = ((batch * p->heads + h) * all_rows + row) * width + d;
            add(&sum, from->value[source], from->error[source], 1, 0);
        }
        finish(p->rounding, &sum, &to, at);
    }
    return to;
}

/* That of bias_k or bias_v, the first of the extra columns: (own_heads * width). */
static oracle_array extra_back(const oracle_problem *p, const oracle_array *from, int64_t own_heads,
                               int64_t width) {
    const int64_t group = p->heads / own_heads, all_rows = p->keys + p->extra_keys;
    oracle_array to = oracle_array_create(own_heads * width);
    for (int64_t at = 0; at < to.count; ++at) {
        running sum = {0};
        for (int64_t use = 0; use < p->batches * group; ++use) {
            const int64_t head = at / width * group + use % group, batch = use / group;
            const int64_t source =
                ((batch * p->heads + head) * all_rows + p->keys) * width + at % width;
            add(&sum, from->value[source], from->error[source], 1, 0);
        }
        finish(p->rounding, &sum, &to, at);
    }
    return to;
}

/* ---- positions ---- */

typedef struct between {
    double value, error;
} between;

/* 1 / rms of a row that is off. */
static between inverse_root(const oracle_array *x, int64_t first, int64_t width, double epsilon) {
    double low = 0, middle = 0, high = 0;
    for (int64_t j = first; j < first + width; ++j) {
        const double size = fabs(x->value[j]), less = fmax(size - x->error[j], 0);
        low += less * less;
        middle += size * size;
        high += (size + x->error[j]) * (size + x->error[j]);
    }
    const double n = (double)width, value = 1 / sqrt(middle / n + epsilon);
    return (between){
        value, fmax(1 / sqrt(low / n + epsilon) - value, value - 1 / sqrt(high / n + epsilon)) +
                   (n + 8) * DBL_EPSILON * value};
}

static int is_zero(const oracle_array *array, int64_t first, int64_t width) {
    for (int64_t j = first; j < first + width; ++j) {
        if (array->value[j] != 0 || array->error[j] != 0) {
            return 0;
        }
    }
    return 1;
}

/* One row: dy becomes dx, sums grow. The library computes it in float64 from what is off. */
static void norm_row_back(const oracle_layer *l, const double *weight, const oracle_array *x,
                          oracle_array *dy, int64_t first, int64_t width, double epsilon,
                          running *sums) {
    const between root = inverse_root(x, first, width, epsilon);
    running dot = {0};
    oracle_array row = oracle_array_create(width);
    if (is_zero(dy, first, width)) {
        oracle_array_destroy(&row);
        return;
    }
    for (int64_t j = 0; j < width; ++j) {
        const double v = x->value[first + j], e = x->error[first + j];
        const double w = l->config->qk_norm_weight_offset + weight[j];
        row.value[j] = v * root.value;
        row.error[j] = bound_product(v, e, root.value, root.error);
        add(&dot, dy->value[first + j] * w, dy->error[first + j] * fabs(w), row.value[j],
            row.error[j]);
        add(&sums[j], dy->value[first + j], dy->error[first + j], row.value[j], row.error[j]);
    }
    const double n = (double)width, mean = dot.value / n;
    const double mean_error = (dot.error + (n + 8) * DBL_EPSILON * dot.magnitude) / n;
    for (int64_t j = 0; j < width; ++j) {
        const double w = l->config->qk_norm_weight_offset + weight[j];
        const double g = dy->value[first + j] * w, taken = row.value[j] * mean;
        const double difference = g - taken;
        const double off = dy->error[first + j] * fabs(w) +
                           bound_product(row.value[j], row.error[j], mean, mean_error) +
                           8 * DBL_EPSILON * (fabs(g) + fabs(taken));
        const double dx = difference * root.value;
        dy->value[first + j] = dx;
        dy->error[first + j] = bound_product(difference, off, root.value, root.error);
        dy->error[first + j] +=
            2 * l->rounding.unit * (fabs(dx) + dy->error[first + j]) + l->rounding.smallest;
    }
    oracle_array_destroy(&row);
}

/* Rows (N, length, heads * head_dim) of what was projected, in place; returns the gradient of the
 * norm's weight, empty if there is none. */
static oracle_array positions_back(const oracle_layer *l, const char *norm, const oracle_array *raw,
                                   const oracle_rows *rows) {
    oracle_array sums = {0};
    double *weight = oracle_layer_parameter(l, norm);
    if (l->rope != NULL) {
        attn_rope_params back = *l->rope;
        back.inverse = !back.inverse;
        oracle_rotate_rows(&back, l->is_batched, rows);
    }
    if (weight != NULL) {
        const int64_t all = rows->heads * rows->features;
        const int64_t width = l->config->qk_norm == ATTN_QK_NORM_HEAD ? rows->features : all;
        const double given = l->config->qk_norm_epsilon;
        const double epsilon = given != 0                             ? given
                               : l->sizes.dtype == ATTN_DTYPE_FLOAT64 ? DBL_EPSILON
                                                                      : (double)FLT_EPSILON;
        running *running_sums = oracle_allocate(width, sizeof *running_sums);
        for (int64_t first = 0; first < rows->numbers->count; first += width) {
            norm_row_back(l, weight, raw, rows->numbers, first, width, epsilon, running_sums);
        }
        sums = oracle_array_create(width);
        for (int64_t j = 0; j < width; ++j) {
            finish(l->rounding, &running_sums[j], &sums, j);
        }
        free(running_sums);
    }
    free(weight);
    return sums;
}

/* ---- all of it ---- */

/* One of the three projections: where its parameters are, and what its gradient is. */
typedef struct input_projection {
    oracle_projection names;
    int64_t start, outputs, columns;
    int weight, bias;
} input_projection;

static void input_back(const oracle_layer *l, const input_projection *projection,
                       const attn_tensor *input, const oracle_array *dy,
                       oracle_mha_gradients *out) {
    const int64_t in = projection->columns;
    double *weight = oracle_layer_part(l, projection->names.weight, "in_proj_weight",
                                       projection->start * in, projection->outputs * in);
    oracle_array x = exact(input);
    out->inputs[projection->weight] = rows_back(l->rounding, dy, projection->outputs, weight, in);
    out->parts[projection->weight] = weight_back(l->rounding, dy, projection->outputs, &x, in);
    if (l->sizes.has_bias) {
        out->parts[projection->bias] = bias_back(l->rounding, dy, projection->outputs);
    }
    oracle_array_destroy(&x);
    free(weight);
}

/* From dY to that of the heads' contexts, (N, H, L, Dv). */
static oracle_array output_back(const oracle_layer *l, const oracle_problem *p,
                                const attn_tensor *output, oracle_mha_gradients *out) {
    const int64_t in = p->heads * p->value_features, embed_dim = l->sizes.embed_dim;
    double *weight = oracle_layer_parameter(l, "out_proj.weight");
    const attn_tensor view = oracle_batch_major(output, l->config->batch_first);
    oracle_array dy = exact(&view);
    oracle_result forward = oracle_attention(p);
    out->num_visible = forward.num_visible;
    oracle_array context = merge(p, &forward.output, p->rows, p->rows, p->heads, p->value_features);
    out->parts[ORACLE_O_WEIGHT] = weight_back(l->rounding, &dy, embed_dim, &context, in);
    if (l->sizes.has_bias) {
        out->parts[ORACLE_O_BIAS] = bias_back(l->rounding, &dy, embed_dim);
    }
    oracle_array merged = rows_back(l->rounding, &dy, embed_dim, weight, in);
    oracle_array heads = split(&merged, p->batches, p->rows, p->heads, p->value_features);
    oracle_array_destroy(&merged);
    oracle_array_destroy(&context);
    oracle_array_destroy(&dy);
    oracle_result_destroy(&forward);
    free(weight);
    return heads;
}

static void inputs_back(const oracle_layer *l, const oracle_problem *p,
                        const attn_tensor *const views[3], oracle_mha_gradients *out) {
    const oracle_mha_sizes *s = &l->sizes;
    const input_projection projections[3] = {
        {{"q_proj_weight", "q_proj_bias"}, 0, s->query_rows, s->qdim, 0, ORACLE_Q_BIAS},
        {{"k_proj_weight", "k_proj_bias"}, s->query_rows, s->key_rows, s->kdim, 1, ORACLE_K_BIAS},
        {{"v_proj_weight", "v_proj_bias"},
         s->query_rows + s->key_rows,
         s->value_rows,
         s->vdim,
         2,
         ORACLE_V_BIAS}};
    const int64_t all_keys = p->keys + p->extra_keys;
    oracle_array dq = merge(p, &out->inner.query, p->rows, p->rows, s->num_heads, s->head_dim);
    oracle_array dk = merge(p, &out->inner.key, all_keys, p->keys, s->num_kv_heads, s->head_dim);
    oracle_array dv =
        merge(p, &out->inner.value, all_keys, p->keys, s->num_kv_heads, s->value_head_dim);
    oracle_array raw_q = oracle_layer_project(l, views[0], projections[0].names, 0, s->query_rows);
    oracle_array raw_k =
        oracle_layer_project(l, views[1], projections[1].names, projections[1].start, s->key_rows);
    const oracle_rows queries = {&dq, p->batches, p->rows, s->num_heads, s->head_dim, l->rounding};
    const oracle_rows keys = {&dk, p->batches, p->keys, s->num_kv_heads, s->head_dim, l->rounding};
    out->parts[ORACLE_Q_NORM] = positions_back(l, "q_norm.weight", &raw_q, &queries);
    out->parts[ORACLE_K_NORM] = positions_back(l, "k_norm.weight", &raw_k, &keys);
    const oracle_array *const gradients[3] = {&dq, &dk, &dv};
    for (int i = 0; i < 3; ++i) {
        input_back(l, &projections[i], views[i], gradients[i], out);
    }
    if (l->config->add_bias_kv) {
        out->parts[ORACLE_BIAS_K] = extra_back(p, &out->inner.key, s->num_kv_heads, s->head_dim);
        out->parts[ORACLE_BIAS_V] =
            extra_back(p, &out->inner.value, s->num_kv_heads, s->value_head_dim);
    }
    oracle_array_destroy(&dq);
    oracle_array_destroy(&dk);
    oracle_array_destroy(&dv);
    oracle_array_destroy(&raw_q);
    oracle_array_destroy(&raw_k);
}

oracle_mha_gradients oracle_mha_backward(const attn_mha_config *config,
                                         const oracle_parameter *parameters, int64_t num_parameters,
                                         const attn_tensor *query, const attn_tensor *key,
                                         const attn_tensor *value, const attn_mha_params *params,
                                         const attn_tensor *output, const double *lse,
                                         const double *weights) {
    const oracle_layer l = oracle_layer_of(config, parameters, num_parameters, query, params);
    const attn_tensor q = oracle_batch_major(query, config->batch_first);
    const attn_tensor k = oracle_batch_major(key, config->batch_first);
    const attn_tensor v = oracle_batch_major(value, config->batch_first);
    const attn_tensor *const views[3] = {&q, &k, &v};
    oracle_problem problem = oracle_layer_problem(&l, &q, &k, &v, params);
    oracle_mha_gradients out = {0};
    oracle_array context = output_back(&l, &problem, output, &out);
    const oracle_given given = {
        .output = context.value, .output_error = context.error, .lse = lse, .weights = weights};
    out.inner = oracle_attention_gradients(&problem, &given);
    inputs_back(&l, &problem, views, &out);
    out.blocks = problem.blocks;
    problem.blocks = NULL;
    oracle_array_destroy(&context);
    oracle_problem_destroy(&problem);
    return out;
}

void oracle_mha_gradients_destroy(oracle_mha_gradients *gradients) {
    for (int i = 0; i < 3; ++i) {
        oracle_array_destroy(&gradients->inputs[i]);
    }
    for (int i = 0; i < ORACLE_NUM_PARTS; ++i) {
        oracle_array_destroy(&gradients->parts[i]);
    }
    oracle_gradients_destroy(&gradients->inner);
    free(gradients->blocks);
}
