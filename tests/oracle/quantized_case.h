/* SPDX-License-Identifier: BSD-3-Clause
 *
 * quantized_case.h: one call of attn_sdpa over quantised keys and values, the same with caches that
 * are contiguous, and the same over the numbers they mean: as float32, without kv. Elements, scales
 * and zeros are placed and read here by what kv.h and tensor.h say.
 */
#ifndef ATTENTION_TESTS_QUANTIZED_CASE_H
#define ATTENTION_TESTS_QUANTIZED_CASE_H

#include <attention/sdpa.h>

#include "covering_array.h"
#include "support/random_tensor.h"

enum quantized_factor {
    QUANTIZED_ENGINE,
    QUANTIZED_KEY,
    QUANTIZED_VALUE,
    QUANTIZED_KEY_SCALE,
    QUANTIZED_VALUE_SCALE,
    QUANTIZED_KEY_ZERO,
    QUANTIZED_VALUE_ZERO,
    QUANTIZED_SCALE_TYPE,
    QUANTIZED_PLACE,
    QUANTIZED_ROWS,
    QUANTIZED_KEYS,
    QUANTIZED_HEADS,
    QUANTIZED_FEATURES,
    QUANTIZED_OPTIONS,
    QUANTIZED_OUTPUTS,
    QUANTIZED_LAYOUT,
    QUANTIZED_FACTORS
};

enum { QUANTIZED_BATCH = 3 };

/* With or without long sequences. */
factor_set quantized_factor_set(int is_long);

/* The call of the case, and of the same numbers as float32. */
typedef struct quantized_call {
    attn_tensor *key, *value; /* of numbers only */
    attn_tensor *output, *weights, *scores;
    attn_sdpa_params params;
} quantized_call;

typedef struct quantized_case {
    const factor_case *chosen;
    random_state random;
    tensor_pool pool;
    int64_t room; /* rows of each sequence */
    attn_tensor *query, *lengths, *page_table;
    attn_kv kv, plain_kv;
    quantized_call quantized, plain, numbers;
} quantized_case;

/* `built` must stay where it is. */
void quantized_case_build(quantized_case *built, const factor_case *chosen, uint64_t seed);
void quantized_case_destroy(quantized_case *built);

/* Whether scales may be multiplied with what is summed of a row instead of with its elements: the
 * result is then as near to the oracle's, but has other bits than that of numbers. */
int quantized_may_fold(const quantized_case *built);

int quantized_level(const quantized_case *built, int of_factor);

#endif
