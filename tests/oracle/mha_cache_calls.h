/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_cache_calls.h: the calls that a layer with a cache stands for, on what it projects.
 */
#ifndef ATTENTION_TESTS_MHA_CACHE_CALLS_H
#define ATTENTION_TESTS_MHA_CACHE_CALLS_H

#include "mha_cache_case.h"

/* The step's queries, normalised and rotated: (N, L, H, D) of the score type, in the step's pool. */
attn_tensor *mha_cache_queries(mha_cache_case *built, attn_context *context);

/* Heads (N, H, rows, features) of (N, rows, H, features); without N as the case. */
attn_tensor mha_cache_heads(const mha_cache_case *built, const attn_tensor *rows);

/* Appends the step's keys and values, if there are any, to the cache of the calls. */
void mha_cache_append(mha_cache_case *built, attn_context *context);

/* The attention of these queries over that cache; output (N, L, H, Dv). */
void mha_cache_attend(mha_cache_case *built, attn_context *context, const attn_tensor *query,
                      const attn_tensor *output, attn_tensor *lse, attn_tensor *weights,
                      attn_tensor *scores);

#endif
