/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_rope_changing.c: positions and lengths that turn wild at the worst moment, after they were
 * checked and before they are used: when the caller's own threads are asked to begin. Numbers may
 * then be wrong; memory outside the tables may not be touched, which lie beside a page without
 * access.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <attention/attention.h>

#include "support/guarded_memory.h"

enum { BATCHES = 40, HEADS = 8, ROWS = 16, FEATURES = 128, PAIRS = FEATURES / 2, PLACES = 64 };
enum { NUM_WILD = 7 };
static const int64_t wild[NUM_WILD] = {INT64_MIN, INT64_MAX, -1,     PLACES,
                                       1 << 20,   INT32_MIN, -PLACES};

/* The index tensor of a call, and what becomes of it. */
typedef struct changing {
    unsigned char *memory;
    int32_t dtype;
    int64_t count;
    int64_t number;
    int times;
} changing;

static void fill(const changing *indices, int64_t number) {
    for (int64_t i = 0; i < indices->count; ++i) {
        const int32_t narrow = (int32_t)number;
        if (indices->dtype == ATTN_DTYPE_INT64) {
            memcpy(indices->memory + i * (int64_t)sizeof number, &number, sizeof number);
        } else {
            memcpy(indices->memory + i * (int64_t)sizeof narrow, &narrow, sizeof narrow);
        }
    }
}

/* Whether the check accepts what was written. */
static bool is_legal(const changing *indices, bool are_lengths) {
    const int64_t number =
        indices->dtype == ATTN_DTYPE_INT64 ? indices->number : (int32_t)indices->number;
    return are_lengths ? number >= ROWS && number <= PLACES : number >= 0 && number < PLACES;
}

static int32_t change_and_run(void *state, int64_t count, attn_task_fn task, void *data) {
    changing *indices = state;
    fill(indices, indices->number);
    ++indices->times;
    for (int64_t i = 0; i < count; ++i) {
        task(data, i);
    }
    return 0;
}

static attn_tensor take(int32_t dtype, int32_t rank, const int64_t *shape, enum guarded_end end) {
    attn_tensor view;
    int64_t count = 1;
    for (int32_t axis = 0; axis < rank; ++axis) {
        count *= shape[axis];
    }
    const size_t bytes = (size_t)count * attn_dtype_size_bytes(dtype);
    unsigned char *memory = guarded_take(bytes, end);
    memset(memory, 0, bytes);
    assert_int_equal(attn_tensor_init(&view, memory, dtype, rank, shape), ATTN_OK);
    return view;
}

static void run(bool has_lengths, int32_t index_dtype, enum guarded_end end) {
    static float input[BATCHES * HEADS * ROWS * FEATURES],
        output[BATCHES * HEADS * ROWS * FEATURES];
    const int64_t shape[] = {BATCHES, HEADS, ROWS, FEATURES}, table[] = {PLACES, PAIRS};
    const int64_t places[] = {BATCHES, ROWS};
    attn_tensor from, to;
    assert_int_equal(attn_tensor_init(&from, input, ATTN_DTYPE_FLOAT32, 4, shape), ATTN_OK);
    assert_int_equal(attn_tensor_init(&to, output, ATTN_DTYPE_FLOAT32, 4, shape), ATTN_OK);
    const attn_tensor cosines = take(ATTN_DTYPE_FLOAT32, 2, table, end);
    const attn_tensor sines = take(ATTN_DTYPE_FLOAT32, 2, table, end);
    const attn_tensor indices = take(index_dtype, has_lengths ? 1 : 2, places, end);
    changing changes = {indices.data, index_dtype, has_lengths ? BATCHES : BATCHES * ROWS, 0, 0};
    const attn_context_config config = {.struct_size = sizeof config,
                                        .parallel_for = change_and_run,
                                        .parallel_for_state = &changes,
                                        .parallel_for_width = 2};
    const attn_rope_params params = {.struct_size = sizeof params,
                                     .cos = &cosines,
                                     .sin = &sines,
                                     .positions = has_lengths ? NULL : &indices,
                                     .lengths = has_lengths ? &indices : NULL};
    attn_context *context;
    assert_int_equal(attn_context_create(&config, &context), ATTN_OK);
    for (int i = 0; i < NUM_WILD; ++i) {
        fill(&changes, ROWS);
        changes.number = wild[i];
        assert_int_equal(attn_rope(context, &from, &params, &to), ATTN_OK);
        assert_int_equal(changes.times, i + 1);
        const attn_status expected = is_legal(&changes, has_lengths) ? ATTN_OK : ATTN_ERROR_VALUE;
        assert_int_equal(attn_rope(context, &from, &params, &to), expected);
        changes.times = i + 1;
    }
    attn_context_destroy(context);
    guarded_give_back(cosines.data);
    guarded_give_back(sines.data);
    guarded_give_back(indices.data);
}

static void wild_positions_and_lengths_stay_within_the_tables(void **state) {
    (void)state;
    for (int which = 0; which < 8; ++which) {
        run(which % 2 != 0, which / 2 % 2 == 0 ? ATTN_DTYPE_INT64 : ATTN_DTYPE_INT32,
            which / 4 == 0 ? GUARDED_BEGIN : GUARDED_PAST);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wild_positions_and_lengths_stay_within_the_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
