/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bench_call_kv.c: where keys and values lie that are in pages, and query rows of sequences one
 * behind the other.
 */
#include "bench_call.h"

#include "program_exit.h"

/* Numbers of pages in an order that looks random: those of a cache that has been in use. */
static void shuffle_pages(int32_t *pages, int64_t count, uint64_t seed) {
    for (int64_t i = 0; i < count; i++) {
        pages[i] = (int32_t)i;
    }
    for (int64_t i = count - 1; i > 0; i--) {
        const int64_t other = (int64_t)(bench_random_bits(seed, (uint64_t)i) % (uint64_t)(i + 1));
        const int32_t page = pages[i];
        pages[i] = pages[other];
        pages[other] = page;
    }
}

int bench_pages_make(bench_call *call) {
    const bench_options *o = &call->options;
    const int64_t shape[] = {o->batch.value, o->keys.value / o->page.value};
    bench_tensor *table = &call->tensors[ROLE_PAGE_TABLE];
    const int exit_code = bench_tensor_make(table, "page_table", ATTN_DTYPE_INT32, 2, shape);
    if (exit_code == EXIT_DONE) {
        shuffle_pages(table->memory, table->count, (uint64_t)o->seed.value + 2000);
    }
    return exit_code;
}

int bench_query_starts_make(bench_call *call) {
    const bench_options *o = &call->options;
    const int64_t shape[] = {o->batch.value + 1};
    bench_tensor *starts = &call->tensors[ROLE_QUERY_STARTS];
    const int exit_code = bench_tensor_make(starts, "query_starts", ATTN_DTYPE_INT64, 1, shape);
    int64_t *start = starts->memory;
    for (int64_t b = 0; exit_code == EXIT_DONE && b <= o->batch.value; b++) {
        start[b] = b == 0 ? 0 : start[b - 1] + bench_query_rows(o, b - 1);
    }
    return exit_code;
}
