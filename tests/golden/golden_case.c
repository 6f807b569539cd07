/* SPDX-License-Identifier: BSD-3-Clause
 *
 * golden_case.c: reads one reference case: options from the metadata, inputs as views, expected
 * values in float64.
 */
#include "golden_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct golden_block {
    golden_block *next;
    max_align_t memory[];
};

enum { KEY_BYTES = 128 };

bool golden_case_open(golden_case *golden, const char *path, const char *name, char *error,
                      size_t error_bytes) {
    *golden = (golden_case){.name = name, .score_magnitude = -1};
    return safetensors_open(path, &golden->file, error, error_bytes) == 0;
}

void golden_case_close(golden_case *golden) {
    while (golden->blocks != NULL) {
        golden_block *next = golden->blocks->next;
        free(golden->blocks);
        golden->blocks = next;
    }
    safetensors_close(golden->file);
    golden->file = NULL;
}

void *golden_take(golden_case *golden, size_t bytes) {
    golden_block *block = calloc(1, sizeof *block + bytes + 1);
    if (block == NULL) {
        fprintf(stderr, "%s: out of memory\n", golden->name);
        exit(EXIT_FAILURE);
    }
    block->next = golden->blocks;
    golden->blocks = block;
    return block->memory;
}

const char *golden_option(const golden_case *golden, const char *key) {
    const char *text = safetensors_metadata(golden->file, key);
    return text != NULL ? text : "";
}

bool golden_flag(const golden_case *golden, const char *key) {
    return strcmp(golden_option(golden, key), "1") == 0;
}

int64_t golden_number(const golden_case *golden, const char *key) {
    return strtoll(golden_option(golden, key), NULL, 10);
}

static const char *dotted_key(char *key, const char *name, const char *ending) {
    snprintf(key, KEY_BYTES, "%s.%s", name, ending);
    return key;
}

/* "2,3,7" of option NAME.ENDING into values; returns how many there are, -1 if more than fit. An
 * empty text is rank 0. */
static int32_t number_list(const golden_case *golden, const char *name, const char *ending,
                           int64_t *values) {
    char key[KEY_BYTES];
    const char *text = golden_option(golden, dotted_key(key, name, ending));
    int32_t count = 0;
    while (*text != '\0') {
        char *end;
        const int64_t value = strtoll(text, &end, 10);
        if (count == ATTN_MAX_RANK || end == text) {
            return -1;
        }
        values[count++] = value;
        text = *end == ',' ? end + 1 : end;
    }
    return count;
}

static int32_t library_dtype(const char *name) {
    static const struct {
        const char *name;
        int32_t dtype;
    } known[] = {{"F32", ATTN_DTYPE_FLOAT32},
                 {"F64", ATTN_DTYPE_FLOAT64},
                 {"BOOL", ATTN_DTYPE_BOOL},
                 {"I64", ATTN_DTYPE_INT64}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; ++i) {
        if (strcmp(name, known[i].name) == 0) {
            return known[i].dtype;
        }
    }
    return ATTN_DTYPE_INVALID;
}

static int64_t element_count(const safetensors_entry *entry) {
    int64_t count = 1;
    for (int32_t axis = 0; axis < entry->rank; ++axis) {
        count *= entry->shape[axis];
    }
    return count;
}

static double stored_value(const safetensors_entry *entry, int64_t index) {
    if (strcmp(entry->dtype, "F64") == 0) {
        double value;
        memcpy(&value, (const char *)entry->data + index * (int64_t)sizeof value, sizeof value);
        return value;
    }
    float value;
    memcpy(&value, (const char *)entry->data + index * (int64_t)sizeof value, sizeof value);
    return value;
}

static const double *values_as_double(golden_case *golden, const safetensors_entry *entry) {
    const int64_t count = element_count(entry);
    double *values = golden_take(golden, (size_t)count * sizeof *values);
    for (int64_t i = 0; i < count; ++i) {
        values[i] = stored_value(entry, i);
    }
    return values;
}

/* Chooses the memory and dtype of an entry; the address is without any offset. */
static void choose_memory(golden_case *golden, const safetensors_entry *entry, int32_t dtype,
                          attn_tensor *view) {
    view->dtype = library_dtype(entry->dtype);
    if (view->dtype == ATTN_DTYPE_INVALID) {
        view->dtype = ATTN_DTYPE_INT64;
        view->data = golden_take(golden, (size_t)element_count(entry) * sizeof(int64_t));
    } else if (view->dtype == ATTN_DTYPE_FLOAT32 && dtype == ATTN_DTYPE_FLOAT64) {
        view->dtype = ATTN_DTYPE_FLOAT64;
        view->data = (void *)(uintptr_t)values_as_double(golden, entry);
    } else {
        view->data = (void *)(uintptr_t)entry->data;
    }
}

/* Whether every element of a strided view lies inside storage of `count` elements. */
static bool inside(const attn_tensor *view, int64_t offset, int64_t count) {
    int64_t low = offset;
    int64_t high = offset;
    for (int32_t axis = 0; axis < view->rank; ++axis) {
        const int64_t span = view->strides[axis] * (view->shape[axis] - 1);
        low += span < 0 ? span : 0;
        high += span > 0 ? span : 0;
    }
    return golden_count(view) == 0 || (low >= 0 && high < count);
}

static bool strided_input(golden_case *golden, const char *name, int32_t dtype, attn_tensor *view) {
    char key[KEY_BYTES];
    const safetensors_entry *storage =
        safetensors_find(golden->file, dotted_key(key, name, "storage"));
    if (storage == NULL) {
        return false;
    }
    choose_memory(golden, storage, dtype, view);
    view->rank = number_list(golden, name, "shape", view->shape);
    if (view->rank < 0 || number_list(golden, name, "strides", view->strides) != view->rank) {
        return false;
    }
    const int64_t offset = golden_number(golden, dotted_key(key, name, "offset"));
    if (!inside(view, offset, element_count(storage))) {
        return false;
    }
    view->data = (char *)view->data + offset * (int64_t)attn_dtype_size_bytes(view->dtype);
    return true;
}

bool golden_input(golden_case *golden, const char *name, int32_t dtype, attn_tensor *view) {
    *view = (attn_tensor){0};
    const safetensors_entry *entry = safetensors_find(golden->file, name);
    if (entry == NULL) {
        return strided_input(golden, name, dtype, view);
    }
    if (entry->rank < 0) {
        return false;
    }
    choose_memory(golden, entry, dtype, view);
    return attn_tensor_init(view, view->data, view->dtype, entry->rank, entry->shape) == ATTN_OK;
}

bool golden_has_float_input(const golden_case *golden, const char *name) {
    const safetensors_entry *entry = safetensors_find(golden->file, name);
    return entry != NULL && (strcmp(entry->dtype, "F32") == 0 || strcmp(entry->dtype, "F64") == 0);
}

/* The tolerance the case states, or the rule by which the stated ones were made. */
static double tolerance_of(const golden_case *golden, const char *name,
                           const golden_expected *expected) {
    char key[KEY_BYTES];
    snprintf(key, sizeof key, "tol.%s", name);
    const char *text = golden_option(golden, key);
    if (*text != '\0') {
        return strtod(text, NULL);
    }
    double largest = 0;
    for (int64_t i = 0; i < expected->count; ++i) {
        largest = fmax(largest, fabs(expected->values[i]));
    }
    return fmax(1e-5, 2e-6 * largest);
}

bool golden_expected_values(golden_case *golden, const char *name, golden_expected *expected) {
    char key[KEY_BYTES];
    const safetensors_entry *entry = safetensors_find(golden->file, dotted_key(key, name, "f64"));
    entry = entry != NULL ? entry : safetensors_find(golden->file, name);
    if (entry == NULL || entry->rank < 0 ||
        (strcmp(entry->dtype, "F64") != 0 && strcmp(entry->dtype, "F32") != 0)) {
        return false;
    }
    expected->rank = entry->rank;
    memcpy(expected->shape, entry->shape, sizeof expected->shape);
    expected->count = element_count(entry);
    expected->values = values_as_double(golden, entry);
    expected->tolerance = tolerance_of(golden, name, expected);
    snprintf(key, sizeof key, "torch_err.%s", name);
    const char *text = golden_option(golden, key);
    expected->torch_error = *text != '\0' ? strtod(text, NULL) : -1;
    return true;
}

int64_t golden_count(const attn_tensor *view) {
    int64_t count = 1;
    for (int32_t axis = 0; axis < view->rank; ++axis) {
        count *= view->shape[axis];
    }
    return count;
}

double golden_value(const attn_tensor *view, int64_t flat) {
    int64_t offset = 0;
    for (int32_t axis = view->rank - 1; axis >= 0; --axis) {
        offset += flat % view->shape[axis] * view->strides[axis];
        flat /= view->shape[axis];
    }
    const char *address =
        (const char *)view->data + offset * (int64_t)attn_dtype_size_bytes(view->dtype);
    if (view->dtype == ATTN_DTYPE_FLOAT64) {
        double value;
        memcpy(&value, address, sizeof value);
        return value;
    }
    if (view->dtype == ATTN_DTYPE_FLOAT32) {
        float value;
        memcpy(&value, address, sizeof value);
        return value;
    }
    return *address != 0;
}
