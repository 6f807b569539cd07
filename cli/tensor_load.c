/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tensor_load.c: element types of files to element types of the library.
 */
#include "tensor_load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attention/status.h>

#include "element_types.h"

enum { MEMORY_ALIGNMENT = 64 };

void owned_tensor_free(owned_tensor *tensor) {
    free(tensor->memory);
    *tensor = (owned_tensor){0};
}

int owned_tensor_allocate(owned_tensor *tensor, int32_t dtype, int32_t rank, const int64_t *shape,
                          char *error, size_t error_bytes) {
    int64_t count = 0;
    *tensor = (owned_tensor){0};
    if (attn_tensor_init(&tensor->view, NULL, dtype, rank, shape) != ATTN_OK ||
        attn_tensor_count(&tensor->view, &count) != ATTN_OK) {
        (void)snprintf(error, error_bytes, "%s", attn_last_error());
        return -1;
    }
    size_t bytes = (size_t)count * attn_dtype_size_bytes(dtype);
    if (posix_memalign(&tensor->memory, MEMORY_ALIGNMENT, bytes + 1) != 0) {
        tensor->memory = NULL;
        (void)snprintf(error, error_bytes, "out of memory for %zu bytes", bytes);
        return -1;
    }
    memset(tensor->memory, 0, bytes);
    tensor->memory_bytes = bytes;
    tensor->view.data = tensor->memory;
    return 0;
}

const char *shape_text(const int64_t *shape, int32_t rank, char *text, size_t bytes) {
    size_t used = (size_t)snprintf(text, bytes, "(");
    for (int32_t axis = 0; axis < rank && used < bytes; axis++) {
        used += (size_t)snprintf(text + used, bytes - used, "%s%lld", axis == 0 ? "" : ", ",
                                 (long long)shape[axis]);
    }
    if (used < bytes) {
        (void)snprintf(text + used, bytes - used, ")");
    }
    return text;
}

/* ---- elements ---- */

int entry_is_floating(const safetensors_entry *entry) {
    const element_type *type = element_type_in_file(entry->dtype);
    return type != NULL && type->precision > 0;
}

static void convert_elements(const safetensors_entry *entry, const element_type *source,
                             const element_type *target, owned_tensor *tensor) {
    const char *from = entry->data;
    char *to = tensor->memory;
    size_t count = entry->data_bytes / source->bytes;
    if (source == target && count > 0) {
        memcpy(to, from, entry->data_bytes);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        target->write(to + i * target->bytes, source->read(from + i * source->bytes));
    }
}

int tensor_load_values(const safetensors_entry *entry, int32_t dtype, owned_tensor *tensor,
                       char *error, size_t error_bytes) {
    char detail[600];
    *tensor = (owned_tensor){0};
    const element_type *target = element_type_of(dtype);
    const element_type *source = element_type_in_file(entry->dtype);
    int matches = dtype == ATTN_DTYPE_BOOL ? source == target : entry_is_floating(entry);
    if (!matches) {
        (void)snprintf(error, error_bytes, "%.200s: expected dtype %s, got %.20s", entry->name,
                       dtype == ATTN_DTYPE_BOOL ? "BOOL" : "F32, F64, F16 or BF16", entry->dtype);
        return -1;
    }
    if (entry->rank == SAFETENSORS_RANK_TOO_HIGH) {
        (void)snprintf(error, error_bytes, "%.200s: has more than %d axes", entry->name,
                       SAFETENSORS_MAX_RANK);
        return -1;
    }
    if (owned_tensor_allocate(tensor, dtype, entry->rank, entry->shape, detail, sizeof detail) !=
        0) {
        (void)snprintf(error, error_bytes, "%.200s: %.300s", entry->name, detail);
        return -1;
    }
    convert_elements(entry, source, target, tensor);
    return 0;
}
