/* SPDX-License-Identifier: BSD-3-Clause
 *
 * key_source_places.h: how many rows and keys the sequences of a case have, and where they lie.
 */
#ifndef ATTENTION_TESTS_KEY_SOURCE_PLACES_H
#define ATTENTION_TESTS_KEY_SOURCE_PLACES_H

#include "key_source_case.h"

/* Page sizes are level - FIRST_PAGES into page_sizes, and flat lists behind them. */
enum {
    KIND_TENSORS,
    KIND_STARTS,
    FIRST_PAGES,
    FIRST_FLAT = FIRST_PAGES + 4,
    NUM_KINDS = FIRST_FLAT + 2
};
enum source_rows { ROWS_ONE, ROWS_THREE, ROWS_SEVENTY, RAGGED_ONE, RAGGED_FEW, RAGGED_MANY };

extern const int64_t source_heads_of[4][2]; /* of query, of key and value */
extern const int64_t source_features_of[4][2];

int source_level(const source_case *built, enum source_factor which);

/* A tensor of `count` indices, and one of its numbers. */
attn_tensor *source_add_integers(source_case *built, int64_t count);
void source_store(const attn_tensor *integers, int64_t at, int64_t number);

void source_choose_rows(source_case *built);
void source_choose_keys(source_case *built);

/* Keys, values and what says where they are. */
void source_set_keys(source_case *built);

/* The index of an element of a sequence's key or value in the tensor of all. */
void source_place_key(const source_case *built, int64_t sequence, int64_t head, int64_t key,
                      int64_t feature, int64_t index[4]);

#endif
