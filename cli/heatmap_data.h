/* SPDX-License-Identifier: BSD-3-Clause
 *
 * heatmap_data.h: the attention weights of one sequence, without its padding, with a word for every
 * row and column.
 */
#ifndef ATTN_CLI_HEATMAP_DATA_H
#define ATTN_CLI_HEATMAP_DATA_H

#include <stdint.h>

#include "safetensors_read.h"
#include "tensor_load.h"

/* How a weights tensor's axes are to be read. */
enum heatmap_axes {
    HEATMAP_AXES_AUTO,
    HEATMAP_AXES_NHLT,
    HEATMAP_AXES_NLT,
    HEATMAP_AXES_HLT,
    HEATMAP_AXES_LT
};

/* What of a file is wanted. */
typedef struct heatmap_request {
    const char *path; /* for errors */
    const char *tensor;
    int axes; /* enum heatmap_axes */
    int64_t sequence;
    int words_only; /* leave out marks such as [CLS], which often take most of the weight */
} heatmap_request;

/* The positions of one axis that are drawn. */
typedef struct heatmap_axis {
    int64_t count;
    int64_t *positions; /* in the tensor, ascending */
    char **labels;      /* a word, or the position's number */
    int64_t num_extra;  /* how many of the last ones are extra columns (bias_kv, zero), which are no
                           words */
} heatmap_axis;

typedef struct heatmap_data {
    owned_tensor weights; /* float32 (H, L, T) */
    int64_t num_heads;    /* 1 if the weights are an average over heads */
    int is_average;       /* there is no head axis */
    heatmap_axis rows;
    heatmap_axis columns;
    char *sentence; /* the words of the rows in a line; "" if the file has none */
    int words_only; /* marks such as [CLS] were left out */
    int rows_add_up_to_one;
    int has_nan;
    double smallest; /* of all values drawn, NaN aside */
    double largest;
} heatmap_data;

/* Reads a tensor's weights of one sequence. EXIT_DONE, or another exit code after an error line;
 * heatmap_data_free is due in every case. */
int heatmap_data_read(const safetensors_file *file, const heatmap_request *request,
                      heatmap_data *data);

/* The value drawn in a cell of block * block values (cut at the edges): the one farthest from 0;
 * NaN if there is one. */
double heatmap_cell_value(const heatmap_data *data, int64_t head, int64_t cell_row,
                          int64_t cell_column, int64_t block);

void heatmap_data_free(heatmap_data *data);

#endif
