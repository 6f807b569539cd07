/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_memory.c: adds up and takes the memory of a call.
 */
#include "mpi_memory.h"

#include "mpi_link.h"

static bool add_fits(int64_t x, int64_t y, int64_t *sum) {
    return !__builtin_add_overflow(x, y, sum);
}

int64_t attni_mpi_layout_add(attni_mpi_layout *layout, int64_t count, int64_t element_bytes) {
    const int64_t offset = layout->bytes;
    int64_t bytes, end;
    if (__builtin_mul_overflow(count, element_bytes, &bytes) ||
        !add_fits(bytes, ATTNI_MPI_UNIT_BYTES - 1, &bytes) ||
        !add_fits(offset, bytes / ATTNI_MPI_UNIT_BYTES * ATTNI_MPI_UNIT_BYTES, &end)) {
        layout->overflows = true;
        return offset;
    }
    layout->bytes = end;
    return offset;
}

int64_t attni_mpi_layout_add_tensor(attni_mpi_layout *layout, const attn_tensor *view) {
    int64_t count = 1;
    for (int32_t axis = 0; axis < view->rank; ++axis) {
        layout->overflows |= __builtin_mul_overflow(count, view->shape[axis], &count);
    }
    return attni_mpi_layout_add(layout, count, (int64_t)attn_dtype_size_bytes(view->dtype));
}

int64_t attni_mpi_tensor_bytes(const attn_tensor *view) {
    attni_mpi_layout layout = {0};
    attni_mpi_layout_add_tensor(&layout, view);
    return layout.overflows ? INT64_MAX : layout.bytes;
}

attn_tensor attni_mpi_contiguous(const attn_tensor *view, int32_t dtype, void *data) {
    attn_tensor made = {.data = data, .dtype = dtype, .rank = view->rank};
    int64_t stride = 1;
    for (int32_t axis = view->rank - 1; axis >= 0; --axis) {
        made.shape[axis] = view->shape[axis];
        made.strides[axis] = stride;
        /* Of a tensor that does not fit the address space, which the layout refuses, any number. */
        stride = (int64_t)((uint64_t)stride * (uint64_t)view->shape[axis]);
    }
    return made;
}

attn_status attni_mpi_layout_bytes(const attni_mpi_layout *layout, size_t *bytes) {
    if (layout->overflows || layout->bytes > INT64_MAX - ATTNI_MPI_UNIT_BYTES) {
        return attni_mpi_fail(ATTN_ERROR_OVERFLOW,
                              "workspace: the call would need more than %lld bytes",
                              (long long)INT64_MAX);
    }
    *bytes = (size_t)layout->bytes + ATTNI_MPI_UNIT_BYTES - 1;
    return ATTN_OK;
}

attn_status attni_mpi_memory_take(attn_context *context, const attni_mpi_layout *layout,
                                  void *workspace, size_t workspace_bytes,
                                  attni_mpi_memory *memory) {
    size_t needed = 0;
    *memory = (attni_mpi_memory){0};
    ATTNI_MPI_TRY(attni_mpi_layout_bytes(layout, &needed));
    if (workspace != NULL && workspace_bytes < needed) {
        return attni_mpi_fail(ATTN_ERROR_WORKSPACE,
                              "workspace_bytes: expected at least %zu for this call, got %zu",
                              needed, workspace_bytes);
    }
    if (workspace == NULL) {
        ATTNI_MPI_TRY(attn_context_allocate(context, needed, &memory->owned));
        memory->owned_bytes = needed;
        workspace = memory->owned;
    }
    const uintptr_t skip =
        (uintptr_t) - (uintptr_t)workspace & (uintptr_t)(ATTNI_MPI_UNIT_BYTES - 1);
    memory->base = (char *)workspace + skip;
    return ATTN_OK;
}

void attni_mpi_memory_release(attn_context *context, attni_mpi_memory *memory) {
    attn_context_deallocate(context, memory->owned, memory->owned_bytes);
    *memory = (attni_mpi_memory){0};
}
