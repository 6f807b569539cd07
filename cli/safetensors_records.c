/* SPDX-License-Identifier: BSD-3-Clause
 *
 * safetensors_records.c: the checks of everything a header says about tensors and metadata.
 */
#include "safetensors_records.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_text.h"
#include "printable_text.h"

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

/* An array that has `count` items with room for one more: the array, or a longer one in its place.
 * NULL if memory runs out, and the array stays. */
static void *with_room(void *array, int64_t count, size_t item_bytes) {
    int is_full = (count & (count - 1)) == 0; /* lengths are powers of two */
    return is_full ? realloc(array, (count == 0 ? 1 : 2 * (size_t)count) * item_bytes) : array;
}

/* ---- one tensor's description ---- */

/* Bits of one element; 0 for a dtype the format does not have. */
static uint64_t dtype_bits(const char *dtype) {
    static const struct {
        const char *name;
        uint64_t bits;
    } known[] = {{"F32", 32},        {"F64", 64},       {"F16", 16},    {"BF16", 16},
                 {"BOOL", 8},        {"I64", 64},       {"I32", 32},    {"I16", 16},
                 {"I8", 8},          {"U64", 64},       {"U32", 32},    {"U16", 16},
                 {"U8", 8},          {"C64", 64},       {"F4", 4},      {"F8_E4M3", 8},
                 {"F8_E5M2", 8},     {"F6_E2M3", 6},    {"F6_E3M2", 6}, {"F8_E8M0", 8},
                 {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(dtype, known[i].name) == 0) {
            return known[i].bits;
        }
    }
    return 0;
}

static int read_dtype(json_text *text, tensor_record *record, const open_report *report) {
    char *dtype = NULL;
    if (json_text_string(text, &dtype) != 0) {
        return open_fail(report, "%.200s: dtype: expected a string", record->entry.name);
    }
    record->element_bits = dtype_bits(dtype);
    if (record->element_bits == 0) {
        return open_fail(report, "%.200s: dtype: the format has none named '%.20s'",
                         record->entry.name, dtype);
    }
    record->entry.dtype = dtype;
    return 0;
}

static int read_shape(json_text *text, tensor_record *record, const open_report *report) {
    safetensors_entry *entry = &record->entry;
    if (json_text_peek(text) != '[') {
        return open_fail(report, "%.200s: shape: expected an array of integers", entry->name);
    }
    record->elements = 1;
    int64_t rank = 0;
    while (json_text_next(text)) {
        uint64_t length = 0;
        if (json_text_integer(text, &length) != 0) {
            return open_fail(report, "%.200s: shape: axis %lld is not an integer from 0 to 2^53",
                             entry->name, (long long)rank);
        }
        if (__builtin_mul_overflow(record->elements, length, &record->elements)) {
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

static int read_offsets(json_text *text, tensor_record *record, const open_report *report) {
    if (json_text_peek(text) != '[' || !json_text_next(text) ||
        json_text_integer(text, &record->begin) != 0 || !json_text_next(text) ||
        json_text_integer(text, &record->end) != 0 || json_text_next(text)) {
        return open_fail(report, "%.200s: data_offsets: expected two integers", record->entry.name);
    }
    return 0;
}

/* What every tensor must say, in the order of the checks. */
static const struct tensor_field {
    const char *key;
    const char *expected;
    int (*read)(json_text *text, tensor_record *record, const open_report *report);
} fields[] = {{"dtype", "a string", read_dtype},
              {"shape", "an array of integers", read_shape},
              {"data_offsets", "two integers", read_offsets}};

enum { FIELD_COUNT = sizeof fields / sizeof fields[0] };

/* The field of that key, FIELD_COUNT if it is none. */
static size_t find_field(const char *key) {
    size_t field = 0;
    while (field < FIELD_COUNT && strcmp(fields[field].key, key) != 0) {
        field++;
    }
    return field;
}

/* Reads the object behind a tensor's name. Keys that the format does not define are stepped over,
 * as its own reader does. */
static int read_fields(json_text *text, tensor_record *record, const open_report *report) {
    int is_there[FIELD_COUNT] = {0};
    if (json_text_peek(text) != '{') {
        return open_fail(report, "%.200s: expected an object with dtype, shape and data_offsets",
                         record->entry.name);
    }
    while (json_text_next(text)) {
        size_t field = find_field(json_text_name(text));
        if (field == FIELD_COUNT) {
            (void)json_text_skip(text);
        } else if (is_there[field]) {
            return open_fail(report, "%.200s: %s: the key occurs twice", record->entry.name,
                             fields[field].key);
        } else if (fields[field].read(text, record, report) != 0) {
            return -1;
        } else {
            is_there[field] = 1;
        }
    }
    for (size_t field = 0; field < FIELD_COUNT; field++) {
        if (!is_there[field]) {
            return open_fail(report, "%.200s: %s: expected %s", record->entry.name,
                             fields[field].key, fields[field].expected);
        }
    }
    return 0;
}

static int check_bytes(const tensor_record *record, uint64_t data_bytes,
                       const open_report *report) {
    uint64_t total_bits = 0;
    if (record->begin > record->end || record->end > data_bytes) {
        return open_fail(report,
                         "%.200s: data_offsets [%llu, %llu] lie outside the file's %llu data bytes",
                         record->entry.name, (unsigned long long)record->begin,
                         (unsigned long long)record->end, (unsigned long long)data_bytes);
    }
    if (__builtin_mul_overflow(record->elements, record->element_bits, &total_bits)) {
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

/* ---- the whole header ---- */

/* Appends the tensor of that name. data: the first byte after the header. */
static int read_record(json_text *text, const char *name, const char *data, uint64_t data_bytes,
                       const open_report *report, tensor_records *records) {
    tensor_record *grown = with_room(records->records, records->count, sizeof *grown);
    if (grown == NULL) {
        return open_fail(report, "header: out of memory");
    }
    records->records = grown;
    tensor_record *record = &grown[records->count];
    *record = (tensor_record){.entry = {.name = name}};
    if (read_fields(text, record, report) != 0 || check_bytes(record, data_bytes, report) != 0) {
        return -1;
    }
    record->entry.data = data + record->begin;
    record->entry.data_bytes = (size_t)(record->end - record->begin);
    records->count++;
    return 0;
}

static int read_metadata(json_text *text, const open_report *report, tensor_records *records) {
    if (json_text_peek(text) != '{') {
        return open_fail(report, "__metadata__: expected an object");
    }
    while (json_text_next(text)) {
        metadata_record *grown =
            with_room(records->metadata, records->metadata_count, sizeof *grown);
        if (grown == NULL) {
            return open_fail(report, "header: out of memory");
        }
        records->metadata = grown;
        char *value = NULL;
        const char *key = json_text_name(text);
        if (json_text_string(text, &value) != 0) {
            return open_fail(report, "__metadata__: %.200s: expected a string", key);
        }
        grown[records->metadata_count++] = (metadata_record){key, value};
    }
    return 0;
}

static int read_header(json_text *text, const char *data, uint64_t data_bytes,
                       const open_report *report, tensor_records *records) {
    int has_metadata = 0;
    while (json_text_next(text)) {
        const char *name = json_text_name(text);
        int is_metadata = strcmp(name, "__metadata__") == 0;
        if (is_metadata && has_metadata) {
            return open_fail(report, "header: __metadata__: the name occurs twice");
        }
        has_metadata |= is_metadata;
        int result = is_metadata ? read_metadata(text, report, records)
                                 : read_record(text, name, data, data_bytes, report, records);
        if (result != 0) {
            return -1;
        }
    }
    return 0;
}

/* ---- order ---- */

static int compare_offsets(const void *left, const void *right) {
    const tensor_record *a = left;
    const tensor_record *b = right;
    if (a->begin != b->begin) {
        return a->begin < b->begin ? -1 : 1;
    }
    return (a->end > b->end) - (a->end < b->end);
}

static int compare_entry_names(const void *left, const void *right) {
    return strcmp((*(const safetensors_entry *const *)left)->name,
                  (*(const safetensors_entry *const *)right)->name);
}

static int compare_keys(const void *left, const void *right) {
    return strcmp(((const metadata_record *)left)->key, ((const metadata_record *)right)->key);
}

static int sort_records(tensor_records *records, const open_report *report) {
    size_t count = (size_t)records->count;
    records->by_name = calloc(count + 1, sizeof *records->by_name);
    if (records->by_name == NULL) {
        return open_fail(report, "header: out of memory");
    }
    if (count > 0) {
        qsort(records->records, count, sizeof *records->records, compare_offsets);
    }
    for (size_t i = 0; i < count; i++) {
        records->by_name[i] = &records->records[i].entry;
    }
    qsort(records->by_name, count, sizeof *records->by_name, compare_entry_names);
    if (records->metadata_count > 0) {
        qsort(records->metadata, (size_t)records->metadata_count, sizeof *records->metadata,
              compare_keys);
    }
    return 0;
}

/* ---- checks of all together ---- */

static int check_unique(const tensor_records *records, const open_report *report) {
    for (int64_t i = 1; i < records->count; i++) {
        if (strcmp(records->by_name[i - 1]->name, records->by_name[i]->name) == 0) {
            return open_fail(report, "header: %.200s: the name occurs twice",
                             records->by_name[i]->name);
        }
    }
    for (int64_t i = 1; i < records->metadata_count; i++) {
        if (strcmp(records->metadata[i - 1].key, records->metadata[i].key) == 0) {
            return open_fail(report, "__metadata__: %.200s: the name occurs twice",
                             records->metadata[i].key);
        }
    }
    return 0;
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

int tensor_records_read(char *header, const char *data, uint64_t data_bytes,
                        const open_report *report, tensor_records *records) {
    json_text text = {header};
    *records = (tensor_records){.count = 0};
    if (read_header(&text, data, data_bytes, report, records) != 0 ||
        sort_records(records, report) != 0 || check_unique(records, report) != 0) {
        return -1;
    }
    return check_coverage(records, data_bytes, report);
}

void tensor_records_free(tensor_records *records) {
    free(records->records);
    free(records->by_name);
    free(records->metadata);
    *records = (tensor_records){.count = 0};
}
