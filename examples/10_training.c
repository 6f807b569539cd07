/* SPDX-License-Identifier: BSD-3-Clause
 *
 * 10_training.c: a layer of multi-head attention learns to read sequences backwards, by plain
 * gradient descent. The layer is the textbook's (Vaswani et al., 2017):
 *
 *     x = tokens + positions       q = x Wq   k = x Wk   v = x Wv
 *     output = concat(attention of each head) Wo
 *
 * and its positions and four matrices are what is learned. attn_sdpa_backward gives the gradients of
 * q, k and v; those of the matrices are products that every textbook has.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attention/attention.h>

enum {
    TOKENS = 12,    /* of the alphabet */
    SEQUENCES = 32, /* of a step */
    LENGTH = 8,
    HEADS = 2,
    HEAD_DIM = 16,
    EMBED_DIM = HEADS * HEAD_DIM,
    ROWS = SEQUENCES * LENGTH,
    COUNT = ROWS * EMBED_DIM,
    STEPS = 200,
    REPORTS = 10
};

/* Wq, Wk, Wv and Wo. */
enum matrix { OF_QUERY, OF_KEY, OF_VALUE, OF_OUTPUT, NUM_MATRICES };

typedef struct model {
    float tokens[TOKENS][EMBED_DIM]; /* given */
    float positions[LENGTH][EMBED_DIM];
    float matrices[NUM_MATRICES][EMBED_DIM * EMBED_DIM];
} model;

/* What a step computes, (sequences, length, embed_dim) each, and the gradients of that. */
typedef struct activations {
    float x[COUNT], projected[OF_OUTPUT][COUNT], context[COUNT], output[COUNT];
    float lse[SEQUENCES * HEADS * LENGTH];
} activations;

static void check(attn_status status) {
    if (status != ATTN_OK) {
        fprintf(stderr, "%s: %s\n", attn_status_name(status), attn_last_error());
        exit(EXIT_FAILURE);
    }
}

/* In [-1, 1), and looks like chance. */
static float random_number(void) {
    static unsigned seed = 7;
    seed = seed * 1664525u + 1013904223u;
    return (float)(seed >> 8) / (1 << 23) - 1;
}

/* c (m, n) += a (m, k) times b (k, n), either of which may be stored transposed. */
static void add_product(float *c, const float *a, int a_transposed, const float *b,
                        int b_transposed, int m, int n, int k) {
    for (int i = 0; i < m; i++) {
        for (int p = 0; p < k; p++) {
            const float factor = a_transposed ? a[p * m + i] : a[i * k + p];
            for (int j = 0; j < n; j++) {
                c[i * n + j] += factor * (b_transposed ? b[j * k + p] : b[p * n + j]);
            }
        }
    }
}

/* (sequences, heads, length, head_dim) of (sequences, length, embed_dim): a matter of strides. */
static attn_tensor heads_of(float *numbers) {
    const int64_t shape[] = {SEQUENCES, HEADS, LENGTH, HEAD_DIM};
    const int64_t strides[] = {LENGTH * EMBED_DIM, HEAD_DIM, EMBED_DIM, 1};
    attn_tensor view;
    check(attn_tensor_init_strided(&view, numbers, ATTN_DTYPE_FLOAT32, 4, shape, strides));
    return view;
}

static attn_tensor lse_of(activations *at) {
    const int64_t shape[] = {SEQUENCES, HEADS, LENGTH};
    attn_tensor view;
    check(attn_tensor_init(&view, at->lse, ATTN_DTYPE_FLOAT32, 3, shape));
    return view;
}

static void forward(const model *m, const int *tokens, activations *at) {
    memset(at, 0, sizeof *at);
    for (int row = 0; row < ROWS; row++) {
        for (int e = 0; e < EMBED_DIM; e++) {
            at->x[row * EMBED_DIM + e] = m->tokens[tokens[row]][e] + m->positions[row % LENGTH][e];
        }
    }
    for (int i = 0; i < OF_OUTPUT; i++) {
        add_product(at->projected[i], at->x, 0, m->matrices[i], 0, ROWS, EMBED_DIM, EMBED_DIM);
    }
    const attn_tensor query = heads_of(at->projected[OF_QUERY]);
    const attn_tensor key = heads_of(at->projected[OF_KEY]);
    const attn_tensor value = heads_of(at->projected[OF_VALUE]);
    const attn_tensor output = heads_of(at->context), lse = lse_of(at);
    const attn_sdpa_params params = {.struct_size = sizeof params, .lse = &lse};
    check(attn_sdpa(NULL, &query, &key, &value, &params, &output, NULL, 0));
    add_product(at->output, at->context, 0, m->matrices[OF_OUTPUT], 0, ROWS, EMBED_DIM, EMBED_DIM);
}

/* The mean squared distance of each row's output from the token at the other end; its gradient. */
static double loss_of(const model *m, const int *tokens, const activations *at, float *gradient) {
    double loss = 0;
    for (int row = 0; row < ROWS; row++) {
        const int wanted = tokens[row / LENGTH * LENGTH + LENGTH - 1 - row % LENGTH];
        for (int e = 0; e < EMBED_DIM; e++) {
            const float off = at->output[row * EMBED_DIM + e] - m->tokens[wanted][e];
            gradient[row * EMBED_DIM + e] = 2 * off / COUNT;
            loss += (double)off * off / COUNT;
        }
    }
    return loss;
}

/* `gradients` get those of what the model learns; those of `at` are scratch memory. */
static void backward(const model *m, activations *at, float *of_output, activations *of,
                     model *gradients) {
    memset(of, 0, sizeof *of);
    memset(gradients, 0, sizeof *gradients);
    add_product(gradients->matrices[OF_OUTPUT], at->context, 1, of_output, 0, EMBED_DIM, EMBED_DIM,
                ROWS);
    add_product(of->context, of_output, 0, m->matrices[OF_OUTPUT], 1, ROWS, EMBED_DIM, EMBED_DIM);

    const attn_tensor query = heads_of(at->projected[OF_QUERY]);
    const attn_tensor key = heads_of(at->projected[OF_KEY]);
    const attn_tensor value = heads_of(at->projected[OF_VALUE]);
    const attn_tensor output = heads_of(at->context), lse = lse_of(at);
    const attn_tensor of_context = heads_of(of->context);
    const attn_tensor of_query = heads_of(of->projected[OF_QUERY]);
    const attn_tensor of_key = heads_of(of->projected[OF_KEY]);
    const attn_tensor of_value = heads_of(of->projected[OF_VALUE]);
    const attn_sdpa_params params = {.struct_size = sizeof params, .lse = &lse};
    const attn_sdpa_gradients wanted = {.struct_size = sizeof wanted,
                                        .output = &of_context,
                                        .query = &of_query,
                                        .key = &of_key,
                                        .value = &of_value};
    check(attn_sdpa_backward(NULL, &query, &key, &value, &params, &output, &wanted, NULL, 0));

    for (int i = 0; i < OF_OUTPUT; i++) {
        add_product(gradients->matrices[i], at->x, 1, of->projected[i], 0, EMBED_DIM, EMBED_DIM,
                    ROWS);
        add_product(of->x, of->projected[i], 0, m->matrices[i], 1, ROWS, EMBED_DIM, EMBED_DIM);
    }
    for (int i = 0; i < COUNT; i++) {
        gradients->positions[i / EMBED_DIM % LENGTH][i % EMBED_DIM] += of->x[i];
    }
}

static void descend(float *numbers, const float *gradient, int count, float rate) {
    for (int i = 0; i < count; i++) {
        numbers[i] -= rate * gradient[i];
    }
}

static void fill(float *numbers, int count, float size) {
    for (int i = 0; i < count; i++) {
        numbers[i] = size * random_number();
    }
}

static double step(model *m, activations *at, activations *of, model *gradients, float rate) {
    static int tokens[ROWS];
    static float of_output[COUNT];
    for (int row = 0; row < ROWS; row++) {
        tokens[row] = (int)((random_number() + 1) / 2 * TOKENS);
    }
    forward(m, tokens, at);
    const double loss = loss_of(m, tokens, at, of_output);
    backward(m, at, of_output, of, gradients);
    descend(m->positions[0], gradients->positions[0], LENGTH * EMBED_DIM, rate);
    descend(m->matrices[0], gradients->matrices[0], NUM_MATRICES * EMBED_DIM * EMBED_DIM, rate);
    return loss;
}

int main(void) {
    const float rate = 2;
    static model m, gradients;
    static activations at, of;
    fill(m.tokens[0], TOKENS * EMBED_DIM, 1);
    fill(m.positions[0], LENGTH * EMBED_DIM, 1);
    fill(m.matrices[0], NUM_MATRICES * EMBED_DIM * EMBED_DIM, 0.3F);
    double first = 0, loss = 0;
    for (int i = 0; i < STEPS; i++) {
        loss = step(&m, &at, &of, &gradients, rate);
        first = i == 0 ? loss : first;
        if (i % (STEPS / REPORTS) == 0 || i + 1 == STEPS) {
            const int bars = (int)(40 * loss / first);
            printf("step %4d  loss %.4f  %.*s\n", i, loss, bars,
                   "########################################");
            fflush(stdout);
        }
    }
    if (!(loss < first / 50)) {
        fprintf(stderr, "expected the loss to fall to a 50th, got %.4f of %.4f\n", loss, first);
        return EXIT_FAILURE;
    }
    printf("it reads backwards\n");
    return EXIT_SUCCESS;
}
