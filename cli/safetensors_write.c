/* SPDX-License-Identifier: BSD-3-Clause
 *
 * safetensors_write.c: header by the JSON library, then the tensors' bytes.
 */
#include "safetensors_write.h"

#include <stdio.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "file_replace.h"

/* Adds value to object under name; the JSON library frees neither on a failure. */
static int add_item(cJSON *object, const char *name, cJSON *value) {
    if (value != NULL && cJSON_AddItemToObject(object, name, value)) {
        return 0;
    }
    cJSON_Delete(value);
    return -1;
}

static int add_number(cJSON *array, double number) {
    cJSON *item = cJSON_CreateNumber(number);
    if (item != NULL && cJSON_AddItemToArray(array, item)) {
        return 0;
    }
    cJSON_Delete(item);
    return -1;
}

static int describe_tensor(cJSON *header, const safetensors_entry *tensor, size_t begin) {
    cJSON *object = cJSON_AddObjectToObject(header, tensor->name);
    if (object == NULL || cJSON_AddStringToObject(object, "dtype", tensor->dtype) == NULL) {
        return -1;
    }
    cJSON *shape = cJSON_AddArrayToObject(object, "shape");
    for (int32_t axis = 0; axis < tensor->rank; axis++) {
        if (shape == NULL || add_number(shape, (double)tensor->shape[axis]) != 0) {
            return -1;
        }
    }
    cJSON *offsets = cJSON_AddArrayToObject(object, "data_offsets");
    if (shape == NULL || offsets == NULL || add_number(offsets, (double)begin) != 0) {
        return -1;
    }
    return add_number(offsets, (double)(begin + tensor->data_bytes));
}

static int describe_metadata(cJSON *header, const safetensors_text *metadata,
                             int64_t metadata_count) {
    cJSON *object = cJSON_CreateObject();
    if (add_item(header, "__metadata__", object) != 0) {
        return -1;
    }
    for (int64_t i = 0; i < metadata_count; i++) {
        if (cJSON_AddStringToObject(object, metadata[i].key, metadata[i].value) == NULL) {
            return -1;
        }
    }
    return 0;
}

/* The JSON text of the header, to be freed by cJSON_free; NULL if memory runs out. */
static char *make_header(const safetensors_entry *tensors, int64_t count,
                         const safetensors_text *metadata, int64_t metadata_count) {
    cJSON *header = cJSON_CreateObject();
    int failed = header == NULL ||
                 (metadata_count > 0 && describe_metadata(header, metadata, metadata_count) != 0);
    size_t begin = 0;
    for (int64_t i = 0; i < count && !failed; i++) {
        failed = describe_tensor(header, &tensors[i], begin) != 0;
        begin += tensors[i].data_bytes;
    }
    char *text = failed ? NULL : cJSON_PrintUnformatted(header);
    cJSON_Delete(header);
    return text;
}

/* Header length, header, and spaces that bring the data to a multiple of 8. */
static void write_header(file_replacement *file, const char *text) {
    size_t text_bytes = strlen(text);
    size_t padding_bytes = (8 - text_bytes % 8) % 8;
    uint64_t length = text_bytes + padding_bytes;
    unsigned char length_bytes[8];
    for (int i = 0; i < 8; i++) {
        length_bytes[i] = (unsigned char)(length >> 8 * i & 0xff);
    }
    (void)file_replace_write(file, length_bytes, sizeof length_bytes);
    (void)file_replace_write(file, text, text_bytes);
    (void)file_replace_write(file, "        ", padding_bytes);
}

int safetensors_save(const char *path, const safetensors_entry *tensors, int64_t count,
                     const safetensors_text *metadata, int64_t metadata_count, char *error,
                     size_t error_bytes) {
    char *header = make_header(tensors, count, metadata, metadata_count);
    if (header == NULL) {
        (void)snprintf(error, error_bytes, "%s: out of memory", path);
        return -1;
    }
    file_replacement file;
    if (file_replace_begin(&file, path, error, error_bytes) != 0) {
        cJSON_free(header);
        return -1;
    }
    write_header(&file, header);
    cJSON_free(header);
    for (int64_t i = 0; i < count; i++) {
        (void)file_replace_write(&file, tensors[i].data, tensors[i].data_bytes);
    }
    return file_replace_commit(&file, error, error_bytes);
}
