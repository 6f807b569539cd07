/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_fixture.c: the valid forward call of a layer, and what it must compute.
 */
#include "mha_fixture.h"

#include <math.h>
#include <string.h>

#define COUNT_OF(array) ((int64_t)(sizeof(array) / sizeof(array)[0]))

const char *const mha_parameter_names[] = {"q_proj_weight",
                                           "k_proj_weight",
                                           "v_proj_weight",
                                           "in_proj_bias",
                                           "out_proj.weight",
                                           "out_proj.bias",
                                           NULL};

attn_mha_config mha_fixture_config(void) {
    return (attn_mha_config){.struct_size = sizeof(attn_mha_config),
                             .embed_dim = MHA_E,
                             .num_heads = MHA_H,
                             .kdim = MHA_KDIM,
                             .vdim = MHA_VDIM,
                             .batch_first = 1};
}

void mha_parameters_fill(mha_parameters *parameters) {
    refusal_numbers(parameters->q_weight, COUNT_OF(parameters->q_weight), 11);
    refusal_numbers(parameters->k_weight, COUNT_OF(parameters->k_weight), 12);
    refusal_numbers(parameters->v_weight, COUNT_OF(parameters->v_weight), 13);
    refusal_numbers(parameters->in_bias, COUNT_OF(parameters->in_bias), 14);
    refusal_numbers(parameters->out_weight, COUNT_OF(parameters->out_weight), 15);
    refusal_numbers(parameters->out_bias, COUNT_OF(parameters->out_bias), 16);
}

attn_tensor mha_parameters_view(mha_parameters *parameters, const char *name) {
    const struct {
        const char *name;
        float *values;
        int32_t rank;
        int64_t shape[2];
    } all[] = {
        {"q_proj_weight", parameters->q_weight, 2, {MHA_E, MHA_E}},
        {"k_proj_weight", parameters->k_weight, 2, {MHA_E, MHA_KDIM}},
        {"v_proj_weight", parameters->v_weight, 2, {MHA_E, MHA_VDIM}},
        {"in_proj_bias", parameters->in_bias, 1, {3 * MHA_E}},
        {"out_proj.weight", parameters->out_weight, 2, {MHA_E, MHA_E}},
        {"out_proj.bias", parameters->out_bias, 1, {MHA_E}},
    };
    for (int64_t i = 0; i < COUNT_OF(all); ++i) {
        if (strcmp(all[i].name, name) == 0) {
            return refusal_view(all[i].values, ATTN_DTYPE_FLOAT32, all[i].rank, all[i].shape);
        }
    }
    fail_msg("no parameter %s", name);
    return (attn_tensor){0};
}

void mha_layer_create(mha_layer *layer, attn_context *context) {
    const attn_mha_config config = mha_fixture_config();
    mha_parameters_fill(&layer->parameters);
    refusal_assert_ok("attn_mha_create", attn_mha_create(context, &config, &layer->layer));
    for (const char *const *name = mha_parameter_names; *name != NULL; ++name) {
        const attn_tensor values = mha_parameters_view(&layer->parameters, *name);
        if (strcmp(*name, "out_proj.weight") == 0) {
            refusal_assert_ok("attn_mha_bind_parameter",
                              attn_mha_bind_parameter(layer->layer, *name, &values));
        } else {
            refusal_assert_ok("attn_mha_load_parameter",
                              attn_mha_load_parameter(NULL, layer->layer, *name, &values, NULL));
        }
    }
}

static void fill_memory(mha_memory *memory) {
    memset(memory, 0, sizeof *memory);
    refusal_numbers(memory->query, COUNT_OF(memory->query), 1);
    refusal_numbers(memory->key, COUNT_OF(memory->key), 2);
    refusal_numbers(memory->value, COUNT_OF(memory->value), 3);
    refusal_numbers(memory->float_padding_mask, COUNT_OF(memory->float_padding_mask), 4);
    refusal_numbers(memory->attn_mask, COUNT_OF(memory->attn_mask), 5);
    refusal_fill(memory->output, sizeof memory->output);
    refusal_fill(memory->lse, sizeof memory->lse);
    refusal_fill(memory->weights, sizeof memory->weights);
    refusal_fill(memory->scores, sizeof memory->scores);
    refusal_fill(memory->cached, sizeof memory->cached);
    for (int64_t n = 0; n < MHA_N; ++n) {
        memory->key_lengths[n] = MHA_S - n;
        memory->lengths[n] = memory->rope_lengths[n] = MHA_S;
    }
    for (int64_t n = 0; n <= MHA_N; ++n) {
        memory->page_starts[n] = n * (MHA_C / MHA_PAGE);
        memory->starts[n] = n * MHA_C;
        memory->query_starts[n] = n * MHA_L;
    }
    for (int64_t i = 0; i < MHA_PAGES; ++i) {
        memory->page_table[i] = MHA_PAGES - 1 - i;
    }
}

static void make_position_views(mha_fixture *fixture) {
    mha_memory *memory = &fixture->memory;
    attn_tensor *views = fixture->views;
    const int32_t float32 = ATTN_DTYPE_FLOAT32;
    const int64_t pairs[] = {MHA_POSITIONS, MHA_D / 2}, batch[] = {MHA_N, 1};
    views[MHA_ROPE_FREQUENCIES] = refusal_view(memory->frequencies, float32, 1, pairs + 1);
    views[MHA_ROPE_COS] = refusal_view(memory->tables[0], float32, 2, pairs);
    views[MHA_ROPE_SIN] = refusal_view(memory->tables[1], float32, 2, pairs);
    views[MHA_ROPE_POSITIONS] = refusal_view(memory->positions, ATTN_DTYPE_INT64, 2, batch);
    views[MHA_ROPE_LENGTHS] = refusal_view(memory->rope_lengths, ATTN_DTYPE_INT64, 1, batch);
}

static void make_views(mha_fixture *fixture, mha_parameters *parameters) {
    mha_memory *memory = &fixture->memory;
    attn_tensor *views = fixture->views;
    const int32_t float32 = ATTN_DTYPE_FLOAT32;
    const int64_t query[] = {MHA_N, MHA_L, MHA_E};
    const int64_t key[] = {MHA_N, MHA_S, MHA_KDIM};
    const int64_t value[] = {MHA_N, MHA_S, MHA_VDIM};
    const int64_t padding[] = {MHA_N, MHA_S};
    const int64_t mask[] = {MHA_L, MHA_S};
    const int64_t distances[] = {MHA_H, MHA_DISTANCES};
    const int64_t blocks[] = {1, (MHA_S + MHA_BLOCK - 1) / MHA_BLOCK};
    const int64_t weights[] = {MHA_N, MHA_L, MHA_S};
    const int64_t starts[] = {MHA_N + 1};
    const int64_t head_weights[] = {MHA_N, MHA_H, MHA_L, MHA_S};
    views[MHA_QUERY] = refusal_view(memory->query, float32, 3, query);
    views[MHA_KEY] = refusal_view(memory->key, float32, 3, key);
    views[MHA_VALUE] = refusal_view(memory->value, float32, 3, value);
    views[MHA_OUTPUT] = refusal_view(memory->output, float32, 3, query);
    views[MHA_KEY_PADDING_MASK] =
        refusal_view(memory->key_padding_mask, ATTN_DTYPE_BOOL, 2, padding);
    views[MHA_FLOAT_PADDING_MASK] = refusal_view(memory->float_padding_mask, float32, 2, padding);
    views[MHA_ATTENTION_MASK] = refusal_view(memory->attn_mask, float32, 2, mask);
    views[MHA_BOOL_MASK] = refusal_view(memory->bool_mask, ATTN_DTYPE_BOOL, 2, mask);
    views[MHA_ATTENTION_BIAS] = refusal_view(memory->bias, float32, 2, mask);
    views[MHA_AVERAGE_WEIGHTS] = refusal_view(memory->weights, float32, 3, weights);
    views[MHA_ATTENTION_WEIGHTS] = refusal_view(memory->weights, float32, 4, head_weights);
    views[MHA_ATTENTION_SCORES] = refusal_view(memory->scores, float32, 4, head_weights);
    views[MHA_ATTENTION_LSE] = refusal_view(memory->lse, float32, 3, head_weights);
    views[MHA_ATTENTION_SINKS] = refusal_view(memory->sinks, float32, 1, head_weights + 1);
    views[MHA_ATTENTION_SLOPES] = refusal_view(memory->alibi_slopes, float32, 1, head_weights + 1);
    views[MHA_ATTENTION_LENGTHS] = refusal_view(memory->key_lengths, ATTN_DTYPE_INT64, 1, padding);
    views[MHA_ATTENTION_OFFSET] = refusal_view(memory->query_offset, ATTN_DTYPE_INT64, 1, padding);
    views[MHA_ATTENTION_MASK_START] =
        refusal_view(memory->mask_start, ATTN_DTYPE_INT64, 1, padding);
    views[MHA_ATTENTION_POSITION_BIAS] = refusal_view(memory->position_bias, float32, 2, distances);
    views[MHA_ATTENTION_BLOCK_MASK] = refusal_view(memory->block_mask, ATTN_DTYPE_UINT8, 2, blocks);
    views[MHA_QUERY_STARTS] = refusal_view(memory->query_starts, ATTN_DTYPE_INT64, 1, starts);
    views[MHA_OUT_WEIGHT] = mha_parameters_view(parameters, "out_proj.weight");
}

void mha_fixture_prepare(mha_fixture *fixture, attn_context *context, mha_layer *layer) {
    memset(fixture, 0, sizeof *fixture);
    fill_memory(&fixture->memory);
    make_views(fixture, &layer->parameters);
    make_position_views(fixture);
    fixture->context = context;
    fixture->layer = layer->layer;
    fixture->parameters = &layer->parameters;
    for (int i = 0; i < MHA_ARGUMENTS; ++i) {
        fixture->arguments[i] = &fixture->views[i];
    }
    fixture->attention.struct_size = sizeof fixture->attention;
    fixture->rope.struct_size = sizeof fixture->rope;
    fixture->options.struct_size = sizeof fixture->options;
    fixture->params = &fixture->options;
}

void mha_fixture_cache(mha_fixture *fixture, mha_cache_kind kind) {
    mha_memory *memory = &fixture->memory;
    attn_tensor *views = fixture->views;
    const int32_t int64 = ATTN_DTYPE_INT64;
    const int64_t own[] = {MHA_N, MHA_H, MHA_C, MHA_D};
    const int64_t joined[] = {MHA_H, MHA_N * MHA_C, MHA_D};
    const int64_t paged[] = {MHA_PAGES, MHA_H, MHA_PAGE, MHA_D};
    const int64_t batch[] = {MHA_N, MHA_C / MHA_PAGE}, ends[] = {MHA_N + 1}, all[] = {MHA_PAGES};
    const int64_t *shape = kind == MHA_CACHE_OWN ? own : kind == MHA_CACHE_STARTS ? joined : paged;
    const int32_t rank = kind == MHA_CACHE_STARTS ? 3 : 4;
    const bool is_flat = kind == MHA_CACHE_FLAT_PAGES;
    views[MHA_KV_KEY] = refusal_view(memory->cached[0], ATTN_DTYPE_FLOAT32, rank, shape);
    views[MHA_KV_VALUE] = refusal_view(memory->cached[1], ATTN_DTYPE_FLOAT32, rank, shape);
    views[MHA_KV_LENGTHS] = refusal_view(memory->lengths, int64, 1, batch);
    views[MHA_KV_PAGE_TABLE] =
        refusal_view(memory->page_table, int64, is_flat ? 1 : 2, is_flat ? all : batch);
    views[MHA_KV_PAGE_STARTS] = refusal_view(memory->page_starts, int64, 1, ends);
    views[MHA_KV_STARTS] = refusal_view(memory->starts, int64, 1, ends);
    for (int i = 0; i < 2; ++i) {
        const int64_t ones[] = {1, 1, 1, 1};
        views[MHA_KV_KEY_SCALE + i] =
            refusal_view(&memory->numbers[i], ATTN_DTYPE_FLOAT32, rank, ones);
    }
    fixture->cache = (attn_kv){.struct_size = sizeof fixture->cache};
    for (int tensor = MHA_KV_KEY; tensor <= MHA_KV_LENGTHS; ++tensor) {
        mha_fixture_link(fixture, tensor);
    }
    if (kind == MHA_CACHE_PAGES || is_flat) {
        mha_fixture_link(fixture, MHA_KV_PAGE_TABLE);
    }
    if (is_flat || kind == MHA_CACHE_STARTS) {
        mha_fixture_link(fixture, is_flat ? MHA_KV_PAGE_STARTS : MHA_KV_STARTS);
    }
    fixture->options.cache = &fixture->cache;
}

void mha_fixture_ragged(mha_fixture *fixture) {
    static const int64_t features[] = {MHA_E, MHA_KDIM, MHA_VDIM, MHA_E};
    for (int i = 0; i < MHA_ARGUMENTS; ++i) {
        const int64_t shape[] = {MHA_N * MHA_L, features[i]};
        fixture->views[i] = refusal_view(fixture->views[i].data, ATTN_DTYPE_FLOAT32, 2, shape);
    }
    mha_fixture_link(fixture, MHA_QUERY_STARTS);
}

/* Where an optional view belongs. */
static const attn_tensor **place_of(mha_fixture *fixture, int tensor) {
    attn_mha_params *options = &fixture->options;
    attn_kv *cache = &fixture->cache;
    attn_rope_params *rope = &fixture->rope;
    attn_sdpa_params *attention = &fixture->attention;
    const attn_tensor **const places[MHA_TENSORS] = {
        [MHA_KEY_PADDING_MASK] = &options->key_padding_mask,
        [MHA_FLOAT_PADDING_MASK] = &options->key_padding_mask,
        [MHA_ATTENTION_MASK] = &attention->mask,
        [MHA_BOOL_MASK] = &attention->mask,
        [MHA_ATTENTION_BIAS] = &attention->bias,
        [MHA_AVERAGE_WEIGHTS] = &attention->weights,
        [MHA_ATTENTION_WEIGHTS] = &attention->weights,
        [MHA_ATTENTION_SCORES] = &attention->scores,
        [MHA_ATTENTION_LSE] = &attention->lse,
        [MHA_ATTENTION_SINKS] = &attention->sinks,
        [MHA_ATTENTION_SLOPES] = &attention->alibi_slopes,
        [MHA_ATTENTION_LENGTHS] = &attention->key_lengths,
        [MHA_ATTENTION_OFFSET] = &attention->query_offset,
        [MHA_ATTENTION_MASK_START] = &attention->mask_start,
        [MHA_ATTENTION_POSITION_BIAS] = &attention->position_bias,
        [MHA_ATTENTION_BLOCK_MASK] = &attention->block_mask,
        [MHA_QUERY_STARTS] = &attention->query_starts,
        [MHA_KV_KEY] = &cache->key,
        [MHA_KV_VALUE] = &cache->value,
        [MHA_KV_LENGTHS] = &cache->lengths,
        [MHA_KV_PAGE_TABLE] = &cache->page_table,
        [MHA_KV_PAGE_STARTS] = &cache->page_starts,
        [MHA_KV_STARTS] = &cache->starts,
        [MHA_KV_KEY_SCALE] = &cache->key_scale,
        [MHA_KV_KEY_ZERO] = &cache->key_zero,
        [MHA_ROPE_FREQUENCIES] = &rope->frequencies,
        [MHA_ROPE_COS] = &rope->cos,
        [MHA_ROPE_SIN] = &rope->sin,
        [MHA_ROPE_POSITIONS] = &rope->positions,
        [MHA_ROPE_LENGTHS] = &rope->lengths,
    };
    return places[tensor];
}

void mha_fixture_unlink(mha_fixture *fixture, int tensor) {
    *place_of(fixture, tensor) = NULL;
}

void mha_fixture_link(mha_fixture *fixture, int tensor) {
    *place_of(fixture, tensor) = &fixture->views[tensor];
    if (tensor == MHA_ATTENTION_BLOCK_MASK) {
        fixture->attention.block_rows = MHA_BLOCK;
        fixture->attention.block_columns = MHA_BLOCK;
    }
    if (tensor >= MHA_ATTENTION_MASK && tensor < MHA_KV_KEY) {
        fixture->options.attention = &fixture->attention;
    }
    if (tensor >= MHA_ROPE_FREQUENCIES) {
        fixture->options.rope = &fixture->rope;
    }
}

attn_status mha_fixture_run(mha_fixture *fixture) {
    const attn_tensor *const *arguments = fixture->arguments;
    return attn_mha_forward(fixture->context, fixture->layer, arguments[MHA_QUERY],
                            arguments[MHA_KEY], arguments[MHA_VALUE], fixture->params,
                            arguments[MHA_OUTPUT], fixture->workspace, fixture->workspace_bytes);
}

attn_status mha_fixture_workspace_bytes(mha_fixture *fixture, size_t *bytes) {
    const attn_tensor *const *arguments = fixture->arguments;
    return attn_mha_workspace_bytes(fixture->context, fixture->layer, arguments[MHA_QUERY],
                                    arguments[MHA_KEY], arguments[MHA_VALUE], fixture->params,
                                    arguments[MHA_OUTPUT], bytes);
}

attn_status mha_fixture_explain(mha_fixture *fixture, attn_mha_report *report) {
    const attn_tensor *const *arguments = fixture->arguments;
    return attn_mha_explain(fixture->context, fixture->layer, arguments[MHA_QUERY],
                            arguments[MHA_KEY], arguments[MHA_VALUE], fixture->params,
                            arguments[MHA_OUTPUT], report);
}

attn_status mha_fixture_describe_outputs(mha_fixture *fixture, attn_mha_outputs *outputs) {
    const attn_tensor *const *arguments = fixture->arguments;
    return attn_mha_describe_outputs(fixture->layer, arguments[MHA_QUERY], arguments[MHA_KEY],
                                     arguments[MHA_VALUE], fixture->params, outputs);
}

/* y = weight x + bias, for one row x of `cols` numbers; weight (MHA_E, cols). */
static void project(const float *x, int64_t cols, const float *weight, const float *bias,
                    double *y) {
    for (int64_t row = 0; row < MHA_E; ++row) {
        y[row] = bias[row];
        for (int64_t col = 0; col < cols; ++col) {
            y[row] += (double)x[col] * weight[row * cols + col];
        }
    }
}

/* One head of one row: context = softmax(query . keys / sqrt(D)) values; keys and values are rows
 * of MHA_E numbers. */
static void attend(const double *query, const double *keys, const double *values, double *context) {
    double sum = 0;
    memset(context, 0, MHA_D * sizeof *context);
    for (int64_t j = 0; j < MHA_S; ++j) {
        double score = 0;
        for (int64_t d = 0; d < MHA_D; ++d) {
            score += query[d] * keys[j * MHA_E + d];
        }
        const double weight = exp(score / sqrt(MHA_D));
        sum += weight;
        for (int64_t d = 0; d < MHA_D; ++d) {
            context[d] += weight * values[j * MHA_E + d];
        }
    }
    for (int64_t d = 0; d < MHA_D; ++d) {
        context[d] /= sum;
    }
}

/* The L output rows of one batch. */
static void forward_batch(const mha_fixture *fixture, int64_t n, double *output) {
    const mha_memory *memory = &fixture->memory;
    const mha_parameters *parameters = fixture->parameters;
    double keys[MHA_S * MHA_E];
    double values[MHA_S * MHA_E];
    for (int64_t j = 0; j < MHA_S; ++j) {
        project(memory->key + (n * MHA_S + j) * MHA_KDIM, MHA_KDIM, parameters->k_weight,
                parameters->in_bias + MHA_E, keys + j * MHA_E);
        project(memory->value + (n * MHA_S + j) * MHA_VDIM, MHA_VDIM, parameters->v_weight,
                parameters->in_bias + 2 * MHA_E, values + j * MHA_E);
    }
    for (int64_t i = 0; i < MHA_L; ++i) {
        double query[MHA_E];
        double context[MHA_E];
        project(memory->query + (n * MHA_L + i) * MHA_E, MHA_E, parameters->q_weight,
                parameters->in_bias, query);
        for (int64_t h = 0; h < MHA_H; ++h) {
            attend(query + h * MHA_D, keys + h * MHA_D, values + h * MHA_D, context + h * MHA_D);
        }
        for (int64_t row = 0; row < MHA_E; ++row) {
            double sum = parameters->out_bias[row];
            for (int64_t col = 0; col < MHA_E; ++col) {
                sum += context[col] * parameters->out_weight[row * MHA_E + col];
            }
            output[i * MHA_E + row] = sum;
        }
    }
}

void mha_fixture_assert_values(const mha_fixture *fixture) {
    double expected[MHA_N * MHA_L * MHA_E];
    for (int64_t n = 0; n < MHA_N; ++n) {
        forward_batch(fixture, n, expected + n * MHA_L * MHA_E);
    }
    refusal_assert_close("output", fixture->memory.output, expected, COUNT_OF(expected));
}
