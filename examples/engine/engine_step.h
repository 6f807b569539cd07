/* SPDX-License-Identifier: BSD-3-Clause
 *
 * engine_step.h: one step of a decoder: new tokens of several sequences, each with as many as it
 * has (a whole prompt, or the last token), through all layers in one call for each product and
 * one for each layer's attention.
 */
#ifndef ENGINE_STEP_H
#define ENGINE_STEP_H

#include <stdint.h>

#include <attention/attention.h>

#include "engine_cache.h"
#include "engine_model.h"

/* The new tokens, those of sequence b at starts[b] to starts[b + 1] - 1. The cache has counted them
 * (engine_cache_grow). */
typedef struct engine_batch {
    int64_t num_sequences;
    int64_t *starts;    /* (num_sequences + 1) */
    int64_t *positions; /* (rows): of each token in its sequence */
    int32_t *tokens;    /* (rows) */
} engine_batch;

/* What steps have taken, in seconds. */
typedef struct engine_times {
    double attention; /* append, rotation and attention itself */
    double products;  /* matrix products: cblas_sgemm */
    double rest;      /* norms, activations */
} engine_times;

/* Runs a step. logits: (num_sequences, vocabulary_size), of each sequence's last token. Adds to
 * *times. What fails ends with the library's status, attn_last_error() says why; ATTN_ERROR_MEMORY
 * also where this file's own memory is out. */
attn_status engine_step(attn_context *context, const engine_model *model, engine_cache *cache,
                        const engine_batch *batch, float *logits, engine_times *times);

#endif
