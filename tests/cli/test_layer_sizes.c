/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_layer_sizes.c: head sizes from weight shapes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "layer_sizes.h"

/* Shapes of a layer's weights, the sizes given on the command line (0: not), and those expected.
 * Zero rows: there is no such weight. */
typedef struct size_case {
    const char *what;
    int64_t in[2], q[2], k[2], v[2], out[2];
    int64_t num_heads;
    int64_t given[3];    /* num_kv_heads, head_dim, value_head_dim */
    int64_t expected[6]; /* these, and qdim, kdim, vdim */
} size_case;

static safetensors_entry matrix(const char *name, const int64_t *shape) {
    return (safetensors_entry){
        .name = name, .dtype = "F32", .rank = 2, .shape = {shape[0], shape[1]}};
}

static int derive(const size_case *c, attn_mha_config *config, char *error, size_t error_bytes) {
    const safetensors_entry entries[5] = {matrix("in", c->in), matrix("q", c->q), matrix("k", c->k),
                                          matrix("v", c->v), matrix("out", c->out)};
    static const int roles[5] = {ROLE_IN_WEIGHT, ROLE_Q_WEIGHT, ROLE_K_WEIGHT, ROLE_V_WEIGHT,
                                 ROLE_OUT_WEIGHT};
    layer_names names = {.naming = NULL};
    for (size_t i = 0; i < 5; i++) {
        names.entries[roles[i]] = entries[i].shape[0] != 0 ? &entries[i] : NULL;
    }
    *config = (attn_mha_config){.num_heads = c->num_heads,
                                .num_kv_heads = c->given[0],
                                .head_dim = c->given[1],
                                .value_head_dim = c->given[2]};
    return layer_sizes_derive(&names, config, error, error_bytes);
}

static const size_case forms[] = {
    {"PyTorch, packed", {24, 8}, {0}, {0}, {0}, {8, 8}, 2, {0}, {2, 4, 4, 8, 8, 8}},
    {"PyTorch, kdim and vdim", {0}, {8, 8}, {8, 5}, {8, 7}, {8, 8}, 4, {0}, {4, 2, 2, 8, 5, 7}},
    {"one head", {9, 3}, {0}, {0}, {0}, {3, 3}, 1, {0}, {1, 3, 3, 3, 3, 3}},
    {"full-width heads", {0}, {24, 8}, {24, 8}, {24, 8}, {8, 24}, 3, {0}, {3, 8, 8, 8, 8, 8}},
    {"full-width heads, packed", {72, 8}, {0}, {0}, {0}, {8, 24}, 3, {0}, {3, 8, 8, 8, 8, 8}},
    {"grouped queries", {0}, {32, 16}, {8, 16}, {8, 16}, {16, 32}, 8, {0}, {2, 4, 4, 16, 16, 16}},
    {"grouped queries, packed", {48, 32}, {0}, {0}, {0}, {32, 32}, 8, {0}, {2, 4, 4, 32, 32, 32}},
    {"wider values", {0}, {6, 8}, {6, 8}, {10, 8}, {8, 10}, 2, {0}, {2, 3, 5, 8, 8, 8}},
    {"wider values, packed, head_dim given",
     {22, 8},
     {0},
     {0},
     {0},
     {8, 10},
     2,
     {0, 3, 0},
     {2, 3, 5, 8, 8, 8}},
    {"wider values, packed, num_kv_heads given",
     {22, 8},
     {0},
     {0},
     {0},
     {8, 10},
     2,
     {2, 0, 0},
     {2, 3, 5, 8, 8, 8}},
    {"wider values, packed, nothing given",
     {22, 8},
     {0},
     {0},
     {0},
     {8, 10},
     2,
     {0},
     {2, 3, 5, 8, 8, 8}},
    {"everything given",
     {0},
     {32, 16},
     {8, 16},
     {8, 16},
     {16, 32},
     8,
     {2, 4, 4},
     {2, 4, 4, 16, 16, 16}},
};

static void sizes_of_every_form_of_layer_are_derived(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        const size_case *c = &forms[i];
        char error[500] = "";
        attn_mha_config config;
        if (derive(c, &config, error, sizeof error) != 0) {
            fail_msg("%s: %s", c->what, error);
        }
        const int64_t actual[6] = {config.num_kv_heads, config.head_dim, config.value_head_dim,
                                   config.qdim,         config.kdim,     config.vdim};
        assert_int_equal(config.embed_dim, c->out[0]);
        for (size_t size = 0; size < 6; size++) {
            if (actual[size] != c->expected[size]) {
                fail_msg("%s: size %d: expected %d, got %d", c->what, (int)size,
                         (int)c->expected[size], (int)actual[size]);
            }
        }
    }
}

static void sizes_that_do_not_fit_are_refused_by_tensor(void **state) {
    static const struct {
        size_case shapes;
        const char *error;
    } cases[] = {
        {{.in = {24, 8}, .out = {8, 8}, .num_heads = 3},
         "out: its 8 columns are not num_heads = 3 times value_head_dim"},
        {{.in = {24, 8}, .out = {8, 8}, .num_heads = 2, .given = {0, 0, 3}},
         "out: its 8 columns are not num_heads = 2 times value_head_dim = 3"},
        {{.in = {25, 8}, .out = {8, 8}, .num_heads = 2}, "in: expected num_heads * head_dim"},
        {{.in = {24, 8}, .out = {8, 8}, .num_heads = 2, .given = {0, 5, 0}},
         "in: expected num_heads * head_dim"},
        {{.in = {24, 8}, .out = {8, 8}, .num_heads = 2, .given = {INT64_MAX, 0, 0}},
         "in: expected num_heads * head_dim"},
        {{.in = {24, 8}, .out = {8, 8}, .num_heads = 2, .given = {INT64_MAX, INT64_MAX, 0}},
         "in: expected num_heads"},
        {{.in = {24, 7}, .out = {8, 8}, .num_heads = 2},
         "in: expected embed_dim = 8 columns (the rows of out), got 7"},
        {{.q = {9, 8}, .k = {8, 8}, .v = {8, 8}, .out = {8, 8}, .num_heads = 2},
         "q: its 9 rows are not num_heads = 2 times head_dim"},
        {{.q = {8, 8}, .k = {6, 8}, .v = {8, 8}, .out = {8, 8}, .num_heads = 2},
         "k: its 6 rows are not head_dim = 4 times num_kv_heads"},
        {{.q = {8, 8}, .k = {8, 8}, .v = {6, 8}, .out = {8, 8}, .num_heads = 2},
         "v: its 6 rows are not num_kv_heads = 2 times value_head_dim = 4"},
        {{.q = {8, 8}, .k = {8, 8}, .v = {8, 8}, .out = {8, 8}, .num_heads = 2, .given = {1, 0, 0}},
         "k: its 8 rows are not head_dim = 4 times num_kv_heads = 1"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char error[500] = "";
        attn_mha_config config;
        assert_int_equal(derive(&cases[i].shapes, &config, error, sizeof error), -1);
        if (strncmp(error, cases[i].error, strlen(cases[i].error)) != 0) {
            fail_msg("case %zu: expected '%s', got '%s'", i, cases[i].error, error);
        }
    }
}

static void weights_that_are_no_matrices_are_refused(void **state) {
    char error[500] = "";
    const safetensors_entry vector = {.name = "in", .dtype = "F32", .rank = 1, .shape = {24}};
    const safetensors_entry empty = {.name = "in", .dtype = "F32", .rank = 2, .shape = {24, 0}};
    const safetensors_entry out = {.name = "out", .dtype = "F32", .rank = 2, .shape = {8, 8}};
    layer_names names = {.entries = {[ROLE_IN_WEIGHT] = &vector, [ROLE_OUT_WEIGHT] = &out}};
    attn_mha_config config = {.num_heads = 2};
    (void)state;
    assert_int_equal(layer_sizes_derive(&names, &config, error, sizeof error), -1);
    assert_string_equal(error, "in: expected a matrix, got shape (24)");
    names.entries[ROLE_IN_WEIGHT] = &empty;
    assert_int_equal(layer_sizes_derive(&names, &config, error, sizeof error), -1);
    assert_string_equal(error, "in: expected a matrix, got shape (24, 0)");
}

static void bias_and_bias_kv_follow_the_tensors(void **state) {
    char error[500] = "";
    const int64_t packed_shape[2] = {24, 8};
    const int64_t out_shape[2] = {8, 8};
    const safetensors_entry packed = matrix("in", packed_shape);
    const safetensors_entry out = matrix("out", out_shape);
    const safetensors_entry bias = {.name = "b", .dtype = "F32", .rank = 1, .shape = {8}};
    layer_names names = {.entries = {[ROLE_IN_WEIGHT] = &packed, [ROLE_OUT_WEIGHT] = &out}};
    attn_mha_config config = {.num_heads = 2};
    (void)state;
    assert_int_equal(layer_sizes_derive(&names, &config, error, sizeof error), 0);
    assert_int_equal(config.no_bias, 1);
    assert_int_equal(config.add_bias_kv, 0);
    names.entries[ROLE_OUT_BIAS] = &bias;
    names.entries[ROLE_BIAS_K] = &bias;
    config = (attn_mha_config){.num_heads = 2};
    assert_int_equal(layer_sizes_derive(&names, &config, error, sizeof error), 0);
    assert_int_equal(config.no_bias, 0);
    assert_int_equal(config.add_bias_kv, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_of_every_form_of_layer_are_derived),
        cmocka_unit_test(sizes_that_do_not_fit_are_refused_by_tensor),
        cmocka_unit_test(weights_that_are_no_matrices_are_refused),
        cmocka_unit_test(bias_and_bias_kv_follow_the_tensors),
    };
    return cmocka_run_group_tests_name("layer_sizes", tests, NULL, NULL);
}
