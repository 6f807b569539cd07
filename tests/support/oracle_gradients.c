/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_gradients.c: the gradients of one row after the other, each with its error bound.
 */
#include "support/oracle_gradients.h"

#include <math.h>
#include <stdlib.h>

#include "support/oracle_dropout.h"

typedef struct bounded {
    double value, error;
} bounded;

/* The forward pass, and a row on its way. */
typedef struct backward {
    const oracle_problem *problem;
    const oracle_given *given;
    oracle_result result; /* its scores are those that the normalizer gets */
    oracle_result kept;   /* its scores are those after softcap, its weights those before dropout */
    bounded *weight;      /* of the row's T keys */
    bounded *gradient;    /* of its weights, then of its scores */
    oracle_gradients *out;
} backward;

static bounded product(bounded x, bounded y) {
    return (bounded){x.value * y.value, bound_product(x.value, x.error, y.value, y.error)};
}

/* A sum with the errors of its terms and their magnitude. */
typedef struct dot {
    bounded sum;
    double magnitude;
    int64_t terms;
} dot;

static void add_term(dot *to, bounded x, bounded y) {
    const bounded term = product(x, y);
    to->sum.value += term.value;
    to->sum.error += term.error;
    to->magnitude += (fabs(x.value) + x.error) * (fabs(y.value) + y.error);
    ++to->terms;
}

static bounded finished(const backward *b, const dot *of) {
    const double own =
        of->terms > 0 ? bound_dot(b->problem->rounding, of->terms, of->magnitude) : 0;
    return (bounded){of->sum.value, of->sum.error + own};
}

static int64_t all_keys(const backward *b) {
    return b->problem->keys + b->problem->extra_keys;
}

static int is_hidden(const backward *b, int64_t row, int64_t j) {
    return b->result.scores.value[row * all_keys(b) + j] == -INFINITY;
}

/* exp(s - lse) from a score and an lse that are off. */
static bounded softmax_weight(const backward *b, bounded score, bounded lse) {
    const bound_rounding rounding = b->problem->rounding;
    const double difference = score.value - lse.value;
    const double off = score.error + lse.error +
                       rounding.unit * (fabs(score.value) + score.error + fabs(lse.value));
    const double weight = exp(difference);
    const double highest = exp(difference + off) * (1 + 8 * rounding.unit);
    return (bounded){weight, highest - weight + rounding.smallest};
}

static void find_weights(backward *b, int64_t row) {
    const oracle_result *result = &b->result;
    const bounded lse = {result->lse.value[row], result->lse.error[row]};
    for (int64_t j = 0; j < all_keys(b); ++j) {
        const int64_t at = row * all_keys(b) + j;
        b->weight[j] = (bounded){0, 0};
        if (is_hidden(b, row, j)) {
            continue;
        }
        const bounded score = {result->scores.value[at], result->scores.error[at]};
        b->weight[j] = b->problem->normalizer == ATTN_NORMALIZER_SOFTMAX
                           ? softmax_weight(b, score, lse)
                           : (bounded){b->kept.weights.value[at], b->kept.weights.error[at]};
    }
}

/* What dropout multiplies a weight with. */
static double kept_share(const backward *b, int64_t row, int64_t j) {
    const oracle_problem *p = b->problem;
    const int64_t head = row / p->rows;
    return p->dropout == NULL ? 1
                              : oracle_dropout_factor(p->dropout, head / p->heads, head % p->heads,
                                                      row % p->rows, j);
}

/* x as dropout leaves it, rounded. */
static bounded kept(const backward *b, int64_t row, int64_t j, bounded x) {
    const double share = kept_share(b, row, j);
    if (share == 1) {
        return x;
    }
    return (bounded){x.value * share,
                     share * (x.error + 2 * b->problem->rounding.unit * (fabs(x.value) + x.error))};
}

/* An element of the output's gradient. */
static bounded given_output(const backward *b, int64_t at) {
    const double *errors = b->given->output_error;
    return (bounded){b->given->output[at], errors != NULL ? errors[at] : 0};
}

/* The gradient of a weight. */
static bounded of_weight(const backward *b, int64_t row, int64_t j) {
    const oracle_problem *p = b->problem;
    const int64_t value_row = (row / p->rows * all_keys(b) + j) * p->value_features;
    dot sum = {{0, 0}, 0, 1};
    for (int64_t d = 0; d < p->value_features; ++d) {
        add_term(&sum, given_output(b, row * p->value_features + d),
                 (bounded){p->value.value[value_row + d], p->value.error[value_row + d]});
    }
    if (b->given->weights != NULL) {
        add_term(&sum, (bounded){b->given->weights[row * all_keys(b) + j], 0}, (bounded){1, 0});
    }
    return kept(b, row, j, finished(b, &sum));
}

/* What softmax takes off a row's gradients. */
static bounded mean_of(const backward *b, int64_t row) {
    const oracle_problem *p = b->problem;
    dot sum = {{0, 0}, 0, 2};
    for (int64_t d = 0; d < p->value_features; ++d) {
        const int64_t at = row * p->value_features + d;
        const double output = b->result.output.value[at], error = b->result.output.error[at];
        add_term(&sum, given_output(b, at),
                 (bounded){output, error + b->given->output_unit * (fabs(output) + error) +
                                       b->given->output_step});
    }
    for (int64_t j = 0; j < all_keys(b) && b->given->weights != NULL; ++j) {
        add_term(&sum, kept(b, row, j, b->weight[j]),
                 (bounded){b->given->weights[row * all_keys(b) + j], 0});
    }
    if (b->given->lse != NULL) {
        add_term(&sum, (bounded){-b->given->lse[row], 0}, (bounded){1, 0});
    }
    return finished(b, &sum);
}

/* A product of three factors that are rounded after each step. */
static bounded rounded_product(const backward *b, bounded x, bounded y) {
    bounded result = product(x, y);
    result.error += 3 * b->problem->rounding.unit * (fabs(result.value) + result.error) +
                    b->problem->rounding.smallest;
    return result;
}

static bounded of_score(const backward *b, int64_t row, int64_t j, bounded mean) {
    const double unit = b->problem->rounding.unit;
    const bounded weight = b->weight[j];
    bounded gradient = of_weight(b, row, j);
    if (b->problem->normalizer == ATTN_NORMALIZER_LINEAR) {
        return gradient;
    }
    if (b->problem->normalizer == ATTN_NORMALIZER_SIGMOID) {
        const bounded rest = {1 - weight.value, weight.error + unit};
        return rounded_product(b, rounded_product(b, weight, rest), gradient);
    }
    gradient.error +=
        mean.error + unit * (fabs(gradient.value) + gradient.error + fabs(mean.value) + mean.error);
    gradient.value -= mean.value;
    return rounded_product(b, weight, gradient);
}

/* The gradient of scale * (q . k). */
static bounded of_product(const backward *b, int64_t row, int64_t j) {
    const oracle_problem *p = b->problem;
    const int64_t at = row * all_keys(b) + j;
    bounded gradient = b->gradient[j];
    if (p->softcap != 0) {
        const double share = b->kept.scores.value[at] / p->softcap;
        const double share_error = b->kept.scores.error[at] / p->softcap;
        const bounded slope = {1 - share * share, 2 * fabs(share) * share_error +
                                                      share_error * share_error +
                                                      4 * p->rounding.unit};
        gradient = rounded_product(b, gradient, slope);
    }
    return rounded_product(b, gradient, (bounded){p->scale, 0});
}

static void run_row(backward *b, int64_t row) {
    const oracle_problem *p = b->problem;
    const int is_softmax = p->normalizer == ATTN_NORMALIZER_SOFTMAX;
    const bounded lse = {b->result.lse.value[row], b->result.lse.error[row]};
    const int is_empty = is_softmax && lse.value == -INFINITY;
    find_weights(b, row);
    const bounded mean = is_softmax && !is_empty ? mean_of(b, row) : (bounded){0, 0};
    for (int64_t j = 0; j < all_keys(b); ++j) {
        b->gradient[j] = is_hidden(b, row, j) ? (bounded){0, 0} : of_score(b, row, j, mean);
        b->out->scores.value[row * all_keys(b) + j] = b->gradient[j].value;
        b->out->scores.error[row * all_keys(b) + j] = b->gradient[j].error;
    }
    if (p->sinks != NULL && !is_empty) {
        const int64_t head = row / p->rows % p->heads;
        const bounded sink =
            rounded_product(b, softmax_weight(b, (bounded){p->sinks[head], 0}, lse), mean);
        b->out->sinks.value[row] = -sink.value;
        b->out->sinks.error[row] = sink.error;
    }
}

/* Terms of a row and key to the sums of both. */
static void add_pair(const backward *b, int64_t row, int64_t j, dot *query, dot *key, dot *value) {
    const oracle_problem *p = b->problem;
    const int64_t key_row = row / p->rows * all_keys(b) + j;
    if (is_hidden(b, row, j)) {
        return;
    }
    const bounded gradient = of_product(b, row, j);
    const bounded weight = kept(b, row, j, b->weight[j]);
    for (int64_t e = 0; e < p->features; ++e) {
        const int64_t q = row * p->features + e, k = key_row * p->features + e;
        add_term(&query[q], gradient, (bounded){p->key.value[k], p->key.error[k]});
        add_term(&key[k], gradient, (bounded){p->query.value[q], p->query.error[q]});
    }
    for (int64_t d = 0; d < p->value_features; ++d) {
        add_term(&value[key_row * p->value_features + d], weight,
                 given_output(b, row * p->value_features + d));
    }
}

static void finish(const backward *b, const dot *sums, oracle_array *array) {
    for (int64_t at = 0; at < array->count; ++at) {
        const bounded sum = finished(b, &sums[at]);
        array->value[at] = sum.value;
        array->error[at] = sum.error;
    }
}

/* The same problem once more for the scores of another stage. */
static oracle_result run_forward(const oracle_problem *problem, int32_t stage,
                                 const attn_dropout *dropout) {
    oracle_problem staged = *problem;
    staged.has_scores = 1;
    staged.scores_stage = stage;
    staged.dropout = dropout;
    return oracle_attention(&staged);
}

oracle_gradients oracle_attention_gradients(const oracle_problem *problem,
                                            const oracle_given *given) {
    const oracle_problem *p = problem;
    const int64_t heads = p->batches * p->heads, keys = p->keys + p->extra_keys;
    oracle_gradients out = {oracle_array_create(p->query.count), oracle_array_create(p->key.count),
                            oracle_array_create(p->value.count),
                            oracle_array_create(heads * p->rows * keys),
                            oracle_array_create(heads * p->rows)};
    backward b = {p,
                  given,
                  run_forward(p, ATTN_SCORE_MASKED, p->dropout),
                  run_forward(p, ATTN_SCORE_CAPPED, NULL),
                  oracle_allocate(keys, sizeof(bounded)),
                  oracle_allocate(keys, sizeof(bounded)),
                  &out};
    dot *query = oracle_allocate(out.query.count, sizeof(dot));
    dot *key = oracle_allocate(out.key.count, sizeof(dot));
    dot *value = oracle_allocate(out.value.count, sizeof(dot));
    for (int64_t row = 0; row < heads * p->rows; ++row) {
        run_row(&b, row);
        for (int64_t j = 0; j < keys; ++j) {
            add_pair(&b, row, j, query, key, value);
        }
    }
    finish(&b, query, &out.query);
    finish(&b, key, &out.key);
    finish(&b, value, &out.value);
    oracle_result_destroy(&b.result);
    oracle_result_destroy(&b.kept);
    free(b.weight);
    free(b.gradient);
    free(query);
    free(key);
    free(value);
    return out;
}

void oracle_gradients_destroy(oracle_gradients *gradients) {
    oracle_array_destroy(&gradients->query);
    oracle_array_destroy(&gradients->key);
    oracle_array_destroy(&gradients->value);
    oracle_array_destroy(&gradients->scores);
    oracle_array_destroy(&gradients->sinks);
}
