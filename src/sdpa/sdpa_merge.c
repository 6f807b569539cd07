/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_merge.c: the public merge of partial results: check, cut into pieces of work, run.
 */
#include <attention/merge.h>

#include "base/checked_size.h"
#include "base/float_traps.h"
#include "context/context.h"
#include "sdpa/merge_check.h"
#include "sdpa/merge_rows.h"

enum {
    ELEMENT_WORK = 8, /* multiply-adds that take as long as fetching a number from memory */
    EXP_COLUMNS = 16, /* columns that take as long as the weight of a row */
    MOST_ITEMS = 256  /* pieces of work at most, so that dealing them out costs nothing */
};

typedef struct merge_run {
    const attni_merge_problem *problem;
    const attni_kernel_set *kernels;
    int64_t num_blocks;
    int64_t blocks_per_item;
} merge_run;

static void run_item(void *data, int32_t slot, int64_t item) {
    (void)slot;
    const merge_run *run = data;
    const int64_t first = item * run->blocks_per_item;
    const int64_t end = attni_min(run->num_blocks, first + run->blocks_per_item);
    for (int64_t block = first; block < end; ++block) {
        attni_merge_block(run->problem, run->kernels, block);
    }
}

/* Whether a row has anything to write. */
static bool writes_rows(const attni_merge_problem *problem) {
    return problem->num_rows > 0 && (problem->num_cols > 0 || problem->lse != NULL);
}

static attn_status run_merge(attn_context *context, const attni_merge_problem *problem) {
    merge_run run = {.problem = problem,
                     .kernels = attni_context_kernels(context),
                     .num_blocks = attni_merge_num_blocks(problem)};
    const double work = (double)problem->num_rows * (double)problem->count *
                        ((double)problem->num_cols + EXP_COLUMNS) * ELEMENT_WORK;
    run.blocks_per_item = attni_divide_up(run.num_blocks, MOST_ITEMS);
    const int64_t items = attni_divide_up(run.num_blocks, run.blocks_per_item);
    const int32_t slots = work < ATTNI_SERIAL_WORK ? 1 : attni_context_slots(context, items);
    return attni_parallel_items(context, slots, items, run_item, &run);
}

attn_status attn_sdpa_merge(attn_context *context, int64_t count, const attn_tensor *outputs,
                            const attn_tensor *lses, const attn_merge_params *params,
                            const attn_tensor *output, const attn_tensor *lse) {
    ATTNI_NO_FLOAT_TRAPS;
    attni_error_clear();
    ATTNI_TRY(attni_context_resolve(context, &context));
    attni_merge_problem problem = {
        .count = count, .outputs = outputs, .lses = lses, .output = output, .lse = lse};
    ATTNI_TRY(attni_merge_check(params, &problem));
    return writes_rows(&problem) ? run_merge(context, &problem) : ATTN_OK;
}
