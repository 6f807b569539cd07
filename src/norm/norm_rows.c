/* SPDX-License-Identifier: BSD-3-Clause
 *
 * norm_rows.c: normalises rows by the root of the mean of their squares.
 */
#include "norm/norm_rows.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/checked_size.h"
#include "kernels/stored_rows.h"
#include "tensor/element.h"

enum {
    CHUNK = 512,             /* elements of a row summed, or copied to the stack, at a time */
    ITEM_ELEMENTS = 1 << 15, /* of an item at least: less is not worth waking a thread for */
    SERIAL_ELEMENTS = 1 << 16
};

typedef struct norm_run {
    const attni_norm_problem *problem;
    const attni_kernel_set *set;
    const attni_feature_kernels *kernels; /* of the set, for the score type */
    int64_t rows_per_item;
} norm_run;

/* A row of a tensor, whose elements lie `stride` apart. */
typedef struct norm_row {
    char *data;
    int64_t stride;
    int32_t dtype;
} norm_row;

static norm_row row_of(const attni_norm_problem *problem, const attn_tensor *tensor,
                       const int64_t *strides, int64_t row) {
    const int64_t offset = attni_offset_of(row, problem->row_rank, problem->input.shape, strides);
    return (norm_row){
        attni_advance(tensor->data, offset * (int64_t)attn_dtype_size_bytes(tensor->dtype)),
        strides[problem->row_rank], tensor->dtype};
}

static char *element_of(norm_row row, int64_t first) {
    return row.data + first * row.stride * (int64_t)attn_dtype_size_bytes(row.dtype);
}

static bool is_direct(const norm_run *run, norm_row row) {
    return row.dtype == run->problem->score_dtype && row.stride == 1;
}

/* A copy of `count` elements that begin at `source`, which is kept for the next row: it may have
 * the same weights. */
typedef struct norm_copy {
    const char *source;
    int64_t count;
    _Alignas(ATTNI_ALIGNMENT) char elements[CHUNK * sizeof(double)];
} norm_copy;

/* Elements [first, first + count) as kernels read them: where they lie, or in `copy`. */
static const char *take(const norm_run *run, norm_row row, int64_t first, int64_t count,
                        norm_copy *copy) {
    const char *source = element_of(row, first);
    if (is_direct(run, row)) {
        return source;
    }
    if (copy->source != source || copy->count != count) {
        attni_take_row(run->set, copy->elements, source, row.dtype, row.stride, count);
        copy->source = source;
        copy->count = count;
    }
    return copy->elements;
}

/* ---- the scale of a row ---- */

static double square_sum(const norm_run *run, norm_row row, double factor, norm_copy *copy) {
    const int64_t num_cols = run->problem->num_cols;
    double sum = 0;
    for (int64_t first = 0; first < num_cols; first += CHUNK) {
        const int64_t count = attni_min(CHUNK, num_cols - first);
        sum += run->kernels->square_sum(take(run, row, first, count, copy), count, factor);
    }
    return sum;
}

static double largest_of(const norm_run *run, norm_row row) {
    double largest = 0;
    for (int64_t j = 0; j < run->problem->num_cols; ++j) {
        largest = fmax(largest, fabs(attni_read_real(row.data, j * row.stride, row.dtype)));
    }
    return largest;
}

/* What a row's elements are multiplied by: factor, a power of 2, and then scale. */
typedef struct norm_scale {
    double factor;
    double scale;
} norm_scale;

static norm_scale scale_by(const norm_run *run, double sum, double factor) {
    const double mean = sum / (double)run->problem->num_cols;
    return (norm_scale){factor, 1 / sqrt(mean + run->problem->epsilon * factor * factor)};
}

/* Squares of float32 neither overflow nor vanish in float64. Where those of float64 may, the row is
 * brought near 1 by a power of 2, which is exact, and epsilon with it. */
static norm_scale scale_of(const norm_run *run, norm_row row, norm_copy *copy) {
    static const double smallest = 0x1p-900;
    enum { HIGHEST_EXPONENT = 1022 }; /* of a power of 2 whose inverse is a normal number */
    const double epsilon = run->problem->epsilon;
    const double sum = square_sum(run, row, 1, copy);
    const bool is_large_enough = sum >= smallest || epsilon >= smallest;
    if (isnan(sum) || (is_large_enough && !isinf(sum))) {
        return scale_by(run, sum, 1);
    }
    const double size = fmax(largest_of(run, row), sqrt(epsilon));
    if (isinf(size)) {
        return (norm_scale){1, 0};
    }
    const int64_t exponent = attni_min(ilogb(size), HIGHEST_EXPONENT);
    const double factor = ldexp(1, (int)-exponent);
    return scale_by(run, square_sum(run, row, factor, copy), factor);
}

/* ---- rows ---- */

/* The rows of a call's tensors that belong together, and the copies of what kernels cannot read. */
typedef struct norm_rows {
    norm_row input;
    norm_row output;
    norm_row weight;
    norm_copy input_copy;
    norm_copy weight_copy;
} norm_rows;

static void normalize_row(const norm_run *run, norm_rows *rows) {
    const attni_norm_problem *problem = run->problem;
    const norm_scale by = scale_of(run, rows->input, &rows->input_copy);
    for (int64_t first = 0; first < problem->num_cols; first += CHUNK) {
        const int64_t count = attni_min(CHUNK, problem->num_cols - first);
        const char *from = take(run, rows->input, first, count, &rows->input_copy);
        const char *weights =
            problem->has_weight ? take(run, rows->weight, first, count, &rows->weight_copy) : NULL;
        _Alignas(ATTNI_ALIGNMENT) char results[CHUNK * sizeof(double)];
        char *output = element_of(rows->output, first);
        char *to = is_direct(run, rows->output) ? output : results;
        run->kernels->normalize(to, from, count, by.factor, by.scale, weights,
                                problem->weight_offset);
        if (to != output) {
            attni_put_row(run->set, output, rows->output.dtype, rows->output.stride, to, count);
        }
    }
}

static void begin_rows(const attni_norm_problem *problem, int64_t row, norm_rows *rows) {
    rows->input = row_of(problem, &problem->input, problem->input.strides, row);
    rows->output = row_of(problem, &problem->output, problem->output.strides, row);
    if (problem->has_weight) {
        rows->weight = row_of(problem, &problem->weight, problem->weight_strides, row);
    }
}

static void step(norm_row *row, int64_t stride) {
    row->data = attni_advance(row->data, stride * (int64_t)attn_dtype_size_bytes(row->dtype));
}

/* From the row before it; along the last of the row axes that is a step. */
static void move_to(const attni_norm_problem *problem, int64_t row, norm_rows *rows) {
    const int32_t axis = problem->row_rank - 1;
    if (row % problem->input.shape[axis] == 0) {
        begin_rows(problem, row, rows);
        return;
    }
    step(&rows->input, problem->input.strides[axis]);
    step(&rows->output, problem->output.strides[axis]);
    step(&rows->weight, problem->weight_strides[axis]);
}

static void run_item(void *data, int32_t slot, int64_t item) {
    const norm_run *run = data;
    const attni_norm_problem *problem = run->problem;
    const int64_t first = item * run->rows_per_item;
    const int64_t end = attni_min(problem->num_rows, first + run->rows_per_item);
    norm_rows rows;
    (void)slot;
    rows.weight = (norm_row){NULL, 0, ATTN_DTYPE_INVALID};
    rows.input_copy.source = rows.weight_copy.source = NULL;
    rows.input_copy.count = rows.weight_copy.count = 0;
    begin_rows(problem, first, &rows);
    normalize_row(run, &rows);
    for (int64_t row = first + 1; row < end; ++row) {
        move_to(problem, row, &rows);
        normalize_row(run, &rows);
    }
}

/* ---- and back ---- */

enum { MOST_BLOCKS = 64 }; /* enough for many threads; each has sums of its own */

typedef struct norm_back {
    norm_run run; /* whose items are blocks */
    double *sums;
} norm_back;

static bool is_zero(const norm_run *run, norm_row row) {
    for (int64_t j = 0; j < run->problem->num_cols; ++j) {
        if (attni_read_real(row.data, j, row.dtype) != 0) {
            return false;
        }
    }
    return true;
}

static void row_back(const norm_run *run, norm_rows *rows, double *sums) {
    const attni_norm_problem *problem = run->problem;
    if (is_zero(run, rows->output)) {
        return;
    }
    const norm_scale by = scale_of(run, rows->input, &rows->input_copy);
    double dot = 0;
    for (int64_t first = 0; first < problem->num_cols; first += CHUNK) {
        const int64_t count = attni_min(CHUNK, problem->num_cols - first);
        dot += run->kernels->normalized_dot(
            element_of(rows->input, first), element_of(rows->output, first), count, by.factor,
            by.scale, take(run, rows->weight, first, count, &rows->weight_copy),
            problem->weight_offset);
    }
    for (int64_t first = 0; first < problem->num_cols; first += CHUNK) {
        const int64_t count = attni_min(CHUNK, problem->num_cols - first);
        char *gradient = element_of(rows->output, first);
        run->kernels->normalize_back(gradient, sums + first, element_of(rows->input, first),
                                     gradient, count, by.factor, by.scale,
                                     take(run, rows->weight, first, count, &rows->weight_copy),
                                     problem->weight_offset, dot / (double)problem->num_cols);
    }
}

static void back_item(void *data, int32_t slot, int64_t item) {
    const norm_back *back = data;
    const attni_norm_problem *problem = back->run.problem;
    const int64_t first = item * back->run.rows_per_item;
    const int64_t end = attni_min(problem->num_rows, first + back->run.rows_per_item);
    double *sums = back->sums + item * problem->num_cols;
    norm_rows rows;
    (void)slot;
    rows.input_copy.source = rows.weight_copy.source = NULL;
    rows.input_copy.count = rows.weight_copy.count = 0;
    memset(sums, 0, (size_t)problem->num_cols * sizeof *sums);
    for (int64_t row = first; row < end; ++row) {
        begin_rows(problem, row, &rows);
        row_back(&back->run, &rows, sums);
    }
}

static int64_t rows_of_block(const attni_norm_problem *problem) {
    return attni_max(attni_divide_up(ITEM_ELEMENTS, attni_max(1, problem->num_cols)),
                     attni_divide_up(problem->num_rows, MOST_BLOCKS));
}

int64_t attni_norm_blocks(const attni_norm_problem *problem) {
    return attni_max(1, attni_divide_up(problem->num_rows, rows_of_block(problem)));
}

attn_status attni_norm_back(attn_context *context, const attni_norm_problem *problem,
                            double *sums) {
    const attni_kernel_set *set = attni_context_kernels(context);
    norm_back back = {
        {problem, set, attni_feature_kernels_of(set, problem->score_dtype), rows_of_block(problem)},
        sums};
    const int64_t blocks = attni_norm_blocks(problem);
    const bool is_serial = problem->num_rows * problem->num_cols < SERIAL_ELEMENTS;
    const int32_t num_slots = is_serial ? 1 : attni_context_slots(context, blocks);
    ATTNI_TRY(attni_parallel_items(context, num_slots, blocks, back_item, &back));
    for (int64_t block = 1; block < blocks; ++block) {
        for (int64_t col = 0; col < problem->num_cols; ++col) {
            sums[col] += sums[block * problem->num_cols + col];
        }
    }
    return ATTN_OK;
}

double attni_norm_default_epsilon(int32_t score_dtype) {
    return score_dtype == ATTN_DTYPE_FLOAT64 ? DBL_EPSILON : (double)FLT_EPSILON;
}

attn_status attni_norm_run(attn_context *context, const attni_norm_problem *problem) {
    if (problem->num_rows == 0 || problem->num_cols == 0) {
        return ATTN_OK;
    }
    const attni_kernel_set *set = attni_context_kernels(context);
    norm_run run = {problem, set, attni_feature_kernels_of(set, problem->score_dtype),
                    attni_divide_up(ITEM_ELEMENTS, problem->num_cols)};
    const int64_t num_items = attni_divide_up(problem->num_rows, run.rows_per_item);
    const bool is_serial = problem->num_rows * problem->num_cols < SERIAL_ELEMENTS;
    const int32_t num_slots = is_serial ? 1 : attni_context_slots(context, num_items);
    return attni_parallel_items(context, num_slots, num_items, run_item, &run);
}
