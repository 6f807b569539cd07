/* SPDX-License-Identifier: BSD-3-Clause
 *
 * 10_training.c: a layer of multi-head attention learns to read sequences backwards, by plain
 * gradient descent. The layer is the textbook's (Vaswani et al., 2017):
 *
 *     x = tokens + positions       q = x Wq   k = x Wk   v = x Wv
 *     output = concat(attention of each head) Wo
 *
 * and its positions and four matrices are what is learned. The matrices are bound to the layer, so
 * that a step of the descent changes them where they lie; attn_mha_backward gives their gradients
 * and those of query, key and value, which here are one x: its gradient is the sum of the three.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attention/attention.h>

enum {
    TOKENS = 12,    /* of the alphabet */
    SEQUENCES = 32, /* of a step */
    LENGTH = 8,
    HEADS = 2,
    EMBED_DIM = 32,
    ROWS = SEQUENCES * LENGTH,
    COUNT = ROWS * EMBED_DIM,
    STEPS = 200,
    REPORTS = 10
};

/* What is learned, or the gradients of that. */
typedef struct model {
    float positions[LENGTH][EMBED_DIM];
    float in_proj[3 * EMBED_DIM * EMBED_DIM]; /* Wq, Wk, Wv, transposed */
    float out_proj[EMBED_DIM * EMBED_DIM];    /* Wo likewise */
} model;

static float alphabet[TOKENS][EMBED_DIM];

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

static void fill(float *numbers, int count, float size) {
    for (int i = 0; i < count; i++) {
        numbers[i] = size * random_number();
    }
}

static attn_tensor rows_of(float *numbers) {
    const int64_t shape[] = {SEQUENCES, LENGTH, EMBED_DIM};
    attn_tensor view;
    check(attn_tensor_init(&view, numbers, ATTN_DTYPE_FLOAT32, 3, shape));
    return view;
}

/* The layer's parameters in the order in which it lists them. */
static void parameters_of(const attn_mha *layer, model *m, attn_tensor views[2]) {
    float *const numbers[] = {m->in_proj, m->out_proj};
    for (int i = 0; i < 2; i++) {
        check(attn_mha_parameter_describe(layer, i, NULL, &views[i]));
        views[i].data = numbers[i];
    }
}

static attn_mha *make_layer(model *m) {
    const attn_mha_config config = {.struct_size = sizeof config,
                                    .embed_dim = EMBED_DIM,
                                    .num_heads = HEADS,
                                    .no_bias = 1,
                                    .batch_first = 1};
    attn_mha *layer;
    attn_tensor views[2];
    check(attn_mha_create(NULL, &config, &layer));
    parameters_of(layer, m, views);
    check(attn_mha_bind_parameter(layer, "in_proj_weight", &views[0]));
    check(attn_mha_bind_parameter(layer, "out_proj.weight", &views[1]));
    return layer;
}

/* The mean squared distance of each row's output from the token at the other end; its gradient. */
static double loss_of(const int *tokens, const float *output, float *gradient) {
    double loss = 0;
    for (int row = 0; row < ROWS; row++) {
        const int wanted = tokens[row / LENGTH * LENGTH + LENGTH - 1 - row % LENGTH];
        for (int e = 0; e < EMBED_DIM; e++) {
            const float off = output[row * EMBED_DIM + e] - alphabet[wanted][e];
            gradient[row * EMBED_DIM + e] = 2 * off / COUNT;
            loss += (double)off * off / COUNT;
        }
    }
    return loss;
}

/* The loss for these tokens, and the gradients of all that is learned. */
static double differentiate(const attn_mha *layer, const model *m, const int *tokens,
                            model *gradients) {
    static float x[COUNT], output[COUNT], of_output[COUNT], of_x[3][COUNT];
    static void *saved;
    static size_t bytes;
    for (int i = 0; i < COUNT; i++) {
        const int row = i / EMBED_DIM, e = i % EMBED_DIM;
        x[i] = alphabet[tokens[row]][e] + m->positions[row % LENGTH][e];
    }
    const attn_tensor input = rows_of(x), result = rows_of(output), of_result = rows_of(of_output);
    const attn_tensor of_input[] = {rows_of(of_x[0]), rows_of(of_x[1]), rows_of(of_x[2])};
    if (saved == NULL) {
        check(attn_mha_saved_bytes(NULL, layer, &input, &input, &input, NULL, &bytes));
        saved = malloc(bytes);
    }
    const attn_mha_params params = {
        .struct_size = sizeof params, .saved = saved, .saved_bytes = bytes};
    check(attn_mha_forward(NULL, layer, &input, &input, &input, &params, &result, NULL, 0));
    const double loss = loss_of(tokens, output, of_output);

    attn_tensor parameters[2];
    parameters_of(layer, gradients, parameters);
    const attn_mha_gradients wanted = {.struct_size = sizeof wanted,
                                       .output = &of_result,
                                       .query = &of_input[0],
                                       .key = &of_input[1],
                                       .value = &of_input[2],
                                       .parameters = parameters,
                                       .num_parameters = 2};
    check(attn_mha_backward(NULL, layer, &input, &input, &input, &params, &wanted, NULL, 0));
    memset(gradients->positions, 0, sizeof gradients->positions);
    for (int i = 0; i < COUNT; i++) {
        gradients->positions[i / EMBED_DIM % LENGTH][i % EMBED_DIM] +=
            of_x[0][i] + of_x[1][i] + of_x[2][i];
    }
    return loss;
}

static void descend(float *numbers, const float *gradient, int count, float rate) {
    for (int i = 0; i < count; i++) {
        numbers[i] -= rate * gradient[i];
    }
}

static double step(const attn_mha *layer, model *m, float rate) {
    static int tokens[ROWS];
    static model gradients;
    for (int row = 0; row < ROWS; row++) {
        tokens[row] = (int)((random_number() + 1) / 2 * TOKENS);
    }
    const double loss = differentiate(layer, m, tokens, &gradients);
    descend(m->positions[0], gradients.positions[0], LENGTH * EMBED_DIM, rate);
    descend(m->in_proj, gradients.in_proj, 3 * EMBED_DIM * EMBED_DIM, rate);
    descend(m->out_proj, gradients.out_proj, EMBED_DIM * EMBED_DIM, rate);
    return loss;
}

int main(void) {
    const float rate = 2;
    static model m;
    fill(alphabet[0], TOKENS * EMBED_DIM, 1);
    fill(m.positions[0], LENGTH * EMBED_DIM, 1);
    fill(m.in_proj, 3 * EMBED_DIM * EMBED_DIM, 0.3F);
    fill(m.out_proj, EMBED_DIM * EMBED_DIM, 0.3F);
    attn_mha *layer = make_layer(&m);
    double first = 0, loss = 0;
    for (int i = 0; i < STEPS; i++) {
        loss = step(layer, &m, rate);
        first = i == 0 ? loss : first;
        if (i % (STEPS / REPORTS) == 0 || i + 1 == STEPS) {
            const int bars = (int)(40 * loss / first);
            printf("step %4d  loss %.4f  %.*s\n", i, loss, bars,
                   "########################################");
            fflush(stdout);
        }
    }
    attn_mha_destroy(layer);
    if (!(loss < first / 50)) {
        fprintf(stderr, "expected the loss to fall to a 50th, got %.4f of %.4f\n", loss, first);
        return EXIT_FAILURE;
    }
    printf("it reads backwards\n");
    return EXIT_SUCCESS;
}
