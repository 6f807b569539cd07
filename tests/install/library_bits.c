/* SPDX-License-Identifier: BSD-3-Clause
 *
 * library_bits.c: prints the bits of results that arithmetic which is not IEEE 754's gets wrong: sums
 * of many terms, hidden keys, rows without keys, NaN, subnormal numbers. Fails if loading the library
 * changed how the process computes. No floating-point operation here, so its own flags change nothing.
 */
#include <attention/attention.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 33, KEYS = 40, WIDTH = 24, HEADS = 3, VALUES = KEYS * WIDTH };

/* What of a call's inputs is unusual. */
enum { PLAIN, EMPTY_ROWS, HIDDEN_KEYS, NAN_KEY, NAN_MASK, SUBNORMAL_VALUES, CASES };

static const char *const case_names[] = {"plain",   "empty rows", "hidden keys",
                                         "NaN key", "NaN mask",   "subnormal values"};

/* Bits of elements of both types: index 0 float32, 1 float64. */
static const uint64_t minus_infinity[] = {0xff800000, 0xfff0000000000000};
static const uint64_t quiet_nan[] = {0x7fc00000, 0x7ff8000000000000};

static void expect_ok(attn_status status) {
    if (status != ATTN_OK) {
        fprintf(stderr, "%s: %s\n", attn_status_name(status), attn_last_error());
        exit(1);
    }
}

static size_t size_of(int32_t dtype) {
    return dtype == ATTN_DTYPE_FLOAT32 ? 4 : 8;
}

static void set_bits(void *data, int32_t dtype, int64_t index, uint64_t bits) {
    const uint32_t low = (uint32_t)bits;
    const void *const element =
        dtype == ATTN_DTYPE_FLOAT32 ? (const void *)&low : (const void *)&bits;
    memcpy((char *)data + (size_t)index * size_of(dtype), element, size_of(dtype));
}

/* A number of either sign between 1/2 and 2, made of a counter; as small as numbers get if `tiny`. */
static void set_number(void *data, int32_t dtype, int64_t index, int tiny) {
    const uint64_t mixed = ((uint64_t)index + 1) * 0x9e3779b97f4a7c15;
    const uint64_t sign = mixed >> 63, fraction = mixed << 12 >> 12, half = mixed >> 62 & 1;
    if (dtype == ATTN_DTYPE_FLOAT32) {
        set_bits(data, dtype, index, sign << 31 | (tiny ? 0 : 126 + half) << 23 | fraction >> 29);
    } else {
        set_bits(data, dtype, index, sign << 63 | (tiny ? 0 : 1022 + half) << 52 | fraction);
    }
}

static attn_tensor view_of(void *data, int32_t dtype, int64_t rows, int64_t cols) {
    attn_tensor view;
    const int64_t shape[] = {rows, cols};
    expect_ok(attn_tensor_init(&view, data, dtype, 2, shape));
    return view;
}

/* FNV-1a. NaN counts as one number: its sign and payload are the processor's choice of two. */
static uint64_t hash_of(const void *data, int32_t dtype, int64_t count) {
    uint64_t hash = 0xcbf29ce484222325;
    for (int64_t i = 0; i < count; ++i) {
        uint64_t bits = 0;
        memcpy(&bits, (const char *)data + (size_t)i * size_of(dtype), size_of(dtype));
        const int type = dtype == ATTN_DTYPE_FLOAT64;
        const uint64_t magnitude = bits & (type ? 0x7fffffffffffffff : 0x7fffffff);
        if (magnitude > (minus_infinity[type] & (type ? 0x7fffffffffffffff : 0x7fffffff))) {
            bits = quiet_nan[type];
        }
        hash = (hash ^ bits) * 0x100000001b3;
    }
    return hash;
}

/* ---- calls ---- */

static double query[VALUES], key[VALUES], value[VALUES], mask[ROWS * KEYS], output[VALUES],
    weights[ROWS * KEYS], lse[ROWS];

static void fill_inputs(int32_t dtype, int unusual) {
    const int type = dtype == ATTN_DTYPE_FLOAT64;
    for (int64_t i = 0; i < VALUES; ++i) {
        set_number(query, dtype, i, 0);
        set_number(key, dtype, VALUES - 1 - i, 0);
        set_number(value, dtype, i, unusual == SUBNORMAL_VALUES);
    }
    for (int64_t i = 0; i < ROWS * KEYS; ++i) {
        set_number(mask, dtype, i, 0);
        if (unusual == EMPTY_ROWS || (unusual == HIDDEN_KEYS && i % 3 != 0)) {
            set_bits(mask, dtype, i, minus_infinity[type]);
        } else if (unusual == NAN_MASK && i % KEYS == 6) {
            set_bits(mask, dtype, i, quiet_nan[type]);
        }
    }
    if (unusual == NAN_KEY) {
        set_bits(key, dtype, 3 * WIDTH, quiet_nan[type]);
    }
}

static void print_attention(attn_context *context, const char *kernels, int32_t dtype,
                            int unusual) {
    const int64_t rows = ROWS;
    attn_tensor lse_view;
    fill_inputs(dtype, unusual);
    expect_ok(attn_tensor_init(&lse_view, lse, dtype, 1, &rows));
    const attn_tensor query_view = view_of(query, dtype, ROWS, WIDTH),
                      key_view = view_of(key, dtype, KEYS, WIDTH),
                      value_view = view_of(value, dtype, KEYS, WIDTH),
                      mask_view = view_of(mask, dtype, ROWS, KEYS),
                      output_view = view_of(output, dtype, ROWS, WIDTH),
                      weights_view = view_of(weights, dtype, ROWS, KEYS);
    const attn_sdpa_params params = {.struct_size = sizeof params,
                                     .mask = &mask_view,
                                     .mask_kind = ATTN_MASK_ADDITIVE,
                                     .weights = &weights_view,
                                     .lse = &lse_view};
    expect_ok(
        attn_sdpa(context, &query_view, &key_view, &value_view, &params, &output_view, NULL, 0));
    printf("%s float%d, %s: output %016llx weights %016llx lse %016llx\n", kernels,
           (int)size_of(dtype) * 8, case_names[unusual],
           (unsigned long long)hash_of(output, dtype, ROWS * WIDTH),
           (unsigned long long)hash_of(weights, dtype, ROWS * KEYS),
           (unsigned long long)hash_of(lse, dtype, ROWS));
}

static void print_layer(attn_context *context, const char *kernels, int32_t dtype) {
    const attn_mha_config config = {
        .struct_size = sizeof config, .dtype = dtype, .embed_dim = WIDTH, .num_heads = HEADS};
    attn_mha *layer;
    fill_inputs(dtype, PLAIN);
    expect_ok(attn_mha_create(context, &config, &layer));
    expect_ok(attn_mha_init_parameters(context, layer, NULL));
    const attn_tensor query_view = view_of(query, dtype, ROWS, WIDTH),
                      key_view = view_of(key, dtype, KEYS, WIDTH),
                      value_view = view_of(value, dtype, KEYS, WIDTH),
                      output_view = view_of(output, dtype, ROWS, WIDTH);
    expect_ok(attn_mha_forward(context, layer, &query_view, &key_view, &value_view, NULL,
                               &output_view, NULL, 0));
    printf("%s float%d, layer: %016llx\n", kernels, (int)size_of(dtype) * 8,
           (unsigned long long)hash_of(output, dtype, ROWS * WIDTH));
    attn_mha_destroy(layer);
}

/* A process begins with rounding to nearest, every exception masked, and subnormal numbers kept. */
static int settings_are_initial(void) {
#if defined(__x86_64__)
    return (__builtin_ia32_stmxcsr() & ~0x3fu) == 0x1f80;
#elif defined(__aarch64__)
    uint64_t word;
    __asm__ volatile("mrs %0, fpcr" : "=r"(word));
    return word == 0;
#else
#error "say how this processor tells whether it flushes subnormal numbers"
#endif
}

int main(void) {
    if (!settings_are_initial()) {
        puts("loading the library changed how the process rounds, traps or treats subnormal "
             "numbers");
        return 1;
    }
    for (int32_t index = 0; attn_kernels_name(index) != NULL; ++index) {
        const char *const kernels = attn_kernels_name(index);
        const attn_context_config config = {
            .struct_size = sizeof config, .num_threads = 1, .kernels = kernels};
        attn_context *context;
        expect_ok(attn_context_create(&config, &context));
        for (int32_t dtype = ATTN_DTYPE_FLOAT32; dtype <= ATTN_DTYPE_FLOAT64; ++dtype) {
            for (int unusual = PLAIN; unusual < CASES; ++unusual) {
                print_attention(context, kernels, dtype, unusual);
            }
            print_layer(context, kernels, dtype);
        }
        attn_context_destroy(context);
    }
    return settings_are_initial() ? 0 : 1;
}
