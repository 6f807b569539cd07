/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sequence_memory.c: where sequences are, and what of their memory may be touched.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sequence_memory.h"

int64_t sequence_element_bytes(const sequence_memory *made) {
    return (int64_t)attn_dtype_size_bytes(made->dtype);
}

int64_t sequence_columns(int tensor) {
    return tensor == QUERY || tensor == KEY ? KEY_COLS : VALUE_COLS;
}

int64_t sequence_room(const read_sequences *of, int64_t sequence) {
    const bool is_own = of->kind == BEHIND || of->kind == LISTED;
    const int64_t room = of->rooms[is_own ? sequence : 0];
    return of->page > 0 ? (room + of->page - 1) / of->page * of->page : room;
}

int64_t sequence_length(const read_sequences *of, int64_t sequence) {
    return of->has_lengths ? of->lengths[sequence] : sequence_room(of, sequence);
}

/* Where the row of key `key` is. */
int64_t sequence_place(const sequence_memory *made, int64_t sequence, int64_t key) {
    const read_sequences *of = made->of;
    if (of->page == 0) {
        return made->first_place[sequence] + key;
    }
    const int64_t page = made->table[made->first_place[sequence] + key / of->page];
    return (of->turns_pages ? made->num_pages - 1 - page : page) * of->page + key % of->page;
}

/* Row i of a sequence stands at its end, and sees keys [begin, end). */
void sequence_seen(const read_sequences *of, int64_t sequence, int64_t row, int64_t *begin,
                   int64_t *end) {
    const int64_t length = sequence_length(of, sequence);
    const int64_t position = length - of->rows[sequence] + row;
    *end = of->is_causal && position + 1 < length ? position + 1 : length;
    *begin = of->window > 0 && position - of->window > 0 ? position - of->window : 0;
}

/* Entries that no key needs are wild; the pages stand in an order of their own. */
static void lay_out_pages(sequence_memory *made) {
    const read_sequences *of = made->of;
    int64_t next = of->before;
    for (int64_t b = 0; b < of->count; ++b) {
        made->first_place[b] = next;
        next += sequence_room(of, b) / of->page;
    }
    made->first_place[of->count] = next;
    made->num_entries = next + of->behind;
    made->num_pages = made->num_entries + 1;
    assert_true(made->num_entries <= MOST_PLACES);
    for (int64_t e = 0; e < made->num_entries; ++e) {
        made->table[e] = e % 2 == 0 ? -1 : INT64_MAX;
    }
    for (int64_t b = 0; b < of->count; ++b) {
        for (int64_t row = 0; row < of->rows[b]; ++row) {
            int64_t begin, end;
            sequence_seen(of, b, row, &begin, &end);
            for (int64_t key = begin; key < end; ++key) {
                const int64_t place = key / of->page;
                const int64_t owner = place < of->shared ? 0 : b;
                made->table[made->first_place[b] + place] =
                    made->num_entries - 1 - (made->first_place[owner] + place);
            }
        }
    }
}

static void lay_out(sequence_memory *made) {
    const read_sequences *of = made->of;
    int64_t row = of->is_ragged ? of->before : 0, place = of->kind == BEHIND ? of->before : 0;
    for (int64_t b = 0; b < of->count; ++b) {
        made->first_row[b] = row;
        made->first_place[b] = place;
        made->lengths[b] = sequence_length(of, b);
        row += of->rows[b];
        place += sequence_room(of, b);
    }
    made->first_row[of->count] = row;
    made->first_place[of->count] = place;
    if (of->page > 0) {
        lay_out_pages(made);
    }
}

/* Rows of memory, those of no sequence included. */
static int64_t memory_rows(const sequence_memory *made, int tensor) {
    const read_sequences *of = made->of;
    if (tensor == QUERY || tensor == OUTPUT) {
        return made->first_row[of->count] + (of->is_ragged ? of->behind : 0);
    }
    return of->page > 0 ? made->num_pages * of->page
                        : made->first_place[of->count] + (of->kind == BEHIND ? of->behind : 0);
}

/* The axes and strides of the rows; those of head and column are alike everywhere. */
static attn_tensor view_of(const sequence_memory *made, int tensor) {
    const read_sequences *of = made->of;
    const guarded_rows *rows = &made->rows[tensor];
    const bool has_rows = tensor == QUERY || tensor == OUTPUT;
    const bool is_joined = has_rows ? of->is_ragged : of->kind == BEHIND;
    const int64_t each = has_rows                           ? of->rows[0]
                         : of->page > 0                     ? of->page
                         : rows->count > 0 && of->count > 0 ? rows->count / of->count
                                                            : 0;
    const int64_t groups = !has_rows && of->page > 0 ? made->num_pages : of->count;
    const int64_t step = rows->machine_page / sequence_element_bytes(made),
                  columns = sequence_columns(tensor);
    attn_tensor view = {.data = guarded_row(rows, 0),
                        .dtype = made->dtype,
                        .rank = 4,
                        .shape = {groups, HEADS, each, columns},
                        .strides = {each * step, columns, step, 1}};
    if (is_joined) {
        view = (attn_tensor){.data = guarded_row(rows, 0),
                             .dtype = made->dtype,
                             .rank = 3,
                             .shape = {HEADS, rows->count, columns},
                             .strides = {columns, step, 1}};
    }
    if (!has_rows && of->turns_pages) {
        view.data = guarded_row(rows, (groups - 1) * each);
        view.strides[0] = -view.strides[0];
    }
    return view;
}

static void set_element(char *row, int32_t dtype, int64_t at, double number) {
    const float narrow = (float)number;
    memcpy(row + at * (int64_t)attn_dtype_size_bytes(dtype),
           dtype == ATTN_DTYPE_FLOAT64 ? (const void *)&number : (const void *)&narrow,
           attn_dtype_size_bytes(dtype));
}

static void fill(const sequence_memory *made, int tensor) {
    for (int64_t row = 0; row < made->rows[tensor].count; ++row) {
        for (int64_t at = 0; at < HEADS * sequence_columns(tensor); ++at) {
            const int64_t mixed = (row * 7919 + at * 31 + tensor * 101) % 211;
            set_element(guarded_row(&made->rows[tensor], row), made->dtype, at,
                        (double)(mixed - 105) / 100);
        }
    }
}

static void mark(sequence_memory *made) {
    const read_sequences *of = made->of;
    for (int64_t b = 0; b < of->count; ++b) {
        for (int64_t row = 0; row < of->rows[b]; ++row) {
            int64_t begin, end;
            sequence_seen(of, b, row, &begin, &end);
            made->may_be_touched[QUERY][made->first_row[b] + row] = true;
            made->may_be_touched[OUTPUT][made->first_row[b] + row] = true;
            for (int64_t key = begin; key < end; ++key) {
                made->may_be_touched[KEY][sequence_place(made, b, key)] = true;
                made->may_be_touched[VALUE][sequence_place(made, b, key)] = true;
            }
        }
    }
}

void sequence_memory_build(sequence_memory *made, const read_sequences *of, int32_t dtype,
                           bool at_end) {
    *made = (sequence_memory){.of = of, .dtype = dtype};
    lay_out(made);
    for (int t = 0; t < TENSORS; ++t) {
        const int64_t count = memory_rows(made, t);
        made->rows[t] = guarded_rows_map(
            count, HEADS * sequence_columns(t) * sequence_element_bytes(made), at_end);
        made->may_be_touched[t] = calloc((size_t)count + 1, sizeof(bool));
        assert_non_null(made->may_be_touched[t]);
        made->views[t] = view_of(made, t);
        fill(made, t);
    }
    mark(made);
}

void sequence_memory_destroy(sequence_memory *made) {
    for (int t = 0; t < TENSORS; ++t) {
        guarded_rows_unmap(&made->rows[t]);
        free(made->may_be_touched[t]);
    }
}
