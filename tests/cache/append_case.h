/* SPDX-License-Identifier: BSD-3-Clause
 *
 * append_case.h: a random call of attn_kv_append, with what every element of the cache holds
 * afterwards.
 */
#ifndef ATTENTION_TESTS_APPEND_CASE_H
#define ATTENTION_TESTS_APPEND_CASE_H

#include <attention/kv.h>

#include "support/oracle_tensor.h"
#include "support/random_tensor.h"

enum { MOST_APPEND_SEQUENCES = 5, MOST_APPEND_ROWS = 40 };

typedef struct append_case {
    random_state random;
    tensor_pool pool;
    int kind; /* 0: a tensor for each sequence, 1: starts, 2: pages, 3: a flat list of pages */
    int64_t batch, page;
    int64_t rooms[MOST_APPEND_SEQUENCES];      /* rows of the cache */
    int64_t rows[MOST_APPEND_SEQUENCES];       /* new ones */
    int64_t first_row[MOST_APPEND_SEQUENCES];  /* of the new ones, where they are ragged */
    int64_t first_room[MOST_APPEND_SEQUENCES]; /* of starts, or entry of the page table */
    int64_t places[MOST_APPEND_SEQUENCES][MOST_APPEND_ROWS];
    int is_ragged;
    attn_tensor *cached[2], *new_rows[2], *page_table;
    double *expected[2]; /* every element of cached, in C order */
    attn_kv kv;
    attn_kv_append_params params;
} append_case;

/* `built` must stay where it is. */
void append_case_build(append_case *built, uint64_t seed);
void append_case_destroy(append_case *built);

#endif
