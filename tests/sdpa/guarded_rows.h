/* SPDX-License-Identifier: BSD-3-Clause
 *
 * guarded_rows.h: rows of memory that each have a page of the machine's own, so that any of them
 * may be without access.
 */
#ifndef TESTS_SDPA_GUARDED_ROWS_H
#define TESTS_SDPA_GUARDED_ROWS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct guarded_rows {
    char *base;
    int64_t count, row_bytes, machine_page;
    bool at_end; /* a row ends where its page does, else it begins there */
} guarded_rows;

/* Zeroes, all with access but for a page before and one behind. Ends the program when memory is out
 * or a row is longer than a page. */
guarded_rows guarded_rows_map(int64_t count, int64_t row_bytes, bool at_end);
void guarded_rows_unmap(const guarded_rows *rows);

/* Address of a row; of row `count` past the last. */
char *guarded_row(const guarded_rows *rows, int64_t row);

/* Takes the access to all rows but those marked. */
void guarded_rows_close(const guarded_rows *rows, const bool *may_be_touched);

#endif
