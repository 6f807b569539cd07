/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_changing_sequences.c: starts, tables of pages and lengths that another thread writes while a
 * call runs, forwards or back, as test_changing_lengths.c has it for lengths: memory outside the
 * tensors may not be touched, which lie beside pages without access, and calls end with ATTN_OK or
 * ATTN_ERROR_VALUE. First the numbers turn wild between the check and the computation, then at any
 * moment.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <attention/attention.h>

#include "support/guarded_memory.h"
#include "support/random.h"

enum {
    BATCH = 3,
    HEADS = 2,
    COLS = 8,
    MOST_NUMBERS = 1024, /* of one tensor */
    MOST_TENSORS = 16,
    WILD_ROUNDS = 24,
    CALLS_BESIDE_A_WRITER = 60
};

/* ---- numbers that change ---- */

typedef struct index_tensor {
    attn_tensor view;
    int64_t legal[MOST_NUMBERS];
    int64_t highest; /* legal ones are 0 to this */
} index_tensor;

enum { LENGTHS, TABLE, PAGE_STARTS, STARTS, QUERY_STARTS, NUM_INDEX_TENSORS };

typedef struct changing {
    index_tensor tensors[NUM_INDEX_TENSORS]; /* without data: not in the call */
    random_state random;
    int64_t times; /* that they turned wild */
    bool is_armed;
    _Atomic bool is_over;
} changing;

static void write_number(const attn_tensor *view, int64_t at, int64_t number) {
    const int32_t narrow = (int32_t)number;
    char *to = (char *)view->data + at * (int64_t)attn_dtype_size_bytes(view->dtype);
    memcpy(to, view->dtype == ATTN_DTYPE_INT64 ? (const void *)&number : (const void *)&narrow,
           attn_dtype_size_bytes(view->dtype));
}

static int64_t count_of(const attn_tensor *view) {
    int64_t count = 0;
    assert_int_equal(attn_tensor_count(view, &count), ATTN_OK);
    return count;
}

/* Half of the numbers are within bounds, if not in order. */
static int64_t wild_number(changing *numbers, const index_tensor *tensor) {
    static const int64_t wild[] = {INT64_MIN,        INT64_MAX,    -1, 1 << 20,
                                   INT32_MAX,        INT32_MIN,    1,  -(1 << 9),
                                   INT64_C(1) << 40, INT64_MAX / 3};
    const int64_t which = random_between(&numbers->random, 0, 19);
    return which < 10 ? wild[which] : random_between(&numbers->random, 0, tensor->highest + 1);
}

static void make_legal(changing *numbers) {
    for (int t = 0; t < NUM_INDEX_TENSORS; ++t) {
        const index_tensor *tensor = &numbers->tensors[t];
        for (int64_t i = 0; tensor->view.data != NULL && i < count_of(&tensor->view); ++i) {
            write_number(&tensor->view, i, tensor->legal[i]);
        }
    }
}

static void make_wild(changing *numbers) {
    for (int t = 0; t < NUM_INDEX_TENSORS; ++t) {
        const index_tensor *tensor = &numbers->tensors[t];
        for (int64_t i = 0; tensor->view.data != NULL && i < count_of(&tensor->view); ++i) {
            write_number(&tensor->view, i, wild_number(numbers, tensor));
        }
    }
    ++numbers->times;
}

/* An allocator that is asked after the check, and before numbers are used. */
static void *allocate_and_change(void *state, size_t bytes, size_t alignment) {
    changing *numbers = state;
    if (numbers->is_armed) {
        make_wild(numbers);
    }
    return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static void give_back(void *state, void *memory, size_t bytes, size_t alignment) {
    (void)state;
    (void)bytes;
    (void)alignment;
    free(memory);
}

/* ---- calls ---- */

enum kind { CACHES, BEHIND, PAGED, LISTED };

typedef struct changing_case {
    const char *name;
    int32_t dtype, engine;
    enum kind kind;
    int64_t page, rows, keys; /* rows and keys of a sequence, but for one or two */
    bool is_ragged, has_weights, is_causal, has_window, has_no_pages;
} changing_case;

enum { F32 = ATTN_DTYPE_FLOAT32, F64 = ATTN_DTYPE_FLOAT64, B16 = ATTN_DTYPE_BFLOAT16 };
enum { FUSED = ATTN_ENGINE_FUSED, BLAS = ATTN_ENGINE_BLAS };

static const changing_case cases[] = {
    {"caches, ragged", F32, FUSED, CACHES, 0, 70, 300, .is_ragged = true, .is_causal = true},
    {"behind", F32, FUSED, BEHIND, 0, 70, 300, .has_window = true},
    {"behind, ragged", F32, FUSED, BEHIND, 0, 20, 300, .is_ragged = true, .is_causal = true},
    {"behind, splits", B16, FUSED, BEHIND, 0, 1, 5000, .is_ragged = true},
    {"pages, blocks", F32, FUSED, PAGED, 16, 70, 300, .is_causal = true},
    {"pages, few rows", F32, FUSED, PAGED, 16, 2, 3000, .is_ragged = true},
    {"pages of one row", B16, FUSED, PAGED, 1, 3, 300, .is_ragged = true, .has_weights = true},
    {"list", B16, FUSED, LISTED, 32, 40, 400, .is_ragged = true, .has_window = true},
    {"list, few rows", F32, FUSED, LISTED, 17, 1, 3000, .has_weights = false},
    {"list, weights", F32, FUSED, LISTED, 33, 9, 300, .is_ragged = true, .has_weights = true},
    {"no pages", F32, FUSED, PAGED, 16, 3, 300, .has_no_pages = true},
    {"no pages in lists", F32, FUSED, LISTED, 16, 30, 300, .has_no_pages = true},
    {"BLAS, caches, ragged", F64, BLAS, CACHES, 0, 70, 300, .is_ragged = true, .is_causal = true},
    {"BLAS, behind", F32, BLAS, BEHIND, 0, 30, 300, .is_ragged = true, .has_weights = true},
    {"BLAS, pages", F64, BLAS, PAGED, 16, 70, 300, .has_window = true},
    {"BLAS, list", F32, BLAS, LISTED, 7, 5, 300, .is_ragged = true, .is_causal = true},
    {"BLAS, no pages", F64, BLAS, PAGED, 16, 3, 300, .has_no_pages = true},
};
enum { NUM_CASES = sizeof cases / sizeof cases[0] };

typedef struct attention_call {
    attn_tensor query, key, value, output, lse, weights;
    attn_tensor of_query, of_key, of_value; /* their gradients; of pages there are none */
    attn_kv kv;
    attn_sdpa_params params;
    void *taken[MOST_TENSORS];
    int num_taken;
} attention_call;

/* Zeros beside a page without access. */
static attn_tensor take(attention_call *call, enum guarded_end end, int32_t dtype, int32_t rank,
                        const int64_t *shape) {
    attn_tensor view;
    assert_int_equal(attn_tensor_init(&view, NULL, dtype, rank, shape), ATTN_OK);
    const size_t bytes = (size_t)count_of(&view) * attn_dtype_size_bytes(dtype);
    if (bytes > 0) {
        view.data = guarded_take(bytes, end);
        memset(view.data, 0, bytes);
        assert_true(call->num_taken < MOST_TENSORS);
        call->taken[call->num_taken++] = view.data;
    }
    return view;
}

/* (batch, heads, rows, columns), or without the batch axis with rows of all sequences. */
static attn_tensor take_rows(attention_call *call, enum guarded_end end, const changing_case *of,
                             int32_t rank, int64_t columns) {
    const int64_t shape[] = {BATCH, HEADS, of->is_ragged ? BATCH * of->rows : of->rows, columns};
    const int32_t dtype = rank == 3 && of->dtype == B16 ? F32 : of->dtype;
    return take(call, end, dtype, rank - of->is_ragged, shape + of->is_ragged);
}

static index_tensor *take_numbers(attention_call *call, enum guarded_end end, changing *numbers,
                                  int which, int32_t rank, const int64_t *shape, int64_t highest) {
    index_tensor *tensor = &numbers->tensors[which];
    const int32_t dtype = which % 2 == 0 ? ATTN_DTYPE_INT32 : ATTN_DTYPE_INT64;
    tensor->view = take(call, end, dtype, rank, shape);
    tensor->highest = highest;
    assert_true(count_of(&tensor->view) <= MOST_NUMBERS);
    return tensor;
}

/* Sequences of `each`, the last but one a little shorter and the last as much longer. */
static const attn_tensor *take_starts(attention_call *call, enum guarded_end end, changing *numbers,
                                      int which, int64_t each) {
    const int64_t count = BATCH + 1;
    index_tensor *starts = take_numbers(call, end, numbers, which, 1, &count, BATCH * each);
    for (int64_t i = 0; i <= BATCH; ++i) {
        starts->legal[i] = i * each - (i == BATCH - 1 && each > 1);
    }
    return &starts->view;
}

static void take_table(attention_call *call, enum guarded_end end, const changing_case *of,
                       changing *numbers, int64_t entries, int64_t pages) {
    const int is_list = of->kind == LISTED;
    const int64_t shape[] = {is_list ? BATCH * entries : BATCH, entries};
    index_tensor *table = take_numbers(call, end, numbers, TABLE, is_list ? 1 : 2, shape, pages);
    for (int64_t i = 0; i < BATCH * entries; ++i) {
        table->legal[i] = pages > 0 ? i * 7 % pages : -1;
    }
    call->kv.page_table = &table->view;
    if (is_list) {
        call->kv.page_starts = take_starts(call, end, numbers, PAGE_STARTS, entries);
    }
}

static void take_keys(attention_call *call, enum guarded_end end, const changing_case *of,
                      changing *numbers) {
    const int64_t entries = of->page > 0 ? (of->keys + of->page - 1) / of->page : 0;
    const int64_t pages = of->has_no_pages ? 0 : BATCH * entries;
    const int64_t shapes[][4] = {[CACHES] = {BATCH, HEADS, of->keys, COLS},
                                 [BEHIND] = {HEADS, BATCH * of->keys, COLS},
                                 [PAGED] = {pages, HEADS, of->page, COLS},
                                 [LISTED] = {pages, HEADS, of->page, COLS}};
    const int32_t rank = of->kind == BEHIND ? 3 : 4;
    call->key = take(call, end, of->dtype, rank, shapes[of->kind]);
    call->value = take(call, end, of->dtype, rank, shapes[of->kind]);
    call->of_key = take(call, end, of->dtype, rank, shapes[of->kind]);
    call->of_value = take(call, end, of->dtype, rank, shapes[of->kind]);
    call->kv = (attn_kv){.struct_size = sizeof call->kv, .key = &call->key, .value = &call->value};
    if (of->kind == BEHIND) {
        call->kv.starts = take_starts(call, end, numbers, STARTS, of->keys);
    } else if (of->page > 0) {
        take_table(call, end, of, numbers, entries, pages);
    }
    const int64_t batch = BATCH;
    index_tensor *lengths = take_numbers(call, end, numbers, LENGTHS, 1, &batch, of->keys);
    for (int64_t i = 0; i < BATCH; ++i) {
        lengths->legal[i] = of->has_no_pages ? 0 : of->keys - of->page - 1 - i;
    }
    call->kv.lengths = &lengths->view;
}

/* Every second case before the pages without access, the others behind them. */
static void take_call(attention_call *call, int which, changing *numbers) {
    const changing_case *of = &cases[which];
    const enum guarded_end end = which % 2 == 0 ? GUARDED_PAST : GUARDED_BEGIN;
    *call = (attention_call){0};
    numbers->random = random_seeded((uint64_t)which + 1);
    take_keys(call, end, of, numbers);
    call->query = take_rows(call, end, of, 4, COLS);
    call->of_query = take_rows(call, end, of, 4, COLS);
    call->output = take_rows(call, end, of, 4, COLS);
    call->lse = take_rows(call, end, of, 3, 0);
    call->params = (attn_sdpa_params){.struct_size = sizeof call->params,
                                      .is_causal = of->is_causal,
                                      .align_end = 1,
                                      .lse = &call->lse,
                                      .kv = &call->kv};
    if (of->has_weights) {
        call->weights = take_rows(call, end, of, 4, of->keys + of->page);
        call->weights.shape[call->weights.rank - 1] =
            of->kind == PAGED ? (of->keys + of->page - 1) / of->page * of->page
                              : of->keys + of->page;
        call->params.weights = &call->weights;
    }
    if (of->is_ragged) {
        call->params.query_starts = take_starts(call, end, numbers, QUERY_STARTS, of->rows);
    }
    if (of->has_window) {
        call->params.set = ATTN_SDPA_SET_WINDOW;
        call->params.window_left = 40;
        call->params.window_right = 5;
    }
    make_legal(numbers);
}

static void give_back_call(const attention_call *call) {
    for (int i = 0; i < call->num_taken; ++i) {
        guarded_give_back(call->taken[i]);
    }
}

static attn_context *context_of(changing *numbers, int32_t engine) {
    const attn_context_config config = {.struct_size = sizeof config,
                                        .num_threads = 2,
                                        .engine = engine,
                                        .allocate = allocate_and_change,
                                        .deallocate = give_back,
                                        .allocator_state = numbers};
    attn_context *context;
    assert_int_equal(attn_context_create(&config, &context), ATTN_OK);
    return context;
}

static attn_status attend(attn_context *context, const attention_call *call, void *workspace,
                          size_t bytes) {
    return attn_sdpa(context, &call->query, NULL, NULL, &call->params, &call->output, workspace,
                     bytes);
}

/* The gradients of the same, whose plan is one for all runs. */
static attn_status go_back(attn_context *context, const attention_call *call) {
    const bool has_pages = call->kv.page_table != NULL;
    const attn_sdpa_gradients gradients = {.struct_size = sizeof gradients,
                                           .output = &call->output,
                                           .query = &call->of_query,
                                           .key = has_pages ? NULL : &call->of_key,
                                           .value = has_pages ? NULL : &call->of_value};
    return attn_sdpa_backward(context, &call->query, NULL, NULL, &call->params, &call->output,
                              &gradients, NULL, 0);
}

static int64_t num_computed, num_refused;

static void count_end(const changing_case *of, attn_status status) {
    num_computed += status == ATTN_OK;
    num_refused += status == ATTN_ERROR_VALUE;
    if (status != ATTN_OK && status != ATTN_ERROR_VALUE) {
        fail_msg("%s: status %d: %s", of->name, (int)status, attn_last_error());
    }
}

/* ---- the worst moment ---- */

/* Where rows are not ragged there is no plan that may turn out too small. */
static void numbers_that_turn_wild_after_the_check(void **state) {
    (void)state;
    static changing numbers;
    for (int i = 0; i < NUM_CASES; ++i) {
        attention_call call;
        numbers = (changing){0};
        attn_context *context = context_of(&numbers, cases[i].engine);
        assert_int_equal(attn_context_start(context), ATTN_OK);
        take_call(&call, i, &numbers);
        for (int round = 0; round < 2 * WILD_ROUNDS; ++round) {
            const bool goes_back = round % 2 != 0;
            make_legal(&numbers);
            numbers.is_armed = true;
            const int64_t before = numbers.times;
            const attn_status status =
                goes_back ? go_back(context, &call) : attend(context, &call, NULL, 0);
            numbers.is_armed = false;
            count_end(&cases[i], status);
            if (numbers.times == before ||
                (status != ATTN_OK && (goes_back || !cases[i].is_ragged))) {
                fail_msg("%s: status %d: %s", cases[i].name, (int)status, attn_last_error());
            }
        }
        give_back_call(&call);
        attn_context_destroy(context);
    }
}

/* ---- any moment ---- */

static void *keep_changing(void *argument) {
    changing *numbers = argument;
    while (!atomic_load(&numbers->is_over)) {
        make_wild(numbers);
        make_legal(numbers);
        make_legal(numbers);
    }
    return NULL;
}

/* Every second call has a workspace of the bytes asked for, which lies beside pages without access
 * like the tensors. */
static void numbers_that_a_thread_writes(void **state) {
    (void)state;
    static changing numbers, nothing;
    for (int i = 0; i < NUM_CASES; ++i) {
        attention_call call;
        pthread_t writer;
        size_t bytes = 0;
        memset(&numbers, 0, sizeof numbers);
        attn_context *context = context_of(&nothing, cases[i].engine);
        take_call(&call, i, &numbers);
        assert_int_equal(attn_sdpa_workspace_bytes(context, &call.query, NULL, NULL, &call.params,
                                                   &call.output, &bytes),
                         ATTN_OK);
        unsigned char *workspace =
            guarded_take(bytes + 1, i % 2 == 0 ? GUARDED_PAST : GUARDED_BEGIN);
        unsigned char *exact = workspace + (i % 2 == 0);
        assert_int_equal(pthread_create(&writer, NULL, keep_changing, &numbers), 0);
        for (int round = 0; round < CALLS_BESIDE_A_WRITER; ++round) {
            count_end(&cases[i], attend(context, &call, round % 2 == 0 ? exact : NULL, bytes));
            count_end(&cases[i], go_back(context, &call));
        }
        atomic_store(&numbers.is_over, true);
        pthread_join(writer, NULL);
        guarded_give_back(workspace);
        give_back_call(&call);
        attn_context_destroy(context);
    }
    printf("%lld calls were computed, %lld refused\n", (long long)num_computed,
           (long long)num_refused);
    assert_true(num_computed > 0 && num_refused > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_that_turn_wild_after_the_check),
        cmocka_unit_test(numbers_that_a_thread_writes),
    };
    return cmocka_run_group_tests_name("changing sequences", tests, NULL, NULL);
}
