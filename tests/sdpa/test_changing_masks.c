/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_changing_masks.c: masks, dense or by blocks, that another thread writes while a call runs.
 * What was seen of a mask may then be wrong by the time it is used. Masks, keys and values lie between pages without
 * access, so that a wrong place is a crash; and whatever a row is taken to see, its output is a
 * mean of values.
 */
#include <math.h>
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

enum { HEADS = 4, COLS = 16, CALLS = 60, STRETCHES = 40, MOST_BLOCK = 300 };

typedef struct changing_case {
    const char *name;
    int64_t rows, keys;
    int32_t kind; /* ATTN_MASK_NONE: it is a mask by blocks */
    bool is_shared, has_bias;
    int32_t dtype; /* 0: float32 */
    int64_t block_rows, block_columns;
} changing_case;

static const changing_case cases[] = {
    {"rows in lanes", 200, 900, ATTN_MASK_BOOL_INCLUDE, true, false, 0, 0, 0},
    {"rows in lanes, a mask for each head", 100, 700, ATTN_MASK_BOOL_EXCLUDE, false, false, 0, 0,
     0},
    {"rows in lanes, additive", 150, 800, ATTN_MASK_ADDITIVE, true, false, 0, 0, 0},
    {"rows in lanes, two masks", 100, 600, ATTN_MASK_BOOL_INCLUDE, true, true, 0, 0, 0},
    {"chunks", 40, 5000, ATTN_MASK_ADDITIVE, true, false, 0, 0, 0},
    {"few rows", 2, 5000, ATTN_MASK_BOOL_EXCLUDE, true, false, 0, 0, 0},
    {"blocks", 200, 900, ATTN_MASK_NONE, true, false, 0, 32, 16},
    {"blocks that panels cross", 150, 800, ATTN_MASK_NONE, false, true, 0, 7, 3},
    {"blocks of copied rows", 150, 800, ATTN_MASK_NONE, true, false, ATTN_DTYPE_BFLOAT16, 16, 9},
    {"blocks of few rows", 2, 5000, ATTN_MASK_NONE, true, false, 0, 1, 64},
};
enum { NUM_CASES = sizeof cases / sizeof cases[0] };

static attn_tensor take(int32_t dtype, int32_t rank, const int64_t *shape) {
    attn_tensor view = {0};
    size_t bytes = attn_dtype_size_bytes(dtype);
    for (int32_t axis = 0; axis < rank; ++axis) {
        bytes *= (size_t)shape[axis];
    }
    assert_int_equal(attn_tensor_init(&view, guarded_take(bytes, GUARDED_PAST), dtype, rank, shape),
                     ATTN_OK);
    memset(view.data, 0, bytes);
    return view;
}

static void fill(const attn_tensor *tensor, random_state *random) {
    for (int64_t i = 0; i < HEADS * tensor->shape[2] * COLS; ++i) {
        const float number = (float)random_real(random, -1, 1);
        if (tensor->dtype == ATTN_DTYPE_FLOAT32) {
            ((float *)tensor->data)[i] = number;
        } else {
            uint32_t bits;
            memcpy(&bits, &number, sizeof bits);
            ((uint16_t *)tensor->data)[i] = (uint16_t)(bits >> 16);
        }
    }
}

/* ---- a mask that changes ---- */

typedef struct writer {
    const attn_tensor *mask;
    int32_t kind;
    _Atomic bool is_over;
} writer;

static int64_t count_of(const attn_tensor *mask) {
    int64_t count = 1;
    for (int32_t axis = 0; axis < mask->rank; ++axis) {
        count *= mask->shape[axis];
    }
    return count;
}

/* A stretch of rows becomes hidden or shown, so that tiles do. */
static void write_stretch(const writer *own, random_state *random) {
    const int64_t count = count_of(own->mask);
    const int64_t length = random_between(random, 1, count < 9000 ? MOST_BLOCK : count / 2);
    const int64_t first = random_between(random, 0, count - 1);
    const bool is_shown = random_between(random, 0, 1) == 0;
    for (int64_t i = first; i < count && i < first + length; ++i) {
        if (own->kind == ATTN_MASK_NONE) {
            ((unsigned char *)own->mask->data)[i] = (unsigned char)(is_shown ? 1 + i % 2 : 0);
        } else if (own->kind == ATTN_MASK_ADDITIVE) {
            ((float *)own->mask->data)[i] = is_shown ? (float)(i % 2) : -INFINITY;
        } else {
            ((unsigned char *)own->mask->data)[i] =
                is_shown == (own->kind == ATTN_MASK_BOOL_INCLUDE);
        }
    }
}

static void *keep_writing(void *argument) {
    const writer *own = argument;
    random_state random = random_seeded(7);
    while (!atomic_load(&own->is_over)) {
        write_stretch(own, &random);
    }
    return NULL;
}

/* ---- calls ---- */

typedef struct attention_call {
    attn_tensor query, key, value, output, mask, bias;
    attn_sdpa_params params;
} attention_call;

static int64_t blocks_of(int64_t length, int64_t of_one) {
    return of_one == 0 ? 0 : (length + of_one - 1) / of_one;
}

static void take_call(attention_call *call, const changing_case *of, random_state *random) {
    const int64_t rows[] = {1, HEADS, of->rows, COLS};
    const int64_t keys[] = {1, HEADS, of->keys, COLS};
    const int64_t scores[] = {1, of->is_shared ? 1 : HEADS, of->rows, of->keys};
    const bool has_blocks = of->kind == ATTN_MASK_NONE;
    const int64_t blocks[] = {1, of->is_shared ? 1 : HEADS, blocks_of(of->rows, of->block_rows),
                              blocks_of(of->keys, of->block_columns)};
    const int32_t dtype = of->dtype != 0 ? of->dtype : ATTN_DTYPE_FLOAT32;
    const bool is_additive = of->kind == ATTN_MASK_ADDITIVE;
    call->query = take(dtype, 4, rows);
    call->key = take(dtype, 4, keys);
    call->value = take(dtype, 4, keys);
    call->output = take(ATTN_DTYPE_FLOAT32, 4, rows);
    call->mask = has_blocks ? take(ATTN_DTYPE_UINT8, 4, blocks)
                            : take(is_additive ? ATTN_DTYPE_FLOAT32 : ATTN_DTYPE_BOOL, 4, scores);
    call->bias = take(ATTN_DTYPE_FLOAT32, 4, scores);
    fill(&call->query, random);
    fill(&call->key, random);
    fill(&call->value, random);
    call->params = (attn_sdpa_params){
        .struct_size = sizeof call->params,
        .mask = has_blocks ? NULL : &call->mask,
        .block_mask = has_blocks ? &call->mask : NULL,
        .block_rows = of->block_rows,
        .block_columns = of->block_columns,
        .mask_kind = of->kind,
        .bias = of->has_bias ? &call->bias : NULL,
    };
}

static void give_back_call(const attention_call *call) {
    const attn_tensor *const all[] = {&call->query,  &call->key,  &call->value,
                                      &call->output, &call->mask, &call->bias};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; ++i) {
        guarded_give_back(all[i]->data);
    }
}

/* Values are from -1 to 1, and weights are rounded to 8 bits at most. Returns how many rows see
 * something. */
static int64_t check_means(const char *name, const attn_tensor *output) {
    const float *data = output->data;
    int64_t num_seen = 0;
    for (int64_t i = 0; i < HEADS * output->shape[2] * COLS; ++i) {
        if (!(fabsf(data[i]) < 1.01F)) {
            fail_msg("%s: element %lld is %g", name, (long long)i, (double)data[i]);
        }
        num_seen += i % COLS == 0 && data[i] != 0;
    }
    return num_seen;
}

static void masks_that_a_thread_writes(void **state) {
    const attn_context_config config = {.struct_size = sizeof config, .num_threads = 2};
    attn_context *context;
    random_state random = random_seeded(3);
    (void)state;
    assert_int_equal(attn_context_create(&config, &context), ATTN_OK);
    for (int i = 0; i < NUM_CASES; ++i) {
        attention_call call;
        pthread_t thread;
        int64_t num_seen = 0;
        take_call(&call, &cases[i], &random);
        writer own = {.mask = &call.mask, .kind = cases[i].kind};
        /* Something is shown even if the thread is late. */
        for (int stretch = 0; stretch < STRETCHES; ++stretch) {
            write_stretch(&own, &random);
        }
        assert_int_equal(pthread_create(&thread, NULL, keep_writing, &own), 0);
        for (int round = 0; round < CALLS; ++round) {
            assert_int_equal(attn_sdpa(context, &call.query, &call.key, &call.value, &call.params,
                                       &call.output, NULL, 0),
                             ATTN_OK);
            num_seen += check_means(cases[i].name, &call.output);
        }
        atomic_store(&own.is_over, true);
        pthread_join(thread, NULL);
        printf("%s: %lld of %lld rows saw something\n", cases[i].name, (long long)num_seen,
               (long long)(CALLS * HEADS * cases[i].rows));
        assert_true(num_seen > 0);
        give_back_call(&call);
    }
    attn_context_destroy(context);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masks_that_a_thread_writes),
    };
    return cmocka_run_group_tests_name("changing masks", tests, NULL, NULL);
}
