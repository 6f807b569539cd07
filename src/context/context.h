/* SPDX-License-Identifier: BSD-3-Clause
 *
 * context.h: the settings every call runs under, as the layers above see them.
 */
#ifndef ATTNI_CONTEXT_CONTEXT_H
#define ATTNI_CONTEXT_CONTEXT_H

#include <stdbool.h>

#include <attention/context.h>

#include "base/allocator.h"
#include "base/error.h"
#include "context/thread_pool.h"
#include "kernels/kernel_select.h"

/* `context` itself, or the process's default context for NULL, made on first use. Fails as
 * attn_context_describe(NULL, ...) does. */
attn_status attni_context_resolve(attn_context *context, attn_context **resolved);

const attni_allocator *attni_context_allocator(const attn_context *context);
const attni_kernel_set *attni_context_kernels(const attn_context *context);

/* Whether kernels of pairs, which round weights, are declined. */
bool attni_context_float32_weights(const attn_context *context);

/* As asked for, which may be "automatic". */
int32_t attni_context_engine(const attn_context *context);

/* ATTN_GEMM_BLAS or ATTN_GEMM_NATIVE, whatever was asked for: of the products in an engine's blocks
 * of rows, and of a layer's projections. */
int32_t attni_context_attention_gemm(const attn_context *context);
int32_t attni_context_projection_gemm(const attn_context *context);

/* Multiply-adds that are not worth waking a thread for, some 20 microseconds. */
enum { ATTNI_SERIAL_WORK = 1 << 20 };

/* How many of `count` items run at the same time at most: 1 to the number of threads (of a caller's
 * parallel_for, to its width). */
int32_t attni_context_slots(const attn_context *context, int64_t count);

/* Starts the context's threads if they do not run yet, for callers that may not fail once they have
 * begun. Fails with ATTN_ERROR_THREAD or ATTN_ERROR_MEMORY. */
attn_status attni_start_threads(attn_context *context);

/* Runs task(data, 0) ... task(data, count - 1), each exactly once, on the context's threads;
 * returns when all have returned. No bit of a result may depend on how many items there are;
 * scratch memory belongs to the item, never to a thread. Fails with ATTN_ERROR_THREAD
 * or ATTN_ERROR_MEMORY, and then none has run. */
attn_status attni_parallel_for(attn_context *context, int64_t count, attni_task task, void *data);

/* One item of attni_parallel_items; `slot` is below num_slots, and no two items run in one slot at
 * the same time, so a slot may have scratch memory of its own. */
typedef void (*attni_slot_task)(void *data, int32_t slot, int64_t index);

/* Runs task(data, slot, 0) ... task(data, slot, count - 1), each exactly once, dealt out one by one
 * in this order to whichever slot is free. Which slot gets an item is a matter of chance: results
 * may not depend on it. Fails as attni_parallel_for. */
attn_status attni_parallel_items(attn_context *context, int32_t num_slots, int64_t count,
                                 attni_slot_task task, void *data);

#endif
