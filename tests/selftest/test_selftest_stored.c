/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_selftest_stored.c: the self-test finds kernels that read or write 16 bits wrongly, one
 * member of their tables at a time; with the right ones it finds nothing. What it finds does not
 * depend on the instruction set, so the best one does, and one with pairs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <attention/attention.h>

#include "context/context.h"
#include "kernels/kernel_select.h"
#include "selftest/planted_faults.h"

static const attni_kernel_set *right;
static int32_t stored; /* enum attni_storage of the table at fault */

/* ---- kernels with a fault: they do what the right ones do and then spoil a number ---- */

static void widen(float *to, const void *from, int64_t stride, int64_t n) {
    right->storage[stored]->widen(to, from, stride, n);
    if (n > 0) {
        to[n - 1] += 1;
    }
}

/* The sign of the last one is lost. */
static void narrow(void *to, int64_t stride, const float *from, int64_t n) {
    right->storage[stored]->narrow(to, stride, from, n);
    if (n > 0) {
        unsigned char *last = (unsigned char *)to + (n - 1) * stride * 2;
        last[1] ^= 0x80;
    }
}

static void pack_rows(float *panel, int32_t vectors, const void *const *rows, int64_t stride,
                      int64_t head_dim, float factor) {
    right->storage[stored]->pack_rows(panel, vectors, rows, stride, head_dim, factor);
    panel[0] += 1;
}

static void pack_values(float *packed, int64_t chunk_stride, int64_t columns, const void *values,
                        int64_t key_stride, int64_t col_stride, int64_t num_keys,
                        int64_t value_dim) {
    right->storage[stored]->pack_values(packed, chunk_stride, columns, values, key_stride,
                                        col_stride, num_keys, value_dim);
    if (num_keys > 0 && value_dim > 0) {
        packed[0] += 1;
    }
}

static void score(float *tile, int64_t tile_stride, int32_t num_rows, const float *queries,
                  int64_t head_dim, const attni_stream_rows *keys, int64_t num_keys) {
    right->streams[stored]->score(tile, tile_stride, num_rows, queries, head_dim, keys, num_keys);
    tile[num_keys - 1] += 1;
}

static void weigh(float *sums, int64_t sum_stride, const float *rescale, const float *tile,
                  int64_t tile_stride, int32_t num_rows, const attni_stream_rows *values,
                  int64_t num_keys, int64_t value_dim) {
    right->streams[stored]->weigh(sums, sum_stride, rescale, tile, tile_stride, num_rows, values,
                                  num_keys, value_dim);
    sums[value_dim - 1] += 1;
}

static void multiply(const attni_product_block *block) {
    right->products[stored]->multiply(block);
    *(float *)block->y += 1;
}

static void score_pairs(float *tile, int32_t vectors, const uint32_t *panel, int64_t num_pairs,
                        float scale, const void *keys, int64_t key_stride, int64_t num_keys,
                        float *max, attni_ahead *ahead) {
    right->pairs->score(tile, vectors, panel, num_pairs, scale, keys, key_stride, num_keys, max,
                        ahead);
    tile[0] += 1;
}

static void pair_weights(uint32_t *pairs, const float *tile, int32_t vectors, int64_t num_keys,
                         int32_t parity) {
    right->pairs->pair_weights(pairs, tile, vectors, num_keys, parity);
    pairs[0] = 0;
}

/* ---- what is found ---- */

static attni_kernel_set kernels;
static attni_storage_kernels storage;
static attni_stream_kernels streams;
static attni_product_kernels products;
static attni_pair_kernels pairs;

static void make_kernels_right(const attni_kernel_set *set, int32_t type) {
    right = set;
    stored = type;
    kernels = *set;
    storage = *set->storage[type];
    streams = *set->streams[type];
    products = *set->products[type];
    kernels.storage[type] = &storage;
    kernels.streams[type] = &streams;
    kernels.products[type] = &products;
    if (set->pairs != NULL) {
        pairs = *set->pairs;
        kernels.pairs = &pairs;
    }
}

const attni_kernel_set *__wrap_attni_context_kernels(const attn_context *context);
const attni_kernel_set *__wrap_attni_context_kernels(const attn_context *context) {
    (void)context;
    return &kernels;
}

/* The first check that failed. */
static void note_first(void *state, const char *check, attn_status status, const char *detail) {
    const char **first = state;
    (void)detail;
    if (status != ATTN_OK && *first == NULL) {
        *first = check;
    }
}

/* `check` NULL: nothing is found. */
static void assert_finds(const char *fault, const char *check, const char *type) {
    const attn_context_config config = {
        .struct_size = sizeof config, .num_threads = 2, .gemm = ATTN_GEMM_NATIVE};
    attn_context *context;
    const char *first = NULL;
    char expected[64] = "";
    assert_int_equal(attn_context_create(&config, &context), ATTN_OK);
    const attn_selftest_params params = {
        .struct_size = sizeof params, .visit = note_first, .visit_state = &first};
    const attn_status status = attn_selftest(context, &params);
    attn_context_destroy(context);
    if (check != NULL) {
        (void)snprintf(expected, sizeof expected, "%s, %s", check, type);
    }
    if (strcmp(first == NULL ? "" : first, expected) != 0) {
        fail_msg("%s of %s, %s: expected \"%s\" to fail first, got \"%s\": %s", fault, right->name,
                 type, expected, first == NULL ? "" : first, attn_last_error());
    }
    assert_int_equal(status, check == NULL ? ATTN_OK : ATTN_ERROR_SELFTEST);
}

#define FAULT(member, function, check)               \
    do {                                             \
        if (fault_is_tried(check)) {                 \
            make_kernels_right(set, type);           \
            (member) = (function);                   \
            assert_finds(#member, check, type_name); \
        }                                            \
    } while (0)

static void find_faults_of(const attni_kernel_set *set, int32_t type, const char *type_name) {
    if (fault_is_tried(NULL)) {
        make_kernels_right(set, type);
        assert_finds("nothing", NULL, type_name);
    }
    FAULT(storage.narrow, narrow, "attention");
    FAULT(streams.score, score, "attention");
    FAULT(streams.weigh, weigh, "attention");
    FAULT(products.multiply, multiply, "layer");
    if (type == ATTNI_STORED_BFLOAT16 && set->pairs != NULL) {
        FAULT(pairs.score, score_pairs, "attention");
        FAULT(pairs.pair_weights, pair_weights, "attention");
        return;
    }
    FAULT(storage.widen, widen, "attention");
    FAULT(storage.pack_rows, pack_rows, "attention");
    FAULT(storage.pack_values, pack_values, "attention");
}

static void faults_of_16_bits_are_found(void **state) {
    (void)state;
    const attni_kernel_set *set;
    for (int32_t index = 0; (set = attni_kernel_set_at(index)) != NULL; ++index) {
        if (index == 0 || set->pairs != NULL) {
            find_faults_of(set, ATTNI_STORED_BFLOAT16, "bfloat16");
        }
        if (index == 0) {
            find_faults_of(set, ATTNI_STORED_FLOAT16, "float16");
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(faults_of_16_bits_are_found),
    };
    return cmocka_run_group_tests_name("the self-test in 16 bits", tests, NULL, NULL);
}
