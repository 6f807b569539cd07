/* SPDX-License-Identifier: BSD-3-Clause
 *
 * engine_step.c: one step of a decoder, from tokens to logits.
 *
 * Activations are (rows, features), where the rows of all sequences follow each other; attention
 * reads and writes them as (heads, rows, head_dim), which is a view of the same memory.
 */
#include "engine_step.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TRY(call)                              \
    do {                                       \
        const attn_status try_status = (call); \
        if (try_status != ATTN_OK) {           \
            return try_status;                 \
        }                                      \
    } while (0)

/* A step and its activations. */
typedef struct running_step {
    attn_context *context;
    const engine_config *config;
    const engine_batch *batch;
    int64_t rows;
    float *hidden; /* (rows, hidden_size), to which every layer adds */
    float *normed; /* likewise */
    float *query;  /* (rows, num_heads * head_dim) */
    float *key;    /* (rows, num_kv_heads * head_dim) */
    float *value;  /* likewise */
    float *mixed;  /* as query: what attention makes of it */
    float *gate;   /* (rows, intermediate_size) */
    float *up;     /* likewise */
    engine_times *times;
    double clock;
} running_step;

static double seconds(void) {
    struct timespec now;
    (void)timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Adds what passed since the last call to one of the times. */
static void add_time(running_step *step, double *time) {
    const double now = seconds();
    *time += now - step->clock;
    step->clock = now;
}

/* ---- products, norms, activations ---- */

/* output (rows, features out) = input (rows, features in) * weight^T + bias, or added to output. */
static void project(running_step *step, const float *input, int64_t in, const float *weight,
                    const float *bias, int64_t out, float *output, bool is_added) {
    for (int64_t row = 0; bias != NULL && row < step->rows; ++row) {
        memcpy(output + row * out, bias, (size_t)out * sizeof *output);
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)step->rows, (int)out, (int)in, 1,
                input, (int)in, weight, (int)in, is_added || bias != NULL ? 1 : 0, output,
                (int)out);
    add_time(step, &step->times->products);
}

static attn_status norm(const running_step *step, const attn_tensor *input, float *weight,
                        const attn_tensor *output) {
    attn_tensor weights;
    TRY(attn_tensor_init(&weights, weight, ATTN_DTYPE_FLOAT32, 1, &input->shape[input->rank - 1]));
    const attn_rms_norm_params params = {
        .struct_size = sizeof params, .weight = &weights, .epsilon = step->config->norm_epsilon};
    return attn_rms_norm(step->context, input, &params, output);
}

static attn_status norm_hidden(running_step *step, float *weight) {
    const int64_t shape[] = {step->rows, step->config->hidden_size};
    attn_tensor input, output;
    TRY(attn_tensor_init(&input, step->hidden, ATTN_DTYPE_FLOAT32, 2, shape));
    TRY(attn_tensor_init(&output, step->normed, ATTN_DTYPE_FLOAT32, 2, shape));
    TRY(norm(step, &input, weight, &output));
    add_time(step, &step->times->rest);
    return ATTN_OK;
}

/* gate = silu(gate) * up, silu(x) = x / (1 + exp(-x)). */
static void activate(running_step *step) {
    const int64_t count = step->rows * step->config->intermediate_size;
    for (int64_t i = 0; i < count; ++i) {
        step->gate[i] = step->gate[i] / (1 + expf(-step->gate[i])) * step->up[i];
    }
    add_time(step, &step->times->rest);
}

/* ---- attention ---- */

/* Activations as (heads, rows, head_dim). */
static attn_status heads_of(const running_step *step, float *activations, int64_t heads,
                            attn_tensor *view) {
    const int64_t shape[] = {step->rows, heads * step->config->head_dim};
    TRY(attn_tensor_init(view, activations, ATTN_DTYPE_FLOAT32, 2, shape));
    return attn_tensor_split_heads(view, heads, view);
}

/* Norm, where the model has one, and rotation, both in place. */
static attn_status prepare(const running_step *step, const attn_tensor *rows, float *weight) {
    attn_tensor positions;
    TRY(attn_tensor_init(&positions, step->batch->positions, ATTN_DTYPE_INT64, 1, &step->rows));
    const attn_rope_params params = {
        .struct_size = sizeof params, .base = step->config->rope_base, .positions = &positions};
    if (weight != NULL) {
        TRY(norm(step, rows, weight, rows));
    }
    return attn_rope(step->context, rows, &params, rows);
}

/* The tensors behind an attn_kv: they have to live as long as it is used. */
typedef struct layer_cache {
    attn_tensor page_table;
    attn_tensor lengths;
    attn_kv kv;
} layer_cache;

static attn_status describe_cache(const engine_cache *cache, int64_t layer,
                                  layer_cache *described) {
    const int64_t table[] = {cache->num_sequences, cache->most_pages};
    TRY(attn_tensor_init(&described->page_table, cache->page_table, ATTN_DTYPE_INT32, 2, table));
    TRY(attn_tensor_init(&described->lengths, cache->lengths, ATTN_DTYPE_INT64, 1, table));
    const engine_pool *keys = &cache->keys[layer];
    const engine_pool *values = &cache->values[layer];
    described->kv = (attn_kv){.struct_size = sizeof described->kv,
                              .key = &keys->rows,
                              .value = &values->rows,
                              .page_table = &described->page_table,
                              .lengths = &described->lengths,
                              .key_scale = cache->has_scales ? &keys->scales : NULL,
                              .value_scale = cache->has_scales ? &values->scales : NULL};
    return ATTN_OK;
}

/* New keys and values go to the cache, and every sequence's new queries attend to all it holds: the
 * last query stands at the last key. */
static attn_status attend(running_step *step, const engine_cache *cache, int64_t index,
                          const engine_layer *layer) {
    const engine_config *config = step->config;
    const int64_t num_starts = step->batch->num_sequences + 1;
    attn_tensor query, key, value, mixed, starts;
    layer_cache described;
    TRY(heads_of(step, step->query, config->num_heads, &query));
    TRY(heads_of(step, step->key, config->num_kv_heads, &key));
    TRY(heads_of(step, step->value, config->num_kv_heads, &value));
    TRY(heads_of(step, step->mixed, config->num_heads, &mixed));
    TRY(attn_tensor_init(&starts, step->batch->starts, ATTN_DTYPE_INT64, 1, &num_starts));
    TRY(describe_cache(cache, index, &described));
    TRY(prepare(step, &query, layer->query_norm));
    TRY(prepare(step, &key, layer->key_norm));
    const attn_kv_append_params append = {.struct_size = sizeof append, .starts = &starts};
    TRY(attn_kv_append(step->context, &described.kv, &key, &value, &append));
    const attn_sdpa_params params = {.struct_size = sizeof params,
                                     .is_causal = 1,
                                     .align_end = 1,
                                     .enable_gqa = 1,
                                     .kv = &described.kv,
                                     .query_starts = &starts};
    TRY(attn_sdpa(step->context, &query, NULL, NULL, &params, &mixed, NULL, 0));
    add_time(step, &step->times->attention);
    return ATTN_OK;
}

/* ---- layers ---- */

static attn_status run_layer(running_step *step, const engine_cache *cache, int64_t index,
                             const engine_layer *layer) {
    const engine_config *config = step->config;
    const int64_t hidden = config->hidden_size;
    const int64_t features = config->num_heads * config->head_dim;
    const int64_t kv_features = config->num_kv_heads * config->head_dim;
    const int64_t inner = config->intermediate_size;
    TRY(norm_hidden(step, layer->attention_norm));
    project(step, step->normed, hidden, layer->query_weight, layer->query_bias, features,
            step->query, false);
    project(step, step->normed, hidden, layer->key_weight, layer->key_bias, kv_features, step->key,
            false);
    project(step, step->normed, hidden, layer->value_weight, layer->value_bias, kv_features,
            step->value, false);
    TRY(attend(step, cache, index, layer));
    project(step, step->mixed, features, layer->output_weight, NULL, hidden, step->hidden, true);
    TRY(norm_hidden(step, layer->mlp_norm));
    project(step, step->normed, hidden, layer->gate_weight, NULL, inner, step->gate, false);
    project(step, step->normed, hidden, layer->up_weight, NULL, inner, step->up, false);
    activate(step);
    project(step, step->gate, inner, layer->down_weight, NULL, hidden, step->hidden, true);
    return ATTN_OK;
}

static void embed(running_step *step, const engine_model *model) {
    const size_t hidden = (size_t)step->config->hidden_size;
    for (int64_t row = 0; row < step->rows; ++row) {
        memcpy(step->hidden + (size_t)row * hidden,
               model->embedding + (size_t)step->batch->tokens[row] * hidden,
               hidden * sizeof *step->hidden);
    }
}

/* Only a sequence's last row asks for logits: they are brought to the front. */
static void keep_last_rows(running_step *step) {
    const size_t hidden = (size_t)step->config->hidden_size;
    for (int64_t sequence = 0; sequence < step->batch->num_sequences; ++sequence) {
        const int64_t last = step->batch->starts[sequence + 1] - 1;
        memmove(step->hidden + (size_t)sequence * hidden, step->hidden + (size_t)last * hidden,
                hidden * sizeof *step->hidden);
    }
    step->rows = step->batch->num_sequences;
}

static attn_status run_all(running_step *step, const engine_model *model, const engine_cache *cache,
                           float *logits) {
    const engine_config *config = &model->config;
    step->clock = seconds();
    embed(step, model);
    for (int64_t layer = 0; layer < config->num_layers; ++layer) {
        TRY(run_layer(step, cache, layer, &model->layers[layer]));
    }
    keep_last_rows(step);
    TRY(norm_hidden(step, model->norm));
    project(step, step->normed, config->hidden_size, model->head, NULL, config->vocabulary_size,
            logits, false);
    return ATTN_OK;
}

/* Gives each of the activations its part of one block of memory. */
static float *place_activations(running_step *step) {
    const engine_config *config = step->config;
    const struct activation {
        float **place;
        int64_t features;
    } activations[] = {
        {&step->hidden, config->hidden_size},
        {&step->normed, config->hidden_size},
        {&step->query, config->num_heads * config->head_dim},
        {&step->mixed, config->num_heads * config->head_dim},
        {&step->key, config->num_kv_heads * config->head_dim},
        {&step->value, config->num_kv_heads * config->head_dim},
        {&step->gate, config->intermediate_size},
        {&step->up, config->intermediate_size},
    };
    enum { ACTIVATIONS = sizeof activations / sizeof activations[0] };
    int64_t count = 0;
    for (int i = 0; i < ACTIVATIONS; ++i) {
        count += step->rows * activations[i].features;
    }
    float *const memory = malloc((size_t)count * sizeof *memory);
    float *next = memory;
    for (int i = 0; memory != NULL && i < ACTIVATIONS; ++i) {
        *activations[i].place = next;
        next += step->rows * activations[i].features;
    }
    return memory;
}

attn_status engine_step(attn_context *context, const engine_model *model, engine_cache *cache,
                        const engine_batch *batch, float *logits, engine_times *times) {
    running_step step = {.context = context,
                         .config = &model->config,
                         .batch = batch,
                         .rows = batch->starts[batch->num_sequences],
                         .times = times};
    float *memory = place_activations(&step);
    if (memory == NULL) {
        return ATTN_ERROR_MEMORY;
    }
    const attn_status status = run_all(&step, model, cache, logits);
    free(memory);
    return status;
}
