/* SPDX-License-Identifier: BSD-3-Clause
 *
 * engine_generate.h: greedy generation for several sequences at once.
 */
#ifndef ENGINE_GENERATE_H
#define ENGINE_GENERATE_H

#include <stdint.h>

#include <attention/attention.h>

#include "engine_model.h"
#include "engine_step.h"

/* Token lists of different lengths, each of at least one token. */
typedef struct engine_prompts {
    int64_t count;
    int64_t *lengths;
    int32_t **tokens;
} engine_prompts;

/* What came of it besides tokens. */
typedef struct engine_outcome {
    engine_times prompts;  /* the first step */
    engine_times decoding; /* all others together */
    int64_t cache_bytes;
} engine_outcome;

/* Continues every prompt by num_tokens, always by the likeliest token, the first of them if there
 * are several. dtype: of the cache, see engine_cache_create. tokens: (count, num_tokens). Calls
 * told(number of the token, num_tokens) before each step. An error's status, as engine_step, or
 * ATTN_ERROR_VALUE where there is no token to begin with. */
attn_status engine_generate(attn_context *context, const engine_model *model,
                            const engine_prompts *prompts, int64_t num_tokens, int32_t dtype,
                            void (*told)(int64_t token, int64_t num_tokens), int32_t *tokens,
                            engine_outcome *outcome);

#endif
