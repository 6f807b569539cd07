/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_attention.c: scores, visibility, normalisation and weighted values, row by row, each with
 * its error bound.
 */
#include "support/oracle_attention.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/oracle_dropout.h"

void oracle_problem_allocate(oracle_problem *problem) {
    const int64_t heads = problem->batches * problem->heads;
    const int64_t all_keys = problem->keys + problem->extra_keys;
    problem->query = oracle_array_create(heads * problem->rows * problem->features);
    problem->key = oracle_array_create(heads * all_keys * problem->features);
    problem->value = oracle_array_create(heads * all_keys * problem->value_features);
    problem->mask = oracle_mask_create(heads * problem->rows * problem->keys);
    problem->is_padding = oracle_allocate(problem->batches * problem->keys, 1);
    problem->query_offset = oracle_allocate(problem->batches, sizeof(int64_t));
    problem->key_lengths = oracle_allocate(problem->batches, sizeof(int64_t));
    for (int64_t b = 0; b < problem->batches; ++b) {
        problem->key_lengths[b] = problem->keys;
    }
    problem->window_left = -1;
    problem->window_right = -1;
}

void oracle_problem_set_options(oracle_problem *problem, const attn_sdpa_params *params) {
    problem->scale = problem->features > 0 ? 1 / sqrt((double)problem->features) : 0;
    if (params == NULL) {
        return;
    }
    const int64_t per_head[] = {problem->heads};
    if (params->set & ATTN_SDPA_SET_SCALE) {
        problem->scale = params->scale;
    }
    if (params->set & ATTN_SDPA_SET_WINDOW) {
        problem->window_left = params->window_left;
        problem->window_right = params->window_right;
    }
    problem->softcap = params->softcap;
    problem->is_causal = params->is_causal;
    problem->num_biases = (params->bias != NULL) + (params->position_bias != NULL);
    problem->normalizer = params->normalizer;
    problem->dropout = params->dropout;
    problem->has_scores = params->scores != NULL;
    problem->scores_stage = params->scores_stage;
    problem->alibi_slopes =
        params->alibi_slopes != NULL ? oracle_expand(params->alibi_slopes, 1, per_head) : NULL;
    problem->sinks = params->sinks != NULL ? oracle_expand(params->sinks, 1, per_head) : NULL;
}

void oracle_problem_align_end(oracle_problem *problem) {
    for (int64_t b = 0; b < problem->batches; ++b) {
        problem->query_offset[b] = problem->key_lengths[b] - problem->rows;
    }
}

void oracle_problem_destroy(oracle_problem *problem) {
    oracle_array_destroy(&problem->query);
    oracle_array_destroy(&problem->key);
    oracle_array_destroy(&problem->value);
    oracle_mask_destroy(&problem->mask);
    free(problem->is_padding);
    free(problem->alibi_slopes);
    free(problem->sinks);
    free(problem->query_offset);
    free(problem->key_lengths);
    free(problem->mask_start);
    free(problem->blocks);
    *problem = (oracle_problem){0};
}

static int64_t saturating_sum(int64_t a, int64_t b) {
    int64_t sum;
    if (__builtin_add_overflow(a, b, &sum)) {
        return b < 0 ? INT64_MIN : INT64_MAX;
    }
    return sum;
}

/* Position of query row i among the keys. */
static int64_t row_position(const oracle_problem *p, int64_t b, int64_t i) {
    return saturating_sum(i, p->query_offset[b]);
}

/* A tensor's length on an axis of blocks, 1 being one for all. */
static int64_t blocks_of(const attn_tensor *mask, int32_t from_end) {
    return mask->rank < from_end ? 1 : mask->shape[mask->rank - from_end];
}

void oracle_problem_set_blocks(oracle_problem *problem, const attn_sdpa_params *params,
                               int32_t lead_rank, const int64_t *lead) {
    const oracle_problem *p = problem;
    if (params == NULL || params->block_mask == NULL) {
        return;
    }
    const attn_tensor *mask = params->block_mask;
    const int64_t rows = blocks_of(mask, 2), columns = blocks_of(mask, 1);
    const int64_t count = p->batches * p->heads * p->rows * p->keys;
    int64_t shape[ATTN_MAX_RANK + 2];
    memcpy(shape, lead, (size_t)lead_rank * sizeof *shape);
    shape[lead_rank] = rows;
    shape[lead_rank + 1] = columns;
    double *elements = oracle_expand(mask, lead_rank + 2, shape);
    problem->blocks = oracle_allocate(count, 1);
    for (int64_t at = 0; at < count; ++at) {
        const int64_t row = rows == 1 ? 0 : at / p->keys % p->rows / params->block_rows;
        const int64_t column = columns == 1 ? 0 : at % p->keys / params->block_columns;
        const int64_t head = at / p->keys / p->rows;
        problem->blocks[at] = (unsigned char)elements[(head * rows + row) * columns + column];
    }
    free(elements);
}

/* Adds what a mask says where blocks ask it. */
static void add_asked(oracle_problem *p, const oracle_mask *mask) {
    for (int64_t at = 0; at < p->batches * p->heads * p->rows * p->keys; ++at) {
        if (p->blocks[at] == ATTN_BLOCK_MASKED) {
            oracle_mask_add_bias(&p->mask, at, mask->bias[at]);
        }
    }
}

void oracle_problem_add_mask(oracle_problem *problem, int32_t kind, const attn_tensor *mask,
                             int32_t rank, const int64_t *shape) {
    const int64_t count = problem->batches * problem->heads * problem->rows * problem->keys;
    oracle_mask own = oracle_mask_create(problem->blocks != NULL ? count : 0);
    oracle_mask *to = problem->blocks != NULL ? &own : &problem->mask;
    if (problem->mask_start == NULL) {
        oracle_mask_add(to, kind, mask, rank, shape);
    } else {
        oracle_mask_add_placed(to, kind, mask, rank, shape, problem->mask_start,
                               problem->heads * problem->rows);
    }
    if (problem->blocks != NULL) {
        add_asked(problem, &own);
    }
    oracle_mask_destroy(&own);
}

void oracle_problem_add_position_bias(oracle_problem *problem, const attn_sdpa_params *params) {
    const oracle_problem *p = problem;
    if (params == NULL || params->position_bias == NULL) {
        return;
    }
    const int64_t shape[] = {p->heads, params->position_bias->shape[1]}, reach = shape[1] / 2;
    double *table = oracle_expand(params->position_bias, 2, shape);
    for (int64_t at = 0; at < p->batches * p->heads * p->rows * p->keys; ++at) {
        const int64_t j = at % p->keys, i = at / p->keys % p->rows;
        const int64_t head = at / p->keys / p->rows;
        const int64_t before = saturating_sum(row_position(p, head / p->heads, i), -j);
        const int64_t column = before > reach ? 0 : before < -reach ? 2 * reach : reach - before;
        oracle_mask_add_bias(&problem->mask, at, table[head % p->heads * shape[1] + column]);
    }
    free(table);
}

/* Whether causality, window, length, the end of a mask that is placed and blocks let row i of head
 * h see key j < S. */
static int is_in_sight(const oracle_problem *p, int64_t b, int64_t h, int64_t i, int64_t j) {
    const int64_t position = row_position(p, b, i);
    if (p->blocks != NULL &&
        p->blocks[((b * p->heads + h) * p->rows + i) * p->keys + j] == ATTN_BLOCK_HIDDEN) {
        return 0;
    }
    if (p->mask_start != NULL && j >= saturating_sum(p->mask_start[b], p->mask_columns)) {
        return 0;
    }
    if (j >= p->key_lengths[b] || (p->is_causal && j > position)) {
        return 0;
    }
    if (p->window_left >= 0 && j < saturating_sum(position, -p->window_left)) {
        return 0;
    }
    return p->window_right < 0 || j <= saturating_sum(position, p->window_right);
}

unsigned char *oracle_hidden_keys(const oracle_problem *problem) {
    const oracle_problem *p = problem;
    const int64_t heads = p->blocks != NULL ? p->heads : 1; /* those that may differ */
    unsigned char *hidden = oracle_allocate(p->batches * p->keys, 1);
    for (int64_t at = 0; at < p->batches * p->keys; ++at) {
        hidden[at] = 1;
        for (int64_t row = 0; row < heads * p->rows && hidden[at] && !p->is_padding[at]; ++row) {
            hidden[at] = !is_in_sight(p, at / p->keys, row / p->rows, row % p->rows, at % p->keys);
        }
    }
    return hidden;
}

static int is_masked(const oracle_problem *p, int64_t b, int64_t h, int64_t i, int64_t j) {
    return p->mask.bias[((b * p->heads + h) * p->rows + i) * p->keys + j] == -INFINITY;
}

static int is_visible(const oracle_problem *p, int64_t b, int64_t h, int64_t i, int64_t j) {
    return j >= p->keys || (is_in_sight(p, b, h, i, j) && !is_masked(p, b, h, i, j));
}

static int is_finite(const double *values, int64_t count) {
    int all = 1;
    for (int64_t i = 0; i < count; ++i) {
        all &= isfinite(values[i]) != 0;
    }
    return all;
}

/*
 * The one case sdpa.h leaves unspecified: the row sees something, and `array` (keys or values,
 * `width` features each) is not finite at a key that is hidden by a dense mask alone.
 */
static int is_unspecified(const oracle_problem *p, int64_t b, int64_t h, int64_t i,
                          const oracle_array *array, int64_t width) {
    const int64_t all_keys = p->keys + p->extra_keys;
    int is_empty = 1, hides_not_finite = 0;
    for (int64_t j = 0; j < all_keys; ++j) {
        if (is_visible(p, b, h, i, j)) {
            is_empty = 0;
        } else if (is_in_sight(p, b, h, i, j) && !p->is_padding[b * p->keys + j]) {
            hides_not_finite |=
                !is_finite(array->value + ((b * p->heads + h) * all_keys + j) * width, width);
        }
    }
    return !is_empty && hides_not_finite;
}

typedef struct bounded {
    double value, error;
} bounded;

/* scale * (q . k) */
static bounded scaled_product(const oracle_problem *p, int64_t b, int64_t h, int64_t i, int64_t j) {
    const int64_t query_row = ((b * p->heads + h) * p->rows + i) * p->features;
    const int64_t key_row = ((b * p->heads + h) * (p->keys + p->extra_keys) + j) * p->features;
    double sum = 0, magnitude = 0, propagated = 0;
    for (int64_t e = 0; e < p->features; ++e) {
        const double q = p->query.value[query_row + e], q_error = p->query.error[query_row + e];
        const double k = p->key.value[key_row + e], k_error = p->key.error[key_row + e];
        sum += q * k;
        magnitude += (fabs(q) + q_error) * (fabs(k) + k_error);
        propagated += bound_product(q, q_error, k, k_error);
    }
    if (p->features == 0) {
        return (bounded){0, 0};
    }
    if (isinf(sum)) {
        /* Its sign may be in doubt, and with a softcap it becomes a number. */
        return (bounded){p->scale * sum, INFINITY};
    }
    const double scale = fabs(p->scale);
    return (bounded){p->scale * sum,
                     scale * propagated + bound_dot(p->rounding, p->features, scale * magnitude)};
}

static bounded capped(const oracle_problem *p, bounded score) {
    if (p->softcap == 0) {
        return score;
    }
    const double value = p->softcap * tanh(score.value / p->softcap);
    return (bounded){value, bound_softcap(p->rounding, score.error, score.value, value)};
}

/* The score with everything but the normaliser applied. Keys past S have no position and no mask.
 */
static bounded final_score(const oracle_problem *p, int64_t b, int64_t h, int64_t i, int64_t j) {
    bounded score = capped(p, scaled_product(p, b, h, i, j));
    if (j >= p->keys) {
        return score;
    }
    const int64_t position = ((b * p->heads + h) * p->rows + i) * p->keys + j;
    const double distance = fabs((double)row_position(p, b, i) - (double)j);
    const double bias = p->alibi_slopes != NULL ? p->alibi_slopes[h] * distance : 0;
    const double added = fabs(bias) + p->mask.magnitude[position];
    if (added > 0) {
        score.error +=
            bound_added(p->rounding, 3 + p->num_biases, fabs(score.value) + score.error + added);
    }
    score.value = finite_sum(score.value - bias, p->mask.bias[position], p->rounding.largest);
    return score;
}

/* scale * (q . 0): what a padded key, which a layer clears, is to a query. */
static bounded cleared_product(const oracle_problem *p, int64_t b, int64_t h, int64_t i) {
    const double *query = p->query.value + ((b * p->heads + h) * p->rows + i) * p->features;
    double sum = 0;
    for (int64_t e = 0; e < p->features; ++e) {
        sum += query[e] * 0;
    }
    return (bounded){p->scale * sum, 0};
}

/* A score as the scores output has it. */
static bounded staged_score(const oracle_problem *p, int64_t b, int64_t h, int64_t i, int64_t j) {
    if (p->scores_stage == ATTN_SCORE_MASKED) {
        return is_visible(p, b, h, i, j) ? final_score(p, b, h, i, j) : (bounded){-INFINITY, 0};
    }
    if (j < p->keys && j >= p->key_lengths[b]) {
        return (bounded){0, 0};
    }
    const int is_cleared = j < p->keys && p->is_padding[b * p->keys + j];
    const bounded score = is_cleared ? cleared_product(p, b, h, i) : scaled_product(p, b, h, i, j);
    return p->scores_stage == ATTN_SCORE_CAPPED ? capped(p, score) : score;
}

static void write_scores(const oracle_problem *p, int64_t output_row, oracle_result *result) {
    const int64_t head = output_row / p->rows, all_keys = p->keys + p->extra_keys;
    for (int64_t j = 0; j < all_keys && p->has_scores; ++j) {
        const bounded score =
            staged_score(p, head / p->heads, head % p->heads, output_row % p->rows, j);
        result->scores.value[output_row * all_keys + j] = score.value;
        result->scores.error[output_row * all_keys + j] = score.error;
    }
}

/* Visible positions and scores of a row; a sink is one position more, without a value. */
static void read_row(const oracle_problem *p, int64_t b, int64_t h, int64_t i, oracle_row *row,
                     oracle_result *result) {
    const int64_t all_keys = p->keys + p->extra_keys;
    for (int64_t j = 0; j < all_keys; ++j) {
        row->visible[j] = (unsigned char)is_visible(p, b, h, i, j);
        if (row->visible[j]) {
            const bounded score = final_score(p, b, h, i, j);
            row->score[j] = score.value;
            row->score_error[j] = score.error;
            result->num_visible += j < p->keys;
        }
    }
    if (p->sinks != NULL) {
        row->visible[all_keys] = 1;
        row->score[all_keys] = p->sinks[h];
        row->score_error[all_keys] = 0;
    }
}

/* Scores become weights. */
static void normalise_row(const oracle_problem *p, oracle_row *row) {
    if (p->normalizer == ATTN_NORMALIZER_SOFTMAX) {
        oracle_row_softmax(row, p->rounding);
        return;
    }
    for (int64_t j = 0; j < row->count; ++j) {
        const double score = row->score[j], error = row->score_error[j];
        row->weight[j] = row->weight_error[j] = 0;
        if (row->visible[j] && p->normalizer == ATTN_NORMALIZER_SIGMOID) {
            row->weight[j] = 1 / (1 + exp(-score));
            row->weight_error[j] = bound_sigmoid(p->rounding, row->weight[j], error);
        } else if (row->visible[j]) {
            row->weight[j] = score;
            row->weight_error[j] = error + p->rounding.unit * (fabs(score) + error);
        }
    }
}

/* Weights become those that dropout leaves. */
static void drop_row(const oracle_problem *p, int64_t output_row, oracle_row *row) {
    const int64_t head = output_row / p->rows;
    for (int64_t j = 0; j < p->keys + p->extra_keys && p->dropout != NULL; ++j) {
        const double factor = oracle_dropout_factor(p->dropout, head / p->heads, head % p->heads,
                                                    output_row % p->rows, j);
        row->weight[j] *= factor;
        row->weight_error[j] *= factor;
        row->weight_error[j] += p->rounding.unit * (fabs(row->weight[j]) + row->weight_error[j]);
    }
}

/* One element of output, sum over visible j of weight[j] value[j, d]; exactly 0 for an empty row.
 */
static bounded weighted_sum(const oracle_problem *p, const oracle_row *row, int64_t head,
                            int64_t d) {
    const int64_t all_keys = p->keys + p->extra_keys;
    double sum = 0, magnitude = 0, propagated = 0;
    int64_t num_terms = 0, is_open = 0;
    for (int64_t j = 0; j < all_keys; ++j) {
        const int64_t at = (head * all_keys + j) * p->value_features + d;
        const double w = row->weight[j];
        const double w_error =
            row->weight_error[j] + p->weight_unit * (fabs(w) + row->weight_error[j]);
        const double v = p->value.value[at], v_error = p->value.error[at];
        if (!row->visible[j]) {
            continue;
        }
        ++num_terms;
        if (!isfinite(v) && fabs(w) <= w_error) {
            is_open = 1;
            continue;
        }
        sum += w * v;
        magnitude += (fabs(w) + w_error) * (fabs(v) + v_error);
        propagated += bound_product(w, w_error, v, v_error);
    }
    if (is_open) {
        return (bounded){sum, NAN};
    }
    return (bounded){sum,
                     num_terms > 0 ? propagated + bound_dot(p->rounding, num_terms, magnitude) : 0};
}

static void leave_open(oracle_array *array, int64_t first, int64_t count) {
    for (int64_t at = first; at < first + count; ++at) {
        array->error[at] = NAN;
    }
}

/* Opens what a key or value hidden by a dense mask alone may turn into NaN. */
static void open_unspecified(const oracle_problem *p, int64_t output_row, oracle_result *result) {
    const int64_t head = output_row / p->rows, b = head / p->heads, h = head % p->heads;
    const int64_t i = output_row % p->rows, all_keys = p->keys + p->extra_keys;
    const int by_key = is_unspecified(p, b, h, i, &p->key, p->features);
    if (by_key) {
        leave_open(&result->weights, output_row * all_keys, all_keys);
        leave_open(&result->lse, output_row, 1);
    }
    if (by_key || is_unspecified(p, b, h, i, &p->value, p->value_features)) {
        leave_open(&result->output, output_row * p->value_features, p->value_features);
    }
}

static void write_output(const oracle_problem *p, const oracle_row *row, int64_t head,
                         int64_t output_row, oracle_result *result) {
    for (int64_t d = 0; d < p->value_features; ++d) {
        const bounded element = weighted_sum(p, row, head, d);
        result->output.value[output_row * p->value_features + d] = element.value;
        result->output.error[output_row * p->value_features + d] = element.error;
    }
}

static void write_weights(const oracle_problem *p, const oracle_row *row, int64_t output_row,
                          oracle_result *result) {
    const int64_t all_keys = p->keys + p->extra_keys;
    for (int64_t j = 0; j < all_keys; ++j) {
        result->weights.value[output_row * all_keys + j] = row->weight[j];
        result->weights.error[output_row * all_keys + j] = row->weight_error[j];
    }
    result->lse.value[output_row] = row->lse;
    result->lse.error[output_row] = row->lse_error;
}

/* The mean of the weights over heads; exactly 0 where no head sees the key. */
static void average_weights(const oracle_problem *p, oracle_result *result) {
    const int64_t matrix = p->rows * (p->keys + p->extra_keys);
    const double heads = (double)p->heads;
    for (int64_t at = 0; at < p->batches * matrix; ++at) {
        const int64_t batch = at / matrix, within = at % matrix;
        double sum = 0, error = 0, magnitude = 0;
        for (int64_t h = 0; h < p->heads; ++h) {
            const int64_t from = (batch * p->heads + h) * matrix + within;
            sum += result->weights.value[from];
            error += result->weights.error[from];
            magnitude += fabs(result->weights.value[from]) + result->weights.error[from];
        }
        result->average_weights.value[at] = p->heads > 0 ? sum / heads : 0;
        result->average_weights.error[at] =
            p->heads > 0 ? (error + (heads + 2) * p->rounding.unit * magnitude) / heads : 0;
    }
}

oracle_result oracle_attention(const oracle_problem *problem) {
    const oracle_problem *p = problem;
    const int64_t heads = p->batches * p->heads, all_keys = p->keys + p->extra_keys;
    oracle_result result = {oracle_array_create(heads * p->rows * p->value_features),
                            oracle_array_create(heads * p->rows),
                            oracle_array_create(heads * p->rows * all_keys),
                            oracle_array_create(p->batches * p->rows * all_keys),
                            oracle_array_create(p->has_scores ? heads * p->rows * all_keys : 0),
                            0};
    oracle_row row = oracle_row_create(all_keys + (p->sinks != NULL));
    for (int64_t output_row = 0; output_row < heads * p->rows; ++output_row) {
        const int64_t head = output_row / p->rows;
        read_row(p, head / p->heads, head % p->heads, output_row % p->rows, &row, &result);
        normalise_row(p, &row);
        drop_row(p, output_row, &row);
        write_output(p, &row, head, output_row, &result);
        write_weights(p, &row, output_row, &result);
        open_unspecified(p, output_row, &result);
        write_scores(p, output_row, &result);
    }
    oracle_row_destroy(&row);
    average_weights(p, &result);
    return result;
}

void oracle_result_destroy(oracle_result *result) {
    oracle_array_destroy(&result->output);
    oracle_array_destroy(&result->lse);
    oracle_array_destroy(&result->weights);
    oracle_array_destroy(&result->average_weights);
    oracle_array_destroy(&result->scores);
}
