/* SPDX-License-Identifier: BSD-3-Clause
 *
 * safetensors_records.h: inside the reader: from the JSON header to checked tensors and metadata.
 */
#ifndef ATTN_CLI_SAFETENSORS_RECORDS_H
#define ATTN_CLI_SAFETENSORS_RECORDS_H

#include <stddef.h>
#include <stdint.h>

#include "safetensors_read.h"

/* An entry, the bits of an element, how many elements its shape means, and the range of the data it
 * covers, [begin, end) bytes after the header. */
typedef struct tensor_record {
    safetensors_entry entry;
    uint64_t element_bits;
    uint64_t elements;
    uint64_t begin;
    uint64_t end;
} tensor_record;

/* One string of __metadata__. */
typedef struct metadata_record {
    const char *key;
    const char *value;
} metadata_record;

/* All tensors and metadata of a file. Every string lies in the header. */
typedef struct tensor_records {
    tensor_record *records;            /* in the order of the data */
    const safetensors_entry **by_name; /* the same, sorted by name */
    int64_t count;
    metadata_record *metadata; /* sorted by key */
    int64_t metadata_count;
} tensor_records;

/* Where the errors of one open go. */
typedef struct open_report {
    const char *path;
    char *error;
    size_t error_bytes;
} open_report;

/* Writes "path: message" as one printable line, and returns -1, so that a failing check is one
 * statement. */
__attribute__((format(printf, 2, 3))) int open_fail(const open_report *report, const char *format,
                                                    ...);
#ifdef ATTENTION_ANALYSIS /* An analyser sees one source, and here that this is no success. */
#define open_fail(...) ((void)open_fail(__VA_ARGS__), -1)
#endif

/*
 * Reads and checks every tensor and the metadata of a header: the text of one JSON object, which is
 * decoded where it stands and stays in use. data: the data_bytes bytes after the header. 0, or -1
 * after open_fail; tensor_records_free is due in both cases.
 */
int tensor_records_read(char *header, const char *data, uint64_t data_bytes,
                        const open_report *report, tensor_records *records);

void tensor_records_free(tensor_records *records);

#endif
