/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_state.h: a backward pass on its way, as data and nothing else. Downwards:
 *   gradients_run        the passes, one after the other
 *   gradients_options    sums for masks, biases, slopes and sinks
 *   gradients_inputs     those of query, key and value, and what is summed apart
 *   gradients_means      what softmax takes off, before them
 *   gradients_tile       weights and the gradient of the scores, of a block of rows and keys
 *   gradients_masks      masks whose gradients are summed on the way
 *   gradients_blocks     these blocks, as products read them
 *   gradients_view       one sequence of the call
 */
#ifndef ATTNI_GRADIENTS_GRADIENTS_STATE_H
#define ATTNI_GRADIENTS_GRADIENTS_STATE_H

#include "gradients/gradients_plan.h"
#include "kernels/kernel_select.h"
#include "problem/batch_sequence.h"

/* The call; the same for all items. */
typedef struct attni_gradients_engine {
    const attni_gradients_problem *problem;
    const attni_gradients_plan *plan;
    const attni_kernel_set *set;
    const attni_row_kernels *rows;
    const attni_gradient_kernels *kernels;
    const attni_product_kernels *products;
    int32_t dtype;   /* the score type */
    int64_t element; /* its bytes */
    int64_t strip_cols;
    char *scratch;
    const double *means_before; /* of other keys of the call, by row; NULL: there are none */
} attni_gradients_engine;

/* One sequence: of ragged queries a call of its own. */
typedef struct attni_gradients_view {
    const attni_sdpa_problem *call;
    const attni_sdpa_problem *gradients;
    attni_sequence sequence; /* whose batch is that of these two */
    int64_t batch;           /* of the whole call */
    int64_t first_row;       /* of all rows of the call's query */
    attni_sdpa_problem cut_call;
    attni_sdpa_problem cut_gradients;
} attni_gradients_view;

/* Consecutive numbers of the score type, `stride` from row to row. */
typedef struct attni_gradient_lines {
    char *data;
    int64_t stride;
} attni_gradient_lines;

/* The columns of rows as products read them (product_kernels.h): elements from strip to strip, and
 * from one row of a strip to the next. */
typedef struct attni_gradient_strips {
    const char *data;
    int64_t stride;
    int64_t step;
} attni_gradient_strips;

/* A block of keys of a head. */
typedef struct attni_gradient_keys {
    attni_interval block; /* whose gradients are written */
    attni_interval keys;  /* of them, those that some row sees: no other is read */
    int64_t count;
    attni_gradient_lines key;
    attni_gradient_lines value;
    int64_t key_head; /* at hand; -1: none yet */
    int64_t value_head;
} attni_gradient_keys;

/* A block of rows of a head. */
typedef struct attni_gradient_rows {
    int64_t head;
    int64_t first;
    int64_t count;
    attni_gradient_lines query;
    attni_gradient_lines output; /* its gradient */
    attni_gradient_strips query_strips;
    attni_gradient_strips output_strips;
    double lse[ATTNI_GRADIENT_ROWS]; /* of softmax */
} attni_gradient_rows;

/* What a tile is wanted for: of scores as options leave them, or of scale * q . k. */
typedef enum attni_gradient_depth { ATTNI_TO_OPTIONS, ATTNI_TO_PRODUCTS } attni_gradient_depth;

/* Rows times keys: weights and the gradient of the scores, rows `stride` apart. */
typedef struct attni_gradient_tile {
    char *weights;
    char *scores;
    char *capped; /* scores after softcap alone */
    int64_t stride;
    bool is_ragged;                           /* not every row sees all keys */
    attni_interval seen[ATTNI_GRADIENT_ROWS]; /* by each row, counted from the block's first key */
} attni_gradient_tile;

/* A slot's scratch memory and where its item is. */
typedef struct attni_gradients_item {
    const attni_gradients_engine *engine;
    char *slot;
    attni_gradients_view view;
    attni_gradient_keys keys;
    attni_gradient_rows rows;
    attni_gradient_tile tile;
} attni_gradients_item;

#endif
