/* SPDX-License-Identifier: BSD-3-Clause
 *
 * row_list.c: lists rows page by page, since pages may have one row each and a list is made for
 * every head.
 */
#include "problem/row_list.h"

#include "base/checked_size.h"
#include "problem/source_rows.h"

static void list_rows(const attni_sdpa_problem *problem, const attni_operand *operand,
                      int64_t page_stride, const attni_sequence *sequence, int64_t head,
                      attni_interval rows, const void **list) {
    const int64_t page_rows = problem->pages.rows;
    const attni_source_rows origin = attni_operand_rows(problem, operand, 0, head, 0);
    const int64_t step = origin.row_stride * operand->element_bytes;
    int64_t place = rows.begin / page_rows;
    int64_t skipped = rows.begin % page_rows;
    for (int64_t row = rows.begin; row < rows.end; skipped = 0, ++place) {
        const int64_t page = attni_page_of(problem, sequence, place);
        const int64_t end = attni_min(row + page_rows - skipped, rows.end);
        const char *at = attni_advance(origin.data, page * page_stride * operand->element_bytes +
                                                        skipped * step);
        for (; row < end; ++row) {
            *list++ = at;
            at += step;
        }
    }
}

void attni_list_keys(const attni_sdpa_problem *problem, const attni_sequence *sequence,
                     int64_t head, int64_t first, int64_t count, const void **list) {
    list_rows(problem, &problem->key, problem->pages.key_stride, sequence,
              head / problem->key_group, (attni_interval){first, first + count}, list);
}

void attni_list_values(const attni_sdpa_problem *problem, const attni_sequence *sequence,
                       int64_t head, int64_t first, int64_t count, const void **list) {
    list_rows(problem, &problem->value, problem->pages.value_stride, sequence,
              head / problem->value_group, (attni_interval){first, first + count}, list);
}
