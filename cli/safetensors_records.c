/* SPDX-License-Identifier: BSD-3-Clause
 *
 * safetensors_records.c: the checks of everything a header says about tensors and metadata.
 */
#include "safetensors_records.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "printable_text.h"

/* Every integer up to here is a double exactly, which is what the JSON parser stores numbers in. */
static const double max_json_integer = 9007199254740992.0;

#undef open_fail
int open_fail(const open_report *report, const char *format, ...) {
    char message[400];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (report->error_bytes == 0) {
        return -1;
    }
    (void)snprintf(report->error, report->error_bytes, "%s: %s", report->path, message);
    make_printable(report->error);
    return -1;
}

/* ---- one tensor's description ---- */

static int read_integer(const cJSON *item, uint64_t *value) {
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0) ||
        item->valuedouble > max_json_integer) {
        return -1;
    }
    *value = (uint64_t)item->valuedouble;
    return (double)*value == item->valuedouble ? 0 : -1;
}

static int read_shape(safetensors_entry *entry, const cJSON *shape, uint64_t *elements,
                      const open_report *report) {
    if (!cJSON_IsArray(shape)) {
        return open_fail(report, "%.200s: shape: expected an array of integers", entry->name);
    }
    *elements = 1;
    int64_t rank = 0;
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, shape) {
        uint64_t length = 0;
        if (read_integer(item, &length) != 0) {
            return open_fail(report, "%.200s: shape: axis %lld is not an integer from 0 to 2^53",
                             entry->name, (long long)rank);
        }
        if (__builtin_mul_overflow(*elements, length, elements)) {
            return open_fail(report, "%.200s: shape: the number of elements overflows",
                             entry->name);
        }
        if (rank < SAFETENSORS_MAX_RANK) {
            entry->shape[rank] = (int64_t)length;
        }
        rank++;
    }
    entry->rank = rank <= SAFETENSORS_MAX_RANK ? (int32_t)rank : SAFETENSORS_RANK_TOO_HIGH;
    return 0;
}

/* Bits of one element; 0 for a dtype this reader does not know. */
static uint64_t dtype_bits(const char *dtype) {
    static const struct {
        const char *name;
        uint64_t bits;
    } known[] = {{"F32", 32},    {"F64", 64},    {"F16", 16},    {"BF16", 16},   {"BOOL", 8},
                 {"I64", 64},    {"I32", 32},    {"I16", 16},    {"I8", 8},      {"U64", 64},
                 {"U32", 32},    {"U16", 16},    {"U8", 8},      {"C64", 64},    {"F4", 4},
                 {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F8_E8M0", 8}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(dtype, known[i].name) == 0) {
            return known[i].bits;
        }
    }
    return 0;
}

static int check_tensor_bytes(const tensor_record *record, uint64_t elements,
                              const open_report *report) {
    uint64_t bits = dtype_bits(record->entry.dtype);
    uint64_t total_bits = 0;
    if (bits == 0) {
        return 0;
    }
    if (__builtin_mul_overflow(elements, bits, &total_bits)) {
        return open_fail(report, "%.200s: shape: the number of bytes overflows",
                         record->entry.name);
    }
    if (total_bits % 8 != 0 || total_bits / 8 != record->end - record->begin) {
        return open_fail(
            report, "%.200s: data_offsets cover %llu bytes, but shape and dtype %.20s need %llu",
            record->entry.name, (unsigned long long)(record->end - record->begin),
            record->entry.dtype, (unsigned long long)((total_bits + 7) / 8));
    }
    return 0;
}

static int read_offsets(tensor_record *record, const cJSON *offsets, uint64_t data_bytes,
                        const open_report *report) {
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 ||
        read_integer(offsets->child, &record->begin) != 0 ||
        read_integer(offsets->child->next, &record->end) != 0) {
        return open_fail(report, "%.200s: data_offsets: expected two integers", record->entry.name);
    }
    if (record->begin > record->end || record->end > data_bytes) {
        return open_fail(report,
                         "%.200s: data_offsets [%llu, %llu] lie outside the file's %llu data bytes",
                         record->entry.name, (unsigned long long)record->begin,
                         (unsigned long long)record->end, (unsigned long long)data_bytes);
    }
    return 0;
}

/* data: the first byte after the header. */
static int read_record(tensor_record *record, const cJSON *item, const char *data,
                       uint64_t data_bytes, const open_report *report) {
    record->entry.name = item->string;
    if (!cJSON_IsObject(item)) {
        return open_fail(report, "%.200s: expected an object with dtype, shape and data_offsets",
                         item->string);
    }
    record->entry.dtype = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "dtype"));
    if (record->entry.dtype == NULL) {
        return open_fail(report, "%.200s: dtype: expected a string", item->string);
    }
    uint64_t elements = 0;
    if (read_shape(&record->entry, cJSON_GetObjectItemCaseSensitive(item, "shape"), &elements,
                   report) != 0 ||
        read_offsets(record, cJSON_GetObjectItemCaseSensitive(item, "data_offsets"), data_bytes,
                     report) != 0 ||
        check_tensor_bytes(record, elements, report) != 0) {
        return -1;
    }
    record->entry.data = data + record->begin;
    record->entry.data_bytes = (size_t)(record->end - record->begin);
    return 0;
}

/* ---- the whole header ---- */

static int compare_offsets(const void *left, const void *right) {
    const tensor_record *a = left;
    const tensor_record *b = right;
    if (a->begin != b->begin) {
        return a->begin < b->begin ? -1 : 1;
    }
    return (a->end > b->end) - (a->end < b->end);
}

static int compare_strings(const void *left, const void *right) {
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

static int compare_entry_names(const void *left, const void *right) {
    return strcmp((*(const safetensors_entry *const *)left)->name,
                  (*(const safetensors_entry *const *)right)->name);
}

static int check_unique_keys(const cJSON *object, const open_report *report) {
    size_t count = 0;
    for (const cJSON *item = object->child; item != NULL; item = item->next) {
        count++;
    }
    const char **keys = malloc((count + 1) * sizeof *keys);
    if (keys == NULL) {
        return open_fail(report, "header: out of memory");
    }
    size_t filled = 0;
    for (const cJSON *item = object->child; item != NULL; item = item->next) {
        keys[filled++] = item->string;
    }
    qsort(keys, count, sizeof *keys, compare_strings);
    int result = 0;
    for (size_t i = 1; i < count && result == 0; i++) {
        if (strcmp(keys[i - 1], keys[i]) == 0) {
            result = open_fail(report, "header: %.200s: the name occurs twice", keys[i]);
        }
    }
    free(keys);
    return result;
}

static int read_metadata(tensor_records *records, const cJSON *metadata,
                         const open_report *report) {
    if (!cJSON_IsObject(metadata)) {
        return open_fail(report, "__metadata__: expected an object");
    }
    for (const cJSON *item = metadata->child; item != NULL; item = item->next) {
        if (!cJSON_IsString(item)) {
            return open_fail(report, "__metadata__: %.200s: expected a string", item->string);
        }
    }
    records->metadata = metadata;
    return check_unique_keys(metadata, report);
}

/* The format forbids holes and overlaps, so in the order of the data every tensor begins where the
 * one before it ends. */
static int check_coverage(const tensor_records *records, uint64_t data_bytes,
                          const open_report *report) {
    uint64_t covered = 0;
    for (int64_t i = 0; i < records->count; i++) {
        const tensor_record *record = &records->records[i];
        if (record->begin != covered) {
            return open_fail(report, "%.200s: data_offsets begin at %llu, %s %llu",
                             record->entry.name, (unsigned long long)record->begin,
                             record->begin < covered ? "inside the tensor that ends at"
                                                     : "leaving a gap after",
                             (unsigned long long)covered);
        }
        covered = record->end;
    }
    if (covered != data_bytes) {
        return open_fail(report, "%llu bytes follow the last tensor",
                         (unsigned long long)(data_bytes - covered));
    }
    return 0;
}

static int allocate_records(tensor_records *records, const cJSON *header,
                            const open_report *report) {
    size_t count = 0;
    for (const cJSON *item = header->child; item != NULL; item = item->next) {
        count++;
    }
    records->records = calloc(count + 1, sizeof *records->records);
    records->by_name = calloc(count + 1, sizeof *records->by_name);
    return records->records == NULL || records->by_name == NULL
               ? open_fail(report, "header: out of memory")
               : 0;
}

static void sort_records(tensor_records *records) {
    qsort(records->records, (size_t)records->count, sizeof *records->records, compare_offsets);
    for (int64_t i = 0; i < records->count; i++) {
        records->by_name[i] = &records->records[i].entry;
    }
    qsort(records->by_name, (size_t)records->count, sizeof *records->by_name, compare_entry_names);
}

int tensor_records_read(const cJSON *header, const char *data, uint64_t data_bytes,
                        const open_report *report, tensor_records *records) {
    *records = (tensor_records){.count = 0};
    if (check_unique_keys(header, report) != 0 || allocate_records(records, header, report) != 0) {
        return -1;
    }
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, header) {
        int is_metadata = strcmp(item->string, "__metadata__") == 0;
        int result = is_metadata ? read_metadata(records, item, report)
                                 : read_record(&records->records[records->count], item, data,
                                               data_bytes, report);
        if (result != 0) {
            return -1;
        }
        records->count += !is_metadata;
    }
    sort_records(records);
    return check_coverage(records, data_bytes, report);
}

void tensor_records_free(tensor_records *records) {
    free(records->records);
    free(records->by_name);
    *records = (tensor_records){.count = 0};
}
