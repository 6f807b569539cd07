/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_sequence_reads.c: of keys, values and query rows that sequences share or lie in pages, none
 * is read that belongs to no sequence, stands past a length or in a page that no row sees, and no
 * output row of no sequence is written. Each row of memory has a page of the machine's own, and
 * those that may not be touched are without access. What is computed has the bits of each sequence
 * alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sequence_memory.h"

static const read_sequences cases[] = {
    {"behind one another",
     BEHIND,
     3,
     {2, 70, 1},
     {40, 90, 17},
     {33, 90, 1},
     .before = 3,
     .behind = 2,
     .is_ragged = true,
     .has_lengths = true},
    {"no length is given", BEHIND, 3, {5, 5, 5}, {40, 90, 17}, .before = 1, .behind = 1},
    {"nobody has a first key", BEHIND, 3, {3, 3, 3}, {0, 50, 20}, .behind = 4, .is_ragged = true},
    {"nobody has a last key", BEHIND, 3, {3, 1, 4}, {50, 20, 0}, .behind = 4, .is_ragged = true},
    {"no key in the middle", BEHIND, 3, {3, 1, 4}, {50, 0, 20}, .is_ragged = true},
    {"one sequence without a key", BEHIND, 1, {3}, {0}, .before = 2, .is_ragged = true},
    {"no first row", BEHIND, 3, {0, 5, 3}, {30, 30, 30}, .before = 2, .is_ragged = true},
    {"no last row", PAGED, 3, {5, 3, 0}, {48}, .page = 16, .is_ragged = true},
    {"no row in the middle",
     LISTED,
     3,
     {5, 0, 3},
     {48, 30, 31},
     {48, 30, 31},
     .page = 16,
     .is_ragged = true,
     .has_lengths = true},
    {"one sequence without a row", PAGED, 1, {0}, {48}, .page = 16, .before = 1, .is_ragged = true},
    {"no rows and no keys", BEHIND, 2, {0, 0}, {0, 0}, .is_ragged = true},
    {"no sequence", BEHIND, 0, .before = 3, .behind = 2, .is_ragged = true},
    {"no sequence in pages", PAGED, 0, .rooms = {32}, .page = 16, .before = 1, .is_ragged = true},
    {"no sequence in lists", LISTED, 0, .page = 16, .behind = 2, .is_ragged = true},
    {"caches", CACHES, 3, {9, 9, 9}, {100}, {60, 100, 0}, .has_lengths = true},
    {"caches, ragged",
     CACHES,
     3,
     {1, 40, 9},
     {100},
     {60, 100, 7},
     .before = 1,
     .behind = 1,
     .is_ragged = true,
     .has_lengths = true,
     .is_causal = true},
    {"pages that a window passed",
     PAGED,
     3,
     {1, 3, 40},
     {160},
     {150, 33, 159},
     .page = 16,
     .is_ragged = true,
     .has_lengths = true,
     .is_causal = true,
     .window = 35},
    {"a page beyond all keys", PAGED, 2, {4, 4}, {64}, {5, 3}, .page = 64, .has_lengths = true},
    {"pages that sequences share",
     PAGED,
     3,
     {1, 30, 2},
     {96},
     {80, 90, 33},
     .page = 16,
     .shared = 2,
     .is_ragged = true,
     .has_lengths = true},
    {"pages from the last to the first",
     PAGED,
     2,
     {1, 20},
     {130},
     {130, 77},
     .page = 13,
     .is_ragged = true,
     .has_lengths = true,
     .turns_pages = true},
    {"lists",
     LISTED,
     3,
     {1, 20, 2},
     {70, 10, 33},
     {65, 9, 33},
     .page = 17,
     .before = 2,
     .behind = 3,
     .is_ragged = true,
     .has_lengths = true,
     .is_causal = true},
    {"lists that sequences share",
     LISTED,
     2,
     {6, 6},
     {70, 90},
     {65, 90},
     .page = 1,
     .shared = 50,
     .has_lengths = true},
    {"many keys, few rows",
     PAGED,
     2,
     {1, 3},
     {1200},
     {1177, 640},
     .page = 32,
     .is_ragged = true,
     .has_lengths = true,
     .is_causal = true,
     .window = 700},
    {"many keys of lists",
     LISTED,
     2,
     {2, 1},
     {1200, 96},
     {1200, 96},
     .page = 16,
     .before = 1,
     .is_ragged = true,
     .has_lengths = true},
};
enum { NUM_CASES = sizeof cases / sizeof cases[0] };

/* ---- the calls ---- */

static void assert_ok(const read_sequences *of, attn_status status) {
    if (status != ATTN_OK) {
        fail_msg("%s: %s: %s", of->name, attn_status_name(status), attn_last_error());
    }
}

static attn_tensor indices(const int64_t *data, int32_t rank, int64_t first, int64_t second) {
    attn_tensor view;
    const int64_t shape[] = {first, second};
    assert_int_equal(
        attn_tensor_init(&view, (void *)(uintptr_t)data, ATTN_DTYPE_INT64, rank, shape), ATTN_OK);
    return view;
}

static attn_sdpa_params params_of(const read_sequences *of) {
    attn_sdpa_params params = {
        .struct_size = sizeof params, .is_causal = of->is_causal, .align_end = 1};
    if (of->window > 0) {
        params.set = ATTN_SDPA_SET_WINDOW;
        params.window_left = of->window;
        params.window_right = -1;
    }
    return params;
}

static void attend(attn_context *context, sequence_memory *made) {
    const read_sequences *of = made->of;
    const attn_tensor lengths = indices(made->lengths, 1, of->count, 0);
    const attn_tensor starts = indices(made->first_place, 1, of->count + 1, 0);
    const attn_tensor query_starts = indices(made->first_row, 1, of->count + 1, 0);
    const int64_t each = of->page > 0 ? sequence_room(of, 0) / of->page : 0;
    const attn_tensor table = of->kind == LISTED
                                  ? indices(made->table, 1, made->num_entries, 0)
                                  : indices(made->table + of->before, 2, of->count, each);
    const attn_kv kv = {.struct_size = sizeof kv,
                        .key = &made->views[KEY],
                        .value = &made->views[VALUE],
                        .page_table = of->page > 0 ? &table : NULL,
                        .page_starts = of->kind == LISTED ? &starts : NULL,
                        .starts = of->kind == BEHIND ? &starts : NULL,
                        .lengths = of->has_lengths ? &lengths : NULL};
    attn_sdpa_params params = params_of(of);
    params.kv = &kv;
    params.query_starts = of->is_ragged ? &query_starts : NULL;
    for (int t = 0; t < TENSORS; ++t) {
        guarded_rows_close(&made->rows[t], made->may_be_touched[t]);
    }
    assert_ok(of, attn_sdpa(context, &made->views[QUERY], NULL, NULL, &params, &made->views[OUTPUT],
                            NULL, 0));
}

/* ---- a sequence alone ---- */

enum { MOST_ROWS = 70, MOST_KEYS = 1200 };
typedef union alone_memory {
    double numbers[HEADS * MOST_KEYS * KEY_COLS];
    char bytes[1];
} alone_memory;
static alone_memory alone[TENSORS];

/* Contiguous (HEADS, count, columns), copied where the sequence may see it, else zeros. */
static attn_tensor take_alone(const sequence_memory *made, int tensor, int64_t sequence,
                              int64_t count) {
    const int64_t columns = sequence_columns(tensor),
                  bytes = columns * sequence_element_bytes(made);
    const int64_t shape[] = {HEADS, count, columns};
    memset(&alone[tensor], 0, sizeof alone[tensor]);
    for (int64_t head = 0; head < HEADS; ++head) {
        for (int64_t i = 0; i < count; ++i) {
            const bool is_key = tensor == KEY || tensor == VALUE;
            int64_t place = made->first_row[sequence] + i;
            if (is_key) {
                int64_t begin, end, unused;
                sequence_seen(made->of, sequence, 0, &begin, &unused);
                sequence_seen(made->of, sequence, made->of->rows[sequence] - 1, &unused, &end);
                if (i < begin || i >= end) {
                    continue;
                }
                place = sequence_place(made, sequence, i);
            }
            memcpy(alone[tensor].bytes + (head * count + i) * bytes,
                   guarded_row(&made->rows[tensor], place) + head * bytes, (size_t)bytes);
        }
    }
    attn_tensor view;
    assert_int_equal(attn_tensor_init(&view, &alone[tensor], made->dtype, 3, shape), ATTN_OK);
    return view;
}

static void compare(attn_context *context, const sequence_memory *made) {
    const read_sequences *of = made->of;
    for (int64_t b = 0; b < of->count; ++b) {
        const int64_t rows = of->rows[b], bytes = VALUE_COLS * sequence_element_bytes(made);
        if (rows == 0) {
            continue;
        }
        const attn_tensor query = take_alone(made, QUERY, b, rows);
        const attn_tensor key = take_alone(made, KEY, b, sequence_length(of, b));
        const attn_tensor value = take_alone(made, VALUE, b, sequence_length(of, b));
        const attn_tensor output = take_alone(made, OUTPUT, b, 0);
        attn_tensor whole = output;
        whole.shape[1] = rows;
        whole.strides[0] = rows * VALUE_COLS;
        const attn_sdpa_params params = params_of(of);
        assert_ok(of, attn_sdpa(context, &query, &key, &value, &params, &whole, NULL, 0));
        for (int64_t i = 0; i < HEADS * rows; ++i) {
            const char *got = guarded_row(&made->rows[OUTPUT], made->first_row[b] + i % rows);
            if (memcmp(got + i / rows * bytes, alone[OUTPUT].bytes + i * bytes, (size_t)bytes) !=
                0) {
                fail_msg("%s: sequence %lld has other numbers than alone in head %lld, row %lld",
                         of->name, (long long)b, (long long)(i / rows), (long long)(i % rows));
            }
        }
    }
}

/* ---- the test ---- */

/* Every engine, its kernels and types. A BLAS keeps no bits. */
typedef struct engine_choice {
    int32_t dtype, engine;
} engine_choice;

static const engine_choice engines[] = {
    {ATTN_DTYPE_FLOAT32, ATTN_ENGINE_FUSED},
    {ATTN_DTYPE_FLOAT32, ATTN_ENGINE_BLAS},
    {ATTN_DTYPE_FLOAT64, ATTN_ENGINE_BLAS},
};

static void attend_all(attn_context *context, int32_t dtype) {
    static sequence_memory made;
    for (int i = 0; i < NUM_CASES; ++i) {
        for (int at_end = 0; at_end < 2; ++at_end) {
            sequence_memory_build(&made, &cases[i], dtype, at_end);
            attend(context, &made);
            compare(context, &made);
            sequence_memory_destroy(&made);
        }
    }
}

static void what_no_row_sees_is_not_read_and_what_nobody_has_is_not_written(void **state) {
    (void)state;
    for (int32_t k = 0; attn_kernels_name(k) != NULL; ++k) {
        for (size_t e = 0; e < sizeof engines / sizeof engines[0]; ++e) {
            const attn_context_config config = {.struct_size = sizeof config,
                                                .num_threads = 2,
                                                .engine = engines[e].engine,
                                                .gemm = ATTN_GEMM_NATIVE,
                                                .kernels = attn_kernels_name(k)};
            attn_context *context;
            assert_int_equal(attn_context_create(&config, &context), ATTN_OK);
            attend_all(context, engines[e].dtype);
            attn_context_destroy(context);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_no_row_sees_is_not_read_and_what_nobody_has_is_not_written),
    };
    return cmocka_run_group_tests_name("sequence reads", tests, NULL, NULL);
}
