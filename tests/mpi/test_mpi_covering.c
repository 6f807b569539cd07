/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_mpi_covering.c: calls over many ranks against the oracle's of the whole: schemes, placements
 * and normalizers in turn, lengths, layouts, types and options at random. Each is run twice, once in
 * a workspace of exactly the bytes that it needs, and must give the same bits.
 * Usage: test_mpi_covering [<first seed> <cases>]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ranks_case.h"
#include "ranks_program.h"
#include "support/oracle_tensor.h"

enum { LINE_BYTES = 400, NUM_CASES = 224 };

/* The elements of a tensor, one after the other. */
static unsigned char *bytes_of(const attn_tensor *tensor, size_t *count) {
    const size_t element_bytes = attn_dtype_size_bytes(tensor->dtype);
    const int64_t elements = oracle_count(tensor->rank, tensor->shape);
    unsigned char *const bytes = oracle_allocate(elements + 1, element_bytes);
    int64_t index[ATTN_MAX_RANK] = {0};
    for (int64_t i = 0; i < elements; ++i) {
        memcpy(bytes + (size_t)i * element_bytes, oracle_address(tensor, index), element_bytes);
        oracle_next_index(tensor->rank, tensor->shape, index);
    }
    *count = (size_t)elements * element_bytes;
    return bytes;
}

static void run(const ranks_case *made, attn_context *context, void *workspace, size_t bytes) {
    const ranks_tensors *const own = &made->own;
    const attn_sdpa_params params = ranks_case_params(made, own);
    const attn_status status =
        attn_mpi_sdpa(context, MPI_COMM_WORLD, own->query, own->key, own->value, &params,
                      &made->mpi_params, own->output, workspace, bytes);
    RANKS_ASSERT(status == ATTN_OK, "%s: %s", made->text, attn_last_error());
}

/* Guarded by a byte behind its end and placed off any alignment. */
static void run_in_workspace(const ranks_case *made, attn_context *context) {
    const ranks_tensors *const own = &made->own;
    const attn_sdpa_params params = ranks_case_params(made, own);
    size_t bytes = 0;
    const attn_status status =
        attn_mpi_sdpa_workspace_bytes(context, MPI_COMM_WORLD, own->query, own->key, own->value,
                                      &params, &made->mpi_params, own->output, &bytes);
    RANKS_ASSERT(status == ATTN_OK, "%s: workspace: %s", made->text, attn_last_error());
    unsigned char *const memory = oracle_allocate((int64_t)bytes + 2, 1);
    memory[bytes + 1] = 0x77;
    run(made, context, memory + 1, bytes);
    RANKS_ASSERT(memory[bytes + 1] == 0x77, "%s: wrote behind the workspace", made->text);
    free(memory);
}

static void run_case(uint64_t seed, attn_context *context, const char *kernels,
                     compare_stats *stats) {
    ranks_case made;
    char line[LINE_BYTES];
    size_t count, again;
    ranks_case_make(seed, ranks_rank(), ranks_count(), &made);
    pool_begin(&made.own_pool);
    run(&made, context, NULL, 0);
    RANKS_ASSERT(!pool_check(&made.own_pool, line, sizeof line), "%s: %s", made.text, line);
    RANKS_ASSERT(!ranks_case_compare(&made, kernels, stats, line, sizeof line), "%s: %s", made.text,
                 line);
    unsigned char *const first = bytes_of(made.own.output, &count);
    run_in_workspace(&made, context);
    unsigned char *const second = bytes_of(made.own.output, &again);
    RANKS_ASSERT(count == again && memcmp(first, second, count) == 0,
                 "%s: the second run has other bits", made.text);
    free(first);
    free(second);
    ranks_case_destroy(&made);
}

int main(int argc, char **argv) {
    attn_context *context;
    attn_context_info info = {.struct_size = sizeof info};
    compare_stats stats = {0};
    const attn_context_config config = {.struct_size = sizeof config, .num_threads = 1};
    ranks_begin(&argc, &argv, MPI_THREAD_SINGLE);
    const uint64_t first = argc > 2 ? strtoull(argv[1], NULL, 10) : 0;
    const uint64_t cases = argc > 2 ? strtoull(argv[2], NULL, 10) : NUM_CASES;
    RANKS_ASSERT(attn_context_create(&config, &context) == ATTN_OK, "%s", attn_last_error());
    RANKS_ASSERT(attn_context_describe(context, &info) == ATTN_OK, "%s", attn_last_error());
    for (uint64_t seed = first; seed < first + cases; ++seed) {
        run_case(seed, context, info.kernels, &stats);
    }
    attn_context_destroy(context);
    if (ranks_rank() == 0) {
        printf("%lld numbers, the worst error is %.2f of its bound\n",
               (long long)stats.num_elements, stats.largest_ratio);
    }
    return ranks_end("covering");
}
