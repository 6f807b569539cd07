/* SPDX-License-Identifier: BSD-3-Clause
 *
 * workspace.c: adds up, checks and takes the scratch memory of one call.
 */
#include "base/workspace.h"

#include "base/checked_size.h"

size_t attni_layout_add(attni_layout *layout, int64_t count, size_t element_bytes) {
    const size_t offset = layout->bytes;
    int64_t bytes;
    int64_t end;
    const bool fits = attni_multiply(count, (int64_t)element_bytes, &bytes) &&
                      attni_add(bytes, ATTNI_ALIGNMENT - 1, &bytes) &&
                      attni_add((int64_t)offset, bytes & ~(int64_t)(ATTNI_ALIGNMENT - 1), &end);
    if (!fits) {
        layout->overflow = true;
        return offset;
    }
    layout->bytes = (size_t)end;
    return offset;
}

attn_status attni_layout_bytes(const attni_layout *layout, size_t *bytes) {
    if (layout->overflow || layout->bytes > (size_t)INT64_MAX - ATTNI_ALIGNMENT) {
        return attni_fail(ATTN_ERROR_OVERFLOW,
                          "workspace: the call would need more than %lld bytes",
                          (long long)INT64_MAX);
    }
    *bytes = attni_workspace_reach(layout);
    return ATTN_OK;
}

size_t attni_workspace_reach(const attni_layout *layout) {
    return layout->bytes == 0 ? 0 : layout->bytes + ATTNI_ALIGNMENT - 1;
}

attn_status attni_workspace_check(const attni_layout *layout, const void *given,
                                  size_t given_bytes) {
    size_t needed = 0;
    ATTNI_TRY(attni_layout_bytes(layout, &needed));
    if (given != NULL && given_bytes < needed) {
        return attni_fail(ATTN_ERROR_WORKSPACE,
                          "workspace_bytes: expected at least %zu for this call, got %zu", needed,
                          given_bytes);
    }
    return ATTN_OK;
}

attn_status attni_workspace_acquire(const attni_layout *layout, const attni_allocator *allocator,
                                    void *given, attni_workspace *workspace) {
    *workspace = (attni_workspace){0};
    if (layout->bytes == 0) {
        return ATTN_OK;
    }
    if (given != NULL) {
        const uintptr_t address = (uintptr_t)given;
        const uintptr_t skip = (uintptr_t)-address & (uintptr_t)(ATTNI_ALIGNMENT - 1);
        workspace->base = (char *)given + skip;
        return ATTN_OK;
    }
    workspace->owned = attni_allocate(allocator, layout->bytes);
    workspace->owned_bytes = layout->bytes;
    workspace->base = workspace->owned;
    if (workspace->owned == NULL) {
        return attni_fail(ATTN_ERROR_MEMORY, "workspace: allocation of %zu bytes failed",
                          layout->bytes);
    }
    return ATTN_OK;
}

void attni_workspace_release(attni_workspace *workspace, const attni_allocator *allocator) {
    attni_deallocate(allocator, workspace->owned, workspace->owned_bytes);
    *workspace = (attni_workspace){0};
}
