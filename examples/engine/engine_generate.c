/* SPDX-License-Identifier: BSD-3-Clause
 *
 * engine_generate.c: greedy generation for several sequences at once: one step with all prompts,
 * then one for each further token.
 */
#include "engine_generate.h"

#include <stdlib.h>
#include <string.h>

/* The memory of one generation. */
typedef struct generation {
    engine_cache cache;
    int64_t *starts;    /* (sequences + 1) */
    int64_t *positions; /* (rows of the first step) */
    int32_t *rows;      /* likewise: tokens of a step */
    float *logits;      /* (sequences, vocabulary_size) */
} generation;

static int64_t count_rows(const engine_prompts *prompts, int64_t *longest) {
    int64_t rows = 0;
    *longest = 0;
    for (int64_t sequence = 0; sequence < prompts->count; ++sequence) {
        rows += prompts->lengths[sequence];
        *longest = prompts->lengths[sequence] > *longest ? prompts->lengths[sequence] : *longest;
    }
    return rows;
}

static void release(generation *made) {
    engine_cache_free(&made->cache);
    free(made->starts);
    free(made->positions);
    free(made->rows);
    free(made->logits);
}

static attn_status create(generation *made, const engine_config *config,
                          const engine_prompts *prompts, int64_t num_tokens, int32_t dtype) {
    int64_t longest;
    const size_t rows = (size_t)count_rows(prompts, &longest);
    if (rows == 0) {
        return ATTN_ERROR_VALUE;
    }
    const size_t logits = (size_t)(prompts->count * config->vocabulary_size);
    *made = (generation){.starts = calloc((size_t)prompts->count + 1, sizeof *made->starts),
                         .positions = calloc(rows, sizeof *made->positions),
                         .rows = calloc(rows, sizeof *made->rows),
                         .logits = calloc(logits, sizeof *made->logits)};
    if (made->starts == NULL || made->positions == NULL || made->rows == NULL ||
        made->logits == NULL ||
        engine_cache_create(&made->cache, config, prompts->count, longest + num_tokens, dtype) !=
            0) {
        release(made);
        return ATTN_ERROR_MEMORY;
    }
    return ATTN_OK;
}

/* A sequence's next tokens become rows of the step. */
static void add_rows(generation *made, int64_t sequence, const int32_t *tokens, int64_t count) {
    const int64_t first = made->starts[sequence];
    const int64_t position = made->cache.lengths[sequence];
    for (int64_t i = 0; i < count; ++i) {
        made->positions[first + i] = position + i;
        made->rows[first + i] = tokens[i];
    }
    made->starts[sequence + 1] = first + count;
    (void)engine_cache_grow(&made->cache, sequence, count); /* created with room for all */
}

static int32_t likeliest(const float *logits, int64_t count) {
    int64_t best = 0;
    for (int64_t i = 1; i < count; ++i) {
        best = logits[i] > logits[best] ? i : best;
    }
    return (int32_t)best;
}

/* Runs a step and chooses token number `token` of each sequence. */
static attn_status step_and_choose(attn_context *context, const engine_model *model,
                                   generation *made, int64_t token, int64_t num_tokens,
                                   int32_t *tokens, engine_times *times) {
    const int64_t vocabulary = model->config.vocabulary_size;
    const engine_batch batch = {.num_sequences = made->cache.num_sequences,
                                .starts = made->starts,
                                .positions = made->positions,
                                .tokens = made->rows};
    const attn_status status =
        engine_step(context, model, &made->cache, &batch, made->logits, times);
    for (int64_t sequence = 0; status == ATTN_OK && sequence < batch.num_sequences; ++sequence) {
        tokens[sequence * num_tokens + token] =
            likeliest(made->logits + sequence * vocabulary, vocabulary);
    }
    return status;
}

attn_status engine_generate(attn_context *context, const engine_model *model,
                            const engine_prompts *prompts, int64_t num_tokens, int32_t dtype,
                            void (*told)(int64_t token, int64_t num_tokens), int32_t *tokens,
                            engine_outcome *outcome) {
    generation made;
    attn_status status = create(&made, &model->config, prompts, num_tokens, dtype);
    if (status != ATTN_OK) {
        return status;
    }
    *outcome = (engine_outcome){0};
    for (int64_t token = 0; status == ATTN_OK && token < num_tokens; ++token) {
        told(token, num_tokens);
        for (int64_t sequence = 0; sequence < prompts->count; ++sequence) {
            if (token == 0) {
                add_rows(&made, sequence, prompts->tokens[sequence], prompts->lengths[sequence]);
            } else {
                add_rows(&made, sequence, &tokens[sequence * num_tokens + token - 1], 1);
            }
        }
        status = step_and_choose(context, model, &made, token, num_tokens, tokens,
                                 token == 0 ? &outcome->prompts : &outcome->decoding);
    }
    outcome->cache_bytes = engine_cache_bytes(&made.cache);
    release(&made);
    return status;
}
