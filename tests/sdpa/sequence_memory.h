/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sequence_memory.h: sequences of queries, keys and values, each row of which has a page of the
 * machine's own: behind one another, in caches, or in pages that a table or a list tells.
 */
#ifndef SEQUENCE_MEMORY_H
#define SEQUENCE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <attention/attention.h>

#include "guarded_rows.h"

enum { MOST_SEQUENCES = 3, MOST_PLACES = 512, HEADS = 2, KEY_COLS = 40, VALUE_COLS = 24 };

enum kind { CACHES, BEHIND, PAGED, LISTED };

/* Sequences, and where they are. Numbers that the case does not name are 0. */
typedef struct read_sequences {
    const char *name;
    enum kind kind;
    int64_t count;
    int64_t rows[MOST_SEQUENCES];    /* of query; alike where they are not ragged */
    int64_t rooms[MOST_SEQUENCES];   /* for keys; in caches and tables the first is that of all */
    int64_t lengths[MOST_SEQUENCES]; /* with has_lengths */
    int64_t page;                    /* rows of each */
    int64_t shared;                  /* pages that all sequences begin with */
    int64_t before, behind;          /* rows or entries of no sequence, of query and of keys */
    bool is_ragged, has_lengths, is_causal, turns_pages;
    int64_t window; /* keys that a row sees before itself; 0: all */
} read_sequences;

enum { QUERY, KEY, VALUE, OUTPUT, TENSORS };

typedef struct sequence_memory {
    const read_sequences *of;
    int32_t dtype;
    guarded_rows rows[TENSORS];
    bool *may_be_touched[TENSORS];
    attn_tensor views[TENSORS];
    int64_t first_row[MOST_SEQUENCES + 1], first_place[MOST_SEQUENCES + 1];
    int64_t table[MOST_PLACES], lengths[MOST_SEQUENCES];
    int64_t num_entries, table_length, num_pages;
} sequence_memory;

/* Bytes of an element; columns of a tensor; and of a sequence's keys those there is room for, those
 * in use, the row of memory that has one, and those that a row of query sees. */
int64_t sequence_element_bytes(const sequence_memory *made);
int64_t sequence_columns(int tensor);
int64_t sequence_room(const read_sequences *of, int64_t sequence);
int64_t sequence_length(const read_sequences *of, int64_t sequence);
int64_t sequence_place(const sequence_memory *made, int64_t sequence, int64_t key);
void sequence_seen(const read_sequences *of, int64_t sequence, int64_t row, int64_t *begin,
                   int64_t *end);

/* Maps and fills the memory, each row at the end of its page or at its begin, and marks what a call
 * may touch. */
void sequence_memory_build(sequence_memory *made, const read_sequences *of, int32_t dtype,
                           bool at_end);

void sequence_memory_destroy(sequence_memory *made);

#endif
