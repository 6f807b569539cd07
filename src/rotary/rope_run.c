/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rope_run.c: plans and runs a rotation. A cosine costs as much as some rotated features, so an
 * item computes a block of them and turns the same rows of many heads.
 */
#include "rotary/rope_run.h"

#include "base/checked_size.h"
#include "rotary/rope_angles.h"
#include "rotary/rope_rows.h"
#include "tensor/element.h"

/* In multiply-adds (see ATTNI_SERIAL_WORK): a feature that comes and goes through memory, and a
 * cosine with its sine. As many planes as share that make it a fiftieth of the work, and leave an
 * item small enough to be one of many. */
enum { FEATURE_WORK = 16, ANGLE_WORK = 64, MOST_PLANES = 128 };

/* Items are (group, planes, rows), rows fastest. They depend on the shape alone. */
typedef struct rope_plan {
    int64_t planes_per_item;
    int64_t plane_parts; /* of a group's planes */
    int64_t rows_per_item;
    int64_t row_parts;
    int64_t num_items;
    bool is_serial;
} rope_plan;

typedef struct rope_run {
    const attni_rope_problem *problem;
    const rope_plan *plan;
    const attni_kernel_set *set;
    const double *frequencies; /* of the first pairs, mostly all */
} rope_run;

/* What one item turns: rows of planes [first_plane, end_plane). */
typedef struct rope_item {
    int64_t group;
    int64_t first_plane;
    int64_t end_plane;
    int64_t first_row;
    int64_t end_row;
} rope_item;

/* Saturated: only what is small is compared. */
static int64_t work_of(int64_t count, int64_t work) {
    int64_t product;
    return attni_multiply(count, work, &product) ? product : INT64_MAX;
}

static rope_plan make_plan(const attni_rope_problem *problem) {
    const int64_t num_planes = problem->num_groups * problem->group_planes;
    rope_plan plan = {.planes_per_item = attni_clamp(problem->group_planes, 1, MOST_PLANES)};
    if (num_planes == 0 || problem->num_rows == 0 || problem->num_features == 0) {
        return plan;
    }
    const int64_t angle_work = attni_rope_computes_angles(problem) ? ANGLE_WORK : FEATURE_WORK;
    const int64_t row_work = attni_saturating_add(
        work_of(plan.planes_per_item, work_of(problem->num_features, FEATURE_WORK)),
        work_of(problem->num_pairs, angle_work));
    plan.plane_parts = attni_divide_up(problem->group_planes, plan.planes_per_item);
    plan.rows_per_item =
        attni_clamp(attni_divide_up(ATTNI_SERIAL_WORK, row_work), 1, problem->num_rows);
    plan.row_parts = attni_divide_up(problem->num_rows, plan.rows_per_item);
    plan.num_items = problem->num_groups * plan.plane_parts * plan.row_parts;
    plan.is_serial = work_of(work_of(problem->num_groups * plan.plane_parts, problem->num_rows),
                             row_work) < ATTNI_SERIAL_WORK;
    return plan;
}

static rope_item item_of(const rope_run *run, int64_t index) {
    const rope_plan *plan = run->plan;
    const attni_rope_problem *problem = run->problem;
    const int64_t rows = index % plan->row_parts;
    const int64_t planes = index / plan->row_parts % plan->plane_parts;
    rope_item item = {.group = index / plan->row_parts / plan->plane_parts};
    const int64_t group_start = item.group * problem->group_planes;
    item.first_plane = group_start + planes * plan->planes_per_item;
    item.end_plane =
        attni_min(item.first_plane + plan->planes_per_item, group_start + problem->group_planes);
    item.first_row = rows * plan->rows_per_item;
    item.end_row = attni_min(item.first_row + plan->rows_per_item, problem->num_rows);
    return item;
}

static char *row_of(const attn_tensor *tensor, int64_t plane, int64_t row) {
    const int64_t offset =
        attni_offset_of(plane, tensor->rank - 2, tensor->shape, tensor->strides) +
        row * tensor->strides[tensor->rank - 2];
    return (char *)tensor->data + offset * (int64_t)attn_dtype_size_bytes(tensor->dtype);
}

/* The block's rows of one plane. */
static void turn_plane(const rope_run *run, const attni_rope_block *block, int64_t plane,
                       const char *cosines, const char *sines) {
    const attni_rope_problem *problem = run->problem;
    const attn_tensor *input = &problem->input;
    const attn_tensor *output = &problem->output;
    const int64_t input_step =
        input->strides[input->rank - 2] * (int64_t)attn_dtype_size_bytes(input->dtype);
    const int64_t output_step =
        output->strides[output->rank - 2] * (int64_t)attn_dtype_size_bytes(output->dtype);
    const int64_t table_step =
        block->num_pairs * (int64_t)attn_dtype_size_bytes(problem->score_dtype);
    const char *from = row_of(input, plane, block->first_row);
    char *to = row_of(output, plane, block->first_row);
    for (int64_t r = 0; r < block->num_rows; ++r) {
        const attni_rope_row row = {from + r * input_step, to + r * output_step};
        attni_rope_rotate(problem, run->set, row, block->first_pair, block->num_pairs,
                          cosines + r * table_step, sines + r * table_step);
        if (block->first_pair == 0) {
            attni_rope_copy_rest(problem, run->set, row);
        }
    }
}

/* All rows of an item, for pairs whose cosines and sines fit the stack row by row. */
static void turn_pairs(const rope_run *run, const rope_item *item, int64_t first_pair,
                       int64_t num_pairs) {
    _Alignas(ATTNI_ALIGNMENT) char cosines[ATTNI_ROPE_MOST_PAIRS * sizeof(double)];
    _Alignas(ATTNI_ALIGNMENT) char sines[ATTNI_ROPE_MOST_PAIRS * sizeof(double)];
    double own_frequencies[ATTNI_ROPE_MOST_PAIRS];
    const double *frequencies = first_pair == 0 ? run->frequencies : own_frequencies;
    if (first_pair != 0) {
        attni_rope_frequencies(run->problem, first_pair, num_pairs, own_frequencies);
    }
    const int64_t most_rows = ATTNI_ROPE_MOST_PAIRS / num_pairs;
    for (int64_t row = item->first_row; row < item->end_row; row += most_rows) {
        const attni_rope_block block = {.group = item->group,
                                        .first_row = row,
                                        .num_rows = attni_min(most_rows, item->end_row - row),
                                        .first_pair = first_pair,
                                        .num_pairs = num_pairs};
        attni_rope_fill(run->problem, run->set, &block, frequencies, cosines, sines);
        for (int64_t plane = item->first_plane; plane < item->end_plane; ++plane) {
            turn_plane(run, &block, plane, cosines, sines);
        }
    }
}

static void run_item(void *data, int32_t slot, int64_t index) {
    const rope_run *run = data;
    const rope_item item = item_of(run, index);
    const int64_t num_pairs = run->problem->num_pairs;
    (void)slot;
    for (int64_t first = 0; first < num_pairs; first += ATTNI_ROPE_MOST_PAIRS) {
        turn_pairs(run, &item, first, attni_min(ATTNI_ROPE_MOST_PAIRS, num_pairs - first));
    }
}

attn_status attni_rope_run(attn_context *context, const attni_rope_problem *problem) {
    const rope_plan plan = make_plan(problem);
    if (plan.num_items == 0) {
        return ATTN_OK;
    }
    double frequencies[ATTNI_ROPE_MOST_PAIRS];
    rope_run run = {.problem = problem,
                    .plan = &plan,
                    .set = attni_context_kernels(context),
                    .frequencies = problem->first_frequencies};
    if (run.frequencies == NULL) {
        attni_rope_frequencies(problem, 0, attni_min(problem->num_pairs, ATTNI_ROPE_MOST_PAIRS),
                               frequencies);
        run.frequencies = frequencies;
    }
    const int32_t num_slots = plan.is_serial ? 1 : attni_context_slots(context, plan.num_items);
    return attni_parallel_items(context, num_slots, plan.num_items, run_item, &run);
}
