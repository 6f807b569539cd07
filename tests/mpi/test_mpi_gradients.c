/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_mpi_gradients.c: gradients over many ranks against the oracle's of the whole, of the cases
 * of test_mpi_covering.c. Each is run twice, once in a workspace of exactly the bytes that it
 * needs, and must give the same bits.
 * Usage: test_mpi_gradients [<first seed> <cases>]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ranks_gradients.h"
#include "ranks_program.h"
#include "support/oracle_tensor.h"

enum { LINE_BYTES = 400, NUM_CASES = 160 };

/* The elements of all gradients, one after the other. */
static unsigned char *bytes_of(const ranks_gradients *made, size_t *bytes) {
    unsigned char *all = NULL;
    *bytes = 0;
    for (int i = 0; i < ORACLE_NUM_GRADIENTS; ++i) {
        const attn_tensor *const own = made->own.wanted[i];
        const int64_t count = own != NULL ? oracle_count(own->rank, own->shape) : 0;
        const size_t size = own != NULL ? attn_dtype_size_bytes(own->dtype) : 0;
        int64_t index[ATTN_MAX_RANK] = {0};
        all = realloc(all, *bytes + (size_t)count * size + 1);
        RANKS_ASSERT(all != NULL, "no memory");
        for (int64_t k = 0; k < count; ++k) {
            memcpy(all + *bytes, oracle_address(own, index), size);
            *bytes += size;
            oracle_next_index(own->rank, own->shape, index);
        }
    }
    return all;
}

static void run(const ranks_gradients *made, attn_context *context, void *workspace, size_t bytes) {
    const ranks_tensors *const own = &made->made.own;
    const attn_sdpa_params params = ranks_gradients_params(made);
    const attn_sdpa_gradients gradients = ranks_gradients_of(made);
    const attn_status status = attn_mpi_sdpa_backward(
        context, MPI_COMM_WORLD, own->query, own->key, own->value, &params, &made->made.mpi_params,
        made->own.output, &gradients, workspace, bytes);
    RANKS_ASSERT(status == ATTN_OK, "%s: %s", made->made.text, attn_last_error());
}

/* Guarded by a byte behind its end and placed off any alignment. */
static void run_in_workspace(const ranks_gradients *made, attn_context *context) {
    const ranks_tensors *const own = &made->made.own;
    const attn_sdpa_params params = ranks_gradients_params(made);
    const attn_sdpa_gradients gradients = ranks_gradients_of(made);
    size_t bytes = 0;
    const attn_status status = attn_mpi_sdpa_backward_workspace_bytes(
        context, MPI_COMM_WORLD, own->query, own->key, own->value, &params, &made->made.mpi_params,
        made->own.output, &gradients, &bytes);
    RANKS_ASSERT(status == ATTN_OK, "%s: workspace: %s", made->made.text, attn_last_error());
    unsigned char *const memory = oracle_allocate((int64_t)bytes + 2, 1);
    memset(memory, 0xff, bytes + 1);
    memory[bytes + 1] = 0x77;
    run(made, context, memory + 1, bytes);
    RANKS_ASSERT(memory[bytes + 1] == 0x77, "%s: wrote behind the workspace", made->made.text);
    free(memory);
}

static void run_case(uint64_t seed, attn_context *context, const char *kernels,
                     compare_stats *stats) {
    ranks_gradients made;
    char line[LINE_BYTES];
    size_t bytes, again;
    ranks_gradients_make(seed, ranks_rank(), ranks_count(), context, &made);
    pool_begin(&made.made.own_pool);
    run(&made, context, NULL, 0);
    RANKS_ASSERT(!pool_check(&made.made.own_pool, line, sizeof line), "%s: %s", made.made.text,
                 line);
    RANKS_ASSERT(!ranks_gradients_compare(&made, kernels, stats, line, sizeof line), "%s: %s",
                 made.made.text, line);
    unsigned char *const first = bytes_of(&made, &bytes);
    ranks_gradients_reset(&made);
    run_in_workspace(&made, context);
    unsigned char *const second = bytes_of(&made, &again);
    RANKS_ASSERT(bytes == again && memcmp(first, second, bytes) == 0,
                 "%s: the second run has other bits", made.made.text);
    free(first);
    free(second);
    ranks_gradients_destroy(&made);
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
    return ranks_end("gradients");
}
