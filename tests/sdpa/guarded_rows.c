/* SPDX-License-Identifier: BSD-3-Clause
 *
 * guarded_rows.c: see guarded_rows.h.
 */
#include "guarded_rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static _Noreturn void give_up(const char *problem) {
    fprintf(stderr, "guarded rows: %s\n", problem);
    abort();
}

guarded_rows guarded_rows_map(int64_t count, int64_t row_bytes, bool at_end) {
    guarded_rows rows = {.count = count, .row_bytes = row_bytes, .at_end = at_end};
    rows.machine_page = (int64_t)sysconf(_SC_PAGESIZE);
    if (row_bytes > rows.machine_page) {
        give_up("a row is longer than a page");
    }
    const size_t bytes = (size_t)((count + 2) * rows.machine_page);
    rows.base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (rows.base == MAP_FAILED) {
        give_up("out of memory");
    }
    return rows;
}

void guarded_rows_unmap(const guarded_rows *rows) {
    munmap(rows->base, (size_t)((rows->count + 2) * rows->machine_page));
}

char *guarded_row(const guarded_rows *rows, int64_t row) {
    const int64_t shift = rows->at_end ? rows->machine_page - rows->row_bytes : 0;
    return rows->base + (row + 1) * rows->machine_page + shift;
}

static bool is_open(const guarded_rows *rows, int64_t row, const bool *may_be_touched) {
    return row >= 0 && row < rows->count && may_be_touched[row];
}

/* Rows that follow one another are opened or closed together. */
void guarded_rows_close(const guarded_rows *rows, const bool *may_be_touched) {
    for (int64_t row = -1; row <= rows->count;) {
        const bool opens = is_open(rows, row, may_be_touched);
        int64_t end = row + 1;
        while (end <= rows->count && is_open(rows, end, may_be_touched) == opens) {
            ++end;
        }
        char *first = rows->base + (row + 1) * rows->machine_page;
        const int access = opens ? PROT_READ | PROT_WRITE : PROT_NONE;
        if (mprotect(first, (size_t)((end - row) * rows->machine_page), access) != 0) {
            give_up("the access to pages cannot be changed");
        }
        row = end;
    }
}
