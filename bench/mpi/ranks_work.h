/* SPDX-License-Identifier: BSD-3-Clause
 *
 * ranks_work.h: tensors of calls, and a rank's part of a call computed by itself.
 */
#ifndef RANKS_WORK_H
#define RANKS_WORK_H

#include <stdint.h>

#include <attention/attention.h>
#include <attention/mpi.h>

enum { FEATURES = 128 };

/* Of MPI_COMM_WORLD; heads of all calls. */
extern int this_rank, num_ranks, num_heads, num_key_heads;

/* Ends all ranks. */
_Noreturn void fail(const char *what);

/* In large pages of their own where the system gives some: which small pages share places in a cache
 * is chance, and made a process faster or slower than the next one by more than what is measured. */
float *numbers(int64_t count);

/* Memory that calls share, as those of a loop do: new memory costs a fault of each page. */
typedef struct workspace {
    void *data;
    size_t bytes;
} workspace;

workspace make_workspace(size_t forward_bytes, size_t backward_bytes);

enum tensor { QUERY, KEY, VALUE, OUTPUT, GIVEN, OF_QUERY, OF_KEY, OF_VALUE, LSE, NUM_TENSORS };

typedef struct measured_call {
    int is_backward;
    int32_t scheme, placement, is_causal;
    int64_t rows; /* of the whole */
} measured_call;

/* Tensors with so many rows of queries and keys, of so many heads. */
typedef struct call_tensors {
    float *data[NUM_TENSORS];
    attn_tensor views[NUM_TENSORS];
    attn_sdpa_params params;
    attn_sdpa_gradients gradients;
} call_tensors;

void make_tensors(int64_t rows, int64_t keys, int64_t parts, int32_t is_causal, call_tensors *made);

void free_tensors(call_tensors *made);

/* Rows that stand side by side in the whole, over the keys that they may see. */
typedef struct local_part {
    int64_t first, rows, keys;
    attn_tensor offset;
    call_tensors tensors;
    workspace memory;
} local_part;

/* What a rank computes of a call, as one or two parts; returns how many. */
int make_parts(attn_context *context, const measured_call *call, local_part *parts);

void free_parts(local_part *parts, int count);

void compute_part(attn_context *context, local_part *part, int is_backward);

/* Multiply-adds of the busiest rank, and pairs of all ranks. */
void count_work(const measured_call *call, const local_part *parts, int count, double *products,
                double *pairs);

#endif
