/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rope_rows.c: features of single rows. Kernels read and write consecutive elements of the score
 * type: in place where a row has them, else through a copy on the stack.
 */
#include "rotary/rope_rows.h"

#include "base/allocator.h"
#include "base/checked_size.h"
#include "kernels/stored_rows.h"
#include "tensor/element.h"
#include "tensor/strided_copy.h"

/* Consecutive features of a row, and a copy of them or NULL. */
typedef struct feature_run {
    int64_t first;
    int64_t count;
    char *copy;
} feature_run;

static int64_t feature_stride(const attn_tensor *tensor) {
    return tensor->strides[tensor->rank - 1];
}

/* Whether kernels read or write rows of the tensor where they are. */
static bool is_direct(const attn_tensor *tensor, int32_t score_dtype) {
    return tensor->dtype == score_dtype && feature_stride(tensor) == 1;
}

static int64_t feature_bytes(const attn_tensor *tensor, int64_t feature) {
    return feature * feature_stride(tensor) * (int64_t)attn_dtype_size_bytes(tensor->dtype);
}

static const char *take(const attni_rope_problem *problem, const attni_kernel_set *set,
                        attni_rope_row row, feature_run run) {
    const attn_tensor *input = &problem->input;
    const char *from = row.input + feature_bytes(input, run.first);
    if (is_direct(input, problem->score_dtype)) {
        return from;
    }
    attni_take_row(set, run.copy, from, input->dtype, feature_stride(input), run.count);
    return run.copy;
}

/* Where a kernel writes the run. */
static char *target(const attni_rope_problem *problem, attni_rope_row row, feature_run run) {
    const attn_tensor *output = &problem->output;
    return is_direct(output, problem->score_dtype) ? row.output + feature_bytes(output, run.first)
                                                   : run.copy;
}

static void put(const attni_rope_problem *problem, const attni_kernel_set *set, attni_rope_row row,
                feature_run run) {
    const attn_tensor *output = &problem->output;
    if (!is_direct(output, problem->score_dtype)) {
        attni_put_row(set, row.output + feature_bytes(output, run.first), output->dtype,
                      feature_stride(output), run.copy, run.count);
    }
}

void attni_rope_rotate(const attni_rope_problem *problem, const attni_kernel_set *set,
                       attni_rope_row row, int64_t first_pair, int64_t num_pairs,
                       const char *cosines, const char *sines) {
    _Alignas(ATTNI_ALIGNMENT) char copies[sizeof(double) * 2 * ATTNI_ROPE_MOST_PAIRS];
    const attni_feature_kernels *kernels = attni_feature_kernels_of(set, problem->score_dtype);
    if (problem->is_interleaved) {
        const feature_run run = {2 * first_pair, 2 * num_pairs, copies};
        kernels->rotate_neighbours(target(problem, row, run), take(problem, set, row, run), cosines,
                                   sines, num_pairs);
        put(problem, set, row, run);
        return;
    }
    const feature_run first = {first_pair, num_pairs, copies};
    const feature_run second = {problem->num_pairs + first_pair, num_pairs,
                                copies + sizeof copies / 2};
    kernels->rotate_halves(target(problem, row, first), target(problem, row, second),
                           take(problem, set, row, first), take(problem, set, row, second), cosines,
                           sines, num_pairs);
    put(problem, set, row, first);
    put(problem, set, row, second);
}

void attni_rope_copy_rest(const attni_rope_problem *problem, const attni_kernel_set *set,
                          attni_rope_row row) {
    const attn_tensor *input = &problem->input;
    const attn_tensor *output = &problem->output;
    const int64_t first = 2 * problem->num_pairs;
    const int64_t count = problem->num_features - first;
    if (problem->is_in_place || count == 0) {
        return;
    }
    const char *from = row.input + feature_bytes(input, first);
    char *to = row.output + feature_bytes(output, first);
    if (input->dtype == output->dtype) {
        const attni_strided_matrix source = {(char *)(uintptr_t)from, 0, feature_stride(input)};
        attni_copy_matrix((attni_strided_matrix){to, 0, feature_stride(output)}, source, 1, count,
                          attn_dtype_size_bytes(input->dtype));
        return;
    }
    /* Widened: output has the score type. */
    for (int64_t done = 0; done < count; done += ATTNI_ROPE_MOST_PAIRS) {
        float copy[ATTNI_ROPE_MOST_PAIRS];
        const int64_t part = attni_min(ATTNI_ROPE_MOST_PAIRS, count - done);
        attni_take_row(set, copy, from + feature_bytes(input, done), input->dtype,
                       feature_stride(input), part);
        attni_put_row(set, to + feature_bytes(output, done), output->dtype, feature_stride(output),
                      copy, part);
    }
}
