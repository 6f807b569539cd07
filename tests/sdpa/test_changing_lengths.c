/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_changing_lengths.c: lengths and offsets that another thread writes while a call of attention,
 * forwards or back, runs. Numbers may then be wrong; memory outside the tensors may not be touched:
 * they lie before pages without access, and calls end with a status. First the lengths turn wild at
 * the worst moment, between the check and the computation, when the workspace is asked for; then at
 * any, by a thread of their own.
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

enum {
    BATCH = 3,
    HEADS = 2,
    MOST_KEYS = 5000,
    COLS = 8,
    NUM_WILD = 8,
    CALLS_BESIDE_A_WRITER = 120
};

static const int64_t wild[NUM_WILD] = {INT64_MIN, INT64_MAX,        -1,        1 << 20, INT32_MAX,
                                       INT32_MIN, INT64_C(1) << 40, -MOST_KEYS};

/* ---- index tensors that change ---- */

typedef struct changing {
    unsigned char *lengths, *offsets; /* BATCH of each, in guarded memory */
    int32_t dtype;
    int64_t legal_length;
    int which; /* of the wild numbers is next */
    _Atomic bool is_over;
} changing;

static void write_index(unsigned char *to, int32_t dtype, int64_t at, int64_t value) {
    if (dtype == ATTN_DTYPE_INT64) {
        memcpy(to + at * (int64_t)sizeof value, &value, sizeof value);
    } else {
        const int32_t narrow = (int32_t)value;
        memcpy(to + at * (int64_t)sizeof narrow, &narrow, sizeof narrow);
    }
}

static void make_legal(const changing *indices) {
    for (int64_t i = 0; i < BATCH; ++i) {
        write_index(indices->lengths, indices->dtype, i, indices->legal_length - i);
        write_index(indices->offsets, indices->dtype, i, i);
    }
}

static void make_wild(changing *indices) {
    for (int64_t i = 0; i < BATCH; ++i) {
        write_index(indices->lengths, indices->dtype, i, wild[indices->which++ % NUM_WILD]);
        write_index(indices->offsets, indices->dtype, i, wild[indices->which++ % NUM_WILD]);
    }
}

/* An allocator that is asked after the check, and before lengths are used. */
static void *allocate_and_change(void *state, size_t bytes, size_t alignment) {
    changing *indices = state;
    if (indices->lengths != NULL) {
        make_wild(indices);
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

/* Strides of output: side by side, or such that softmax needs scratch memory. */
typedef struct changing_case {
    const char *name;
    int32_t dtype, engine;
    int64_t rows, keys;
    bool has_weights, averages, aligns_end, is_causal, has_window;
} changing_case;

static const changing_case cases[] = {
    {"fused, blocks", ATTN_DTYPE_FLOAT32, ATTN_ENGINE_FUSED, 70, 300, false, false, false, true,
     false},
    {"fused, window", ATTN_DTYPE_FLOAT32, ATTN_ENGINE_FUSED, 70, 300, false, false, false, false,
     true},
    {"fused, weights", ATTN_DTYPE_FLOAT32, ATTN_ENGINE_FUSED, 70, 300, true, false, false, false,
     true},
    {"fused, averages", ATTN_DTYPE_FLOAT32, ATTN_ENGINE_FUSED, 70, 300, true, true, false, true,
     false},
    {"fused, end", ATTN_DTYPE_FLOAT32, ATTN_ENGINE_FUSED, 70, 300, false, false, true, true, false},
    {"fused, splits", ATTN_DTYPE_FLOAT32, ATTN_ENGINE_FUSED, 1, MOST_KEYS, false, false, false,
     false, false},
    {"fused, splits of a window", ATTN_DTYPE_FLOAT32, ATTN_ENGINE_FUSED, 40, MOST_KEYS, false,
     false, false, false, true},
    {"fused, few rows", ATTN_DTYPE_FLOAT32, ATTN_ENGINE_FUSED, 2, 300, true, false, false, true,
     false},
    {"BLAS, float32", ATTN_DTYPE_FLOAT32, ATTN_ENGINE_BLAS, 70, 300, true, false, false, true,
     false},
    {"BLAS, float64", ATTN_DTYPE_FLOAT64, ATTN_ENGINE_BLAS, 70, 300, true, false, false, false,
     true},
    {"BLAS, averages", ATTN_DTYPE_FLOAT64, ATTN_ENGINE_BLAS, 70, 300, true, true, false, true,
     false},
    {"BLAS, end", ATTN_DTYPE_FLOAT64, ATTN_ENGINE_BLAS, 300, 40, false, false, true, true, false},
};
enum { NUM_CASES = sizeof cases / sizeof cases[0] };

static int64_t count_of(int32_t rank, const int64_t *shape) {
    int64_t count = 1;
    for (int32_t axis = 0; axis < rank; ++axis) {
        count *= shape[axis];
    }
    return count;
}

/* Zeros, the page behind them without access. */
static attn_tensor take(int32_t dtype, int32_t rank, const int64_t *shape) {
    const size_t bytes = (size_t)count_of(rank, shape) * attn_dtype_size_bytes(dtype);
    unsigned char *memory = guarded_take(bytes, GUARDED_PAST);
    attn_tensor view = {0};
    memset(memory, 0, bytes);
    if (attn_tensor_init(&view, memory, dtype, rank, shape) != ATTN_OK) {
        abort();
    }
    return view;
}

static void take_indices(changing *indices, int32_t dtype, int64_t keys, attn_tensor *lengths,
                         attn_tensor *offsets) {
    *lengths = take(dtype, 2, (int64_t[]){BATCH, 1});
    *offsets = take(dtype, 2, (int64_t[]){BATCH, 1});
    lengths->rank = offsets->rank = 1;
    indices->lengths = lengths->data;
    indices->offsets = offsets->data;
    indices->dtype = dtype;
    indices->legal_length = keys;
    make_legal(indices);
}

static attn_context *context_of(changing *indices, int32_t engine) {
    const attn_context_config config = {.struct_size = sizeof config,
                                        .num_threads = 2,
                                        .engine = engine,
                                        .allocate = allocate_and_change,
                                        .deallocate = give_back,
                                        .allocator_state = indices};
    attn_context *context;
    assert_int_equal(attn_context_create(&config, &context), ATTN_OK);
    return context;
}

typedef struct attention_call {
    attn_tensor query, key, value, output, lse, weights, lengths, offsets;
    attn_tensor of_query, of_key, of_value; /* their gradients */
    attn_sdpa_params params;
} attention_call;

static void take_call(attention_call *call, const changing_case *of, changing *indices,
                      int32_t index_dtype) {
    const int64_t rows = of->rows;
    const int64_t keys = of->keys;
    call->query = take(of->dtype, 4, (int64_t[]){BATCH, HEADS, rows, COLS});
    call->key = take(of->dtype, 4, (int64_t[]){BATCH, HEADS, keys, COLS});
    call->value = take(of->dtype, 4, (int64_t[]){BATCH, HEADS, keys, COLS});
    call->output = take(of->dtype, 4, (int64_t[]){BATCH, HEADS, rows, COLS});
    call->lse = take(of->dtype, 3, (int64_t[]){BATCH, HEADS, rows});
    call->of_query = take(of->dtype, 4, call->query.shape);
    call->of_key = take(of->dtype, 4, call->key.shape);
    call->of_value = take(of->dtype, 4, call->value.shape);
    call->weights = of->averages ? take(of->dtype, 3, (int64_t[]){BATCH, rows, keys})
                                 : take(of->dtype, 4, (int64_t[]){BATCH, HEADS, rows, keys});
    take_indices(indices, index_dtype, keys, &call->lengths, &call->offsets);
    call->params = (attn_sdpa_params){
        .struct_size = sizeof call->params,
        .is_causal = of->is_causal,
        .align_end = of->aligns_end,
        .key_lengths = &call->lengths,
        .query_offset = of->aligns_end ? NULL : &call->offsets,
        .lse = &call->lse,
        .weights = of->has_weights ? &call->weights : NULL,
    };
    if (of->has_window) {
        call->params.set = ATTN_SDPA_SET_WINDOW;
        call->params.window_left = 9;
        call->params.window_right = 5;
    }
}

static void give_back_call(const attention_call *call) {
    const attn_tensor *const all[] = {&call->query,    &call->key,    &call->value,
                                      &call->output,   &call->lse,    &call->weights,
                                      &call->of_query, &call->of_key, &call->of_value,
                                      &call->lengths,  &call->offsets};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; ++i) {
        guarded_give_back(all[i]->data);
    }
}

static attn_status attend(attn_context *context, const attention_call *call) {
    return attn_sdpa(context, &call->query, &call->key, &call->value, &call->params, &call->output,
                     NULL, 0);
}

/* The gradients of the same. */
static attn_status go_back(attn_context *context, const attention_call *call) {
    const attn_sdpa_gradients gradients = {.struct_size = sizeof gradients,
                                           .output = &call->output,
                                           .query = &call->of_query,
                                           .key = &call->of_key,
                                           .value = &call->of_value};
    return attn_sdpa_backward(context, &call->query, &call->key, &call->value, &call->params,
                              &call->output, &gradients, NULL, 0);
}

typedef attn_status (*call_function)(attn_context *context, const attention_call *call);
static const call_function functions[] = {attend, go_back};
enum { NUM_FUNCTIONS = sizeof functions / sizeof functions[0] };

/* Rows of softmax side by side, or two elements apart, for which a call takes scratch memory. */
typedef struct softmax_call {
    attn_tensor input, output, lengths, offsets;
    attn_softmax_params params;
} softmax_call;

static void take_softmax(softmax_call *call, int32_t dtype, bool is_spread, changing *indices,
                         int32_t index_dtype) {
    enum { SOFTMAX_COLS = 33 };
    call->input = take(dtype, 2, (int64_t[]){BATCH, SOFTMAX_COLS});
    call->output = take(dtype, 3, (int64_t[]){BATCH, SOFTMAX_COLS, is_spread ? 2 : 1});
    call->output.rank = 2;
    take_indices(indices, index_dtype, SOFTMAX_COLS, &call->lengths, &call->offsets);
    call->params =
        (attn_softmax_params){.struct_size = sizeof call->params, .lengths = &call->lengths};
}

static void give_back_softmax(const softmax_call *call) {
    guarded_give_back(call->input.data);
    guarded_give_back(call->output.data);
    guarded_give_back(call->lengths.data);
    guarded_give_back(call->offsets.data);
}

/* ---- the worst moment ---- */

static void lengths_that_turn_wild_after_the_check(void **state) {
    (void)state;
    for (int i = 0; i < NUM_CASES; ++i) {
        for (int narrow = 0; narrow < 2; ++narrow) {
            attention_call call;
            changing indices = {0};
            attn_context *context = context_of(&indices, cases[i].engine);
            take_call(&call, &cases[i], &indices, narrow ? ATTN_DTYPE_INT32 : ATTN_DTYPE_INT64);
            for (int round = 0; round < 2 * NUM_FUNCTIONS * NUM_WILD; ++round) {
                make_legal(&indices);
                const int before = indices.which;
                const attn_status status = functions[round % NUM_FUNCTIONS](context, &call);
                if (status != ATTN_OK || indices.which == before) {
                    fail_msg("%s: status %d, %s", cases[i].name, (int)status,
                             indices.which == before ? "nothing changed" : attn_last_error());
                }
            }
            give_back_call(&call);
            indices.lengths = NULL;
            attn_context_destroy(context);
        }
    }
}

static void softmax_lengths_that_turn_wild_after_the_check(void **state) {
    (void)state;
    for (int32_t dtype = ATTN_DTYPE_FLOAT32; dtype <= ATTN_DTYPE_FLOAT64; ++dtype) {
        for (int narrow = 0; narrow < 2; ++narrow) {
            softmax_call call;
            changing indices = {0};
            attn_context *context = context_of(&indices, ATTN_ENGINE_AUTO);
            take_softmax(&call, dtype, true, &indices,
                         narrow ? ATTN_DTYPE_INT32 : ATTN_DTYPE_INT64);
            for (int round = 0; round < 2 * NUM_WILD; ++round) {
                make_legal(&indices);
                const int before = indices.which;
                assert_int_equal(
                    attn_softmax(context, &call.input, &call.params, &call.output, NULL, 0),
                    ATTN_OK);
                assert_true(indices.which > before);
            }
            give_back_softmax(&call);
            indices.lengths = NULL;
            attn_context_destroy(context);
        }
    }
}

/* ---- any moment ---- */

static void *keep_changing(void *argument) {
    changing *indices = argument;
    while (!atomic_load(&indices->is_over)) {
        make_wild(indices);
        make_legal(indices);
        make_legal(indices);
    }
    return NULL;
}

static void count_end(attn_status status, int *num_computed) {
    *num_computed += status == ATTN_OK;
    if (status != ATTN_OK && status != ATTN_ERROR_VALUE) {
        fail_msg("status %d: %s", (int)status, attn_last_error());
    }
}

static void lengths_that_a_thread_writes(void **state) {
    (void)state;
    int num_computed = 0;
    changing nothing = {0};
    for (int i = 0; i < NUM_CASES; ++i) {
        attention_call call;
        changing indices = {0};
        pthread_t writer;
        attn_context *context = context_of(&nothing, cases[i].engine);
        take_call(&call, &cases[i], &indices, i % 2 == 0 ? ATTN_DTYPE_INT64 : ATTN_DTYPE_INT32);
        assert_int_equal(pthread_create(&writer, NULL, keep_changing, &indices), 0);
        for (int round = 0; round < NUM_FUNCTIONS * CALLS_BESIDE_A_WRITER; ++round) {
            count_end(functions[round % NUM_FUNCTIONS](context, &call), &num_computed);
        }
        atomic_store(&indices.is_over, true);
        pthread_join(writer, NULL);
        give_back_call(&call);
        attn_context_destroy(context);
    }
    for (int which = 0; which < 4; ++which) {
        softmax_call call;
        changing indices = {0};
        pthread_t writer;
        attn_context *context = context_of(&nothing, ATTN_ENGINE_AUTO);
        take_softmax(&call, which < 2 ? ATTN_DTYPE_FLOAT32 : ATTN_DTYPE_FLOAT64, which % 2 != 0,
                     &indices, ATTN_DTYPE_INT64);
        assert_int_equal(pthread_create(&writer, NULL, keep_changing, &indices), 0);
        for (int round = 0; round < 50 * CALLS_BESIDE_A_WRITER; ++round) {
            count_end(attn_softmax(context, &call.input, &call.params, &call.output, NULL, 0),
                      &num_computed);
        }
        atomic_store(&indices.is_over, true);
        pthread_join(writer, NULL);
        give_back_softmax(&call);
        attn_context_destroy(context);
    }
    printf("%d calls beside a writer were computed\n", num_computed);
    assert_true(num_computed > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lengths_that_turn_wild_after_the_check),
        cmocka_unit_test(softmax_lengths_that_turn_wild_after_the_check),
        cmocka_unit_test(lengths_that_a_thread_writes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
