/* SPDX-License-Identifier: BSD-3-Clause
 *
 * 04_three_multiheads.c: "multi-head attention" is written in three ways; all are settings of one
 * layer.
 *
 *   one head            one attention over the full width
 *   full-width heads    every head projects to the full width; the concatenation, num_heads times
 * as wide, is projected back PyTorch's layout    every head has embed_dim / num_heads features; the
 * parameters do not grow with the number of heads
 *
 * Two things are checked: the parameters each needs, and that a layer of two equal full-width
 * heads, each trusted with half of the output, is the one-head layer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attention/attention.h>

enum { E = 4, L = 3 };

static const float tokens_data[L][E] = {{1, 0, -1, 2}, {0, 1, 1, 0}, {2, -1, 0, 1}};

static void check(attn_status status) {
    if (status != ATTN_OK) {
        fprintf(stderr, "%s: %s\n", attn_status_name(status), attn_last_error());
        exit(EXIT_FAILURE);
    }
}

static attn_mha *create_layer(const attn_mha_config *config) {
    attn_mha *layer;
    check(attn_mha_create(NULL, config, &layer));
    attn_mha_init_params init = {.struct_size = sizeof init, .seed = 2026};
    check(attn_mha_init_parameters(NULL, layer, &init));
    return layer;
}

/* Prints the layer's parameters by their state_dict names and returns how many numbers they are. */
static int64_t print_parameters(const char *title, const attn_mha *layer) {
    int64_t count, total = 0;
    check(attn_mha_parameter_count(layer, &count));
    printf("%s\n", title);
    for (int64_t i = 0; i < count; i++) {
        const char *name;
        attn_tensor shape;
        int64_t elements;
        check(attn_mha_parameter_describe(layer, i, &name, &shape));
        check(attn_tensor_count(&shape, &elements));
        printf("  %-16s", name);
        for (int axis = 0; axis < shape.rank; axis++) {
            printf(" %lld", (long long)shape.shape[axis]);
        }
        puts("");
        total += elements;
    }
    return total;
}

static void expect_count(int64_t expected, int64_t actual) {
    printf("  %lld parameters\n", (long long)actual);
    if (actual != expected) {
        fprintf(stderr, "parameters: expected %lld\n", (long long)expected);
        exit(EXIT_FAILURE);
    }
}

/* Self-attention over the tokens: query, key and value are the same tensor. */
static void attend(const attn_mha *layer, float output_data[L][E]) {
    static float tokens_copy[L][E];
    memcpy(tokens_copy, tokens_data, sizeof tokens_copy);
    attn_tensor tokens, output;
    check(attn_tensor_init(&tokens, tokens_copy, ATTN_DTYPE_FLOAT32, 2, (int64_t[]){L, E}));
    check(attn_tensor_init(&output, output_data, ATTN_DTYPE_FLOAT32, 2, (int64_t[]){L, E}));
    check(attn_mha_forward(NULL, layer, &tokens, &tokens, &tokens, NULL, &output, NULL, 0));
}

static void load(attn_mha *layer, const char *name, float *values, int64_t rows, int64_t columns) {
    attn_tensor view;
    check(attn_tensor_init(&view, values, ATTN_DTYPE_FLOAT32, 2, (int64_t[]){rows, columns}));
    check(attn_mha_load_parameter(NULL, layer, name, &view, NULL));
}

/* Gives both heads of `wide` the projections of `single`, and each half of its output projection.
 */
static void copy_into_both_heads(const attn_mha *single, attn_mha *wide) {
    float in_proj[3][E][E], in_proj_twice[3][2][E][E], out_proj[E][E], out_proj_halves[E][2][E];
    attn_tensor view;
    check(attn_tensor_init(&view, in_proj, ATTN_DTYPE_FLOAT32, 2, (int64_t[]){3 * E, E}));
    check(attn_mha_read_parameter(NULL, single, "in_proj_weight", &view));
    check(attn_tensor_init(&view, out_proj, ATTN_DTYPE_FLOAT32, 2, (int64_t[]){E, E}));
    check(attn_mha_read_parameter(NULL, single, "out_proj.weight", &view));
    for (int head = 0; head < 2; head++) {
        for (int part = 0; part < 3; part++) {
            memcpy(in_proj_twice[part][head], in_proj[part], sizeof in_proj[part]);
        }
        for (int row = 0; row < E; row++) {
            for (int column = 0; column < E; column++) {
                out_proj_halves[row][head][column] = 0.5f * out_proj[row][column];
            }
        }
    }
    load(wide, "in_proj_weight", &in_proj_twice[0][0][0][0], 3 * 2 * E, E);
    load(wide, "out_proj.weight", &out_proj_halves[0][0][0], E, 2 * E);
}

int main(void) {
    attn_mha_config one_head = {.struct_size = sizeof one_head, .embed_dim = E, .num_heads = 1};
    attn_mha_config full_width = {
        .struct_size = sizeof full_width, .embed_dim = E, .num_heads = 2, .head_dim = E};
    attn_mha_config pytorch = {.struct_size = sizeof pytorch, .embed_dim = E, .num_heads = 2};
    attn_mha *single = create_layer(&one_head), *wide = create_layer(&full_width),
             *split = create_layer(&pytorch);

    /* Three input projections and one output projection, a matrix and a bias each. */
    expect_count(3 * (E * E + E) + E * E + E, print_parameters("One head:", single));
    expect_count(3 * (2 * E * E + 2 * E) + 2 * E * E + E,
                 print_parameters("Two full-width heads:", wide));
    expect_count(3 * (E * E + E) + E * E + E,
                 print_parameters("Two heads, PyTorch's layout:", split));

    float single_output[L][E], wide_output[L][E], split_output[L][E];
    copy_into_both_heads(single, wide);
    attend(single, single_output);
    attend(wide, wide_output);
    attend(split, split_output);
    puts("Output of token 0 by one head, by two equal full-width heads (the same), by two heads of "
         "half the width:");
    for (int e = 0; e < E; e++) {
        printf("  %9.6f  %9.6f  %9.6f\n", (double)single_output[0][e], (double)wide_output[0][e],
               (double)split_output[0][e]);
    }
    for (int i = 0; i < L * E; i++) {
        float difference = single_output[i / E][i % E] - wide_output[i / E][i % E];
        if (!(difference < 1e-5f && difference > -1e-5f)) {
            fprintf(stderr, "element %d: two equal full-width heads differ from one head by %g\n",
                    i, (double)difference);
            return EXIT_FAILURE;
        }
    }
    attn_mha_destroy(split);
    attn_mha_destroy(wide);
    attn_mha_destroy(single);
    return EXIT_SUCCESS;
}
