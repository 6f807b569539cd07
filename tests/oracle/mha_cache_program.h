/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_cache_program.h: a test of layers with a cache: what it is given, every pair of settings on
 * every instruction set and engine, and what it says of a case that fails.
 */
#ifndef ATTENTION_TESTS_MHA_CACHE_PROGRAM_H
#define ATTENTION_TESTS_MHA_CACHE_PROGRAM_H

#include "mha_cache_case.h"

/* The message, with the step and settings of the case; never returns. */
void mha_cache_fail(const mha_cache_case *built, const char *message);

/* Bytes, since elements may be integers. */
void mha_cache_assert_same_caches(const mha_cache_case *built);

/* A call of the layer with as much workspace as the case says. Nothing is written or read where
 * nothing may be: in the case's tensors and in `pool`. */
void mha_cache_forward(mha_cache_case *built, attn_context *context, const attn_tensor *query,
                       const attn_tensor *key, const attn_tensor *value,
                       const attn_mha_params *params, const attn_tensor *output, tensor_pool *pool);

/* A case; of_calls computes what it is compared with, by one thread of the same engine. */
typedef void (*mha_cache_run_fn)(attn_context *context, attn_context *of_calls,
                                 const factor_case *chosen, uint64_t seed);

/* Every pair of settings; with --full also pairs chosen otherwise. */
int mha_cache_main(int argc, char **argv, const char *name, mha_cache_run_fn run);

#endif
