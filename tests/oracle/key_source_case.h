/* SPDX-License-Identifier: BSD-3-Clause
 *
 * key_source_case.h: one call over sequences whose keys lie in any of the ways that kv.h has, and
 * the calls of its sequences alone, as cases of factors.
 */
#ifndef ATTENTION_TESTS_KEY_SOURCE_CASE_H
#define ATTENTION_TESTS_KEY_SOURCE_CASE_H

#include <attention/sdpa.h>

#include "covering_array.h"
#include "support/random_tensor.h"

enum source_factor {
    SOURCE_ENGINE,
    SOURCE_KIND,
    SOURCE_LENGTHS,
    SOURCE_ROWS,
    SOURCE_KEYS,
    SOURCE_BATCH,
    SOURCE_HEADS,
    SOURCE_FEATURES,
    SOURCE_POSITIONS,
    SOURCE_MASKS,
    SOURCE_BIAS,
    SOURCE_OPTIONS,
    SOURCE_OUTPUTS,
    SOURCE_VALUES,
    SOURCE_KEY_LAYOUT,
    SOURCE_VALUE_LAYOUT,
    SOURCE_QUERY_LAYOUT,
    SOURCE_OUTPUT_LAYOUT,
    SOURCE_INDICES,
    SOURCE_WORKSPACE,
    SOURCE_THREADS,
    SOURCE_FACTORS
};

/* Engine and type; MIXED is a float32 query over bfloat16 keys and float16 values. */
enum source_engine {
    SOURCE_FUSED_FLOAT32,
    SOURCE_FUSED_BFLOAT16,
    SOURCE_FUSED_FLOAT16,
    SOURCE_FUSED_MIXED,
    SOURCE_NATIVE_FLOAT32,
    SOURCE_NATIVE_BFLOAT16,
    SOURCE_NATIVE_FLOAT64
};

enum source_workspace { SOURCE_LIBRARYS_MEMORY, SOURCE_EXACT_MEMORY };

enum { MOST_SEQUENCES = 9, NUM_SOURCE_THREADS = 3 };
extern const int32_t source_threads_of[NUM_SOURCE_THREADS];

factor_set source_factor_set(void);

/* What a call reads and writes, of all sequences or of one; the sequence's are contiguous. */
typedef struct source_call {
    tensor_pool pool;
    attn_tensor *query, *key, *value, *output, *lse, *weights, *scores;
    attn_kv kv;
    attn_sdpa_params params;
} source_call;

typedef struct source_case {
    const factor_case *chosen;
    random_state random;
    int32_t dtype;
    int64_t batch;
    int64_t rows[MOST_SEQUENCES];      /* of query */
    int64_t keys[MOST_SEQUENCES];      /* in use */
    int64_t columns;                   /* of mask, bias and weights */
    int64_t first_row[MOST_SEQUENCES]; /* of ragged queries */
    int64_t first_key[MOST_SEQUENCES]; /* of ragged keys, or entry of the flat page list */
    attn_tensor *page_table;
    source_call all;
} source_case;

/* `built` must stay where it is. */
void source_case_build(source_case *built, const factor_case *chosen, uint64_t seed);
void source_case_destroy(source_case *built);

/* The call of one sequence by itself, to be destroyed with pool_destroy. */
void source_sequence_build(source_case *built, int64_t sequence, source_call *alone);

/* Whether query rows stand one behind the other. */
int source_is_ragged(const source_case *built);

#endif
