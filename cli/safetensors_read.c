/* SPDX-License-Identifier: BSD-3-Clause
 *
 * safetensors_read.c: maps a .safetensors file, parses its header's text and hands out what
 * safetensors_records.c has checked.
 */
#include "safetensors_read.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "json_text.h"
#include "printable_text.h"
#include "safetensors_records.h"

enum { LENGTH_BYTES = 8 };

/* The format's own limit, which keeps a hostile length from costing memory. */
static const uint64_t max_header_bytes = 100000000;

struct safetensors_file {
    dev_t device;
    ino_t inode;
    void *mapping;
    size_t mapping_bytes;
    size_t data_begin; /* behind the header, whose length is read once: the file may change */
    char *header;      /* a copy, ended by a zero; holds every name, dtype and metadata string */
    tensor_records tensors;
};

/* ---- mapping ---- */

static int map_descriptor(safetensors_file *file, int descriptor, const open_report *report) {
    struct stat status;
    if (fstat(descriptor, &status) != 0) {
        return open_fail(report, "%s", strerror(errno));
    }
    if (!S_ISREG(status.st_mode)) {
        return open_fail(report, "not a regular file");
    }
    if (status.st_size < LENGTH_BYTES) {
        return open_fail(report,
                         "not a safetensors file: %lld bytes are too few for a header length",
                         (long long)status.st_size);
    }
    if ((uint64_t)status.st_size > SIZE_MAX) {
        return open_fail(report, "too large for this machine's addresses");
    }
    file->device = status.st_dev;
    file->inode = status.st_ino;
    file->mapping_bytes = (size_t)status.st_size;
    file->mapping = mmap(NULL, file->mapping_bytes, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (file->mapping == MAP_FAILED) {
        file->mapping = NULL;
        return open_fail(report, "cannot be mapped: %s", strerror(errno));
    }
    return 0;
}

static int map_file(safetensors_file *file, const open_report *report) {
    int descriptor = open(report->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) {
        return open_fail(report, "%s", strerror(errno));
    }
    int result = map_descriptor(file, descriptor, report);
    close(descriptor);
    return result;
}

static uint64_t read_little_endian(const unsigned char *bytes) {
    uint64_t value = 0;
    for (int i = LENGTH_BYTES - 1; i >= 0; i--) {
        value = value << 8 | bytes[i];
    }
    return value;
}

/* ---- header text ---- */

/* A string would end at \u0000, and two tensors have one name; nothing legitimate writes it. */
static int has_escaped_nul(const char *text) {
    const char *byte = text;
    while ((byte = strchr(byte, '\\')) != NULL) {
        if (strncmp(byte, "\\u0000", 6) == 0) {
            return 1;
        }
        byte += byte[1] == '\0' ? 1 : 2;
    }
    return 0;
}

/* text: the header, terminated by a zero byte at text[bytes]. */
static int check_header_text(char *text, size_t bytes, const open_report *report) {
    json_text json = {text};
    if (strlen(text) != bytes || has_escaped_nul(text)) {
        return open_fail(report, "header: contains a zero byte");
    }
    if (!utf8_is_valid(text, bytes)) {
        return open_fail(report, "header: not valid UTF-8");
    }
    if (text[0] != '{') {
        return open_fail(report, "header: does not begin with '{'");
    }
    if (json_text_skip(&json) != 0) {
        return open_fail(report, "header: JSON error at byte %lld",
                         (long long)(json.position - text));
    }
    if (json_text_peek(&json) != '\0') {
        return open_fail(report, "header: text after the JSON object, at byte %lld",
                         (long long)(json.position - text));
    }
    return 0;
}

static int read_header(safetensors_file *file, const open_report *report) {
    const unsigned char *start = file->mapping;
    uint64_t bytes = read_little_endian(start);
    uint64_t available = file->mapping_bytes - LENGTH_BYTES;
    if (bytes > max_header_bytes) {
        return open_fail(report, "header: %llu bytes exceed the format's limit of %llu",
                         (unsigned long long)bytes, (unsigned long long)max_header_bytes);
    }
    if (bytes > available) {
        return open_fail(report,
                         "header: %llu bytes announced, but only %llu follow; the file is cut "
                         "short or not a safetensors file",
                         (unsigned long long)bytes, (unsigned long long)available);
    }
    file->data_begin = LENGTH_BYTES + (size_t)bytes;
    char *text = malloc((size_t)bytes + 1);
    if (text == NULL) {
        return open_fail(report, "header: out of memory");
    }
    memcpy(text, start + LENGTH_BYTES, (size_t)bytes);
    text[bytes] = '\0';
    file->header = text;
    return check_header_text(text, (size_t)bytes, report);
}

/* ---- public ---- */

int safetensors_open(const char *path, safetensors_file **file, char *error, size_t error_bytes) {
    const open_report report = {path, error, error_bytes};
    *file = NULL;
    safetensors_file *opened = calloc(1, sizeof *opened);
    if (opened == NULL) {
        return open_fail(&report, "out of memory");
    }
    if (map_file(opened, &report) != 0 || read_header(opened, &report) != 0) {
        safetensors_close(opened);
        return -1;
    }
    const char *data = (const char *)opened->mapping + opened->data_begin;
    if (tensor_records_read(opened->header, data, opened->mapping_bytes - opened->data_begin,
                            &report, &opened->tensors) != 0) {
        safetensors_close(opened);
        return -1;
    }
    *file = opened;
    return 0;
}

void safetensors_close(safetensors_file *file) {
    if (file == NULL) {
        return;
    }
    if (file->mapping != NULL) {
        munmap(file->mapping, file->mapping_bytes);
    }
    free(file->header);
    tensor_records_free(&file->tensors);
    free(file);
}

int safetensors_is_same_file(const safetensors_file *left, const safetensors_file *right) {
    return left->device == right->device && left->inode == right->inode;
}

int64_t safetensors_count(const safetensors_file *file) {
    return file->tensors.count;
}

const safetensors_entry *safetensors_at(const safetensors_file *file, int64_t index) {
    return index < 0 || index >= file->tensors.count ? NULL : &file->tensors.records[index].entry;
}

const safetensors_entry *safetensors_find(const safetensors_file *file, const char *name) {
    const safetensors_entry *const *by_name = file->tensors.by_name;
    int64_t low = 0;
    int64_t high = file->tensors.count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        int order = strcmp(by_name[middle]->name, name);
        if (order == 0) {
            return by_name[middle];
        }
        low = order < 0 ? middle + 1 : low;
        high = order < 0 ? high : middle;
    }
    return NULL;
}

const char *safetensors_metadata(const safetensors_file *file, const char *key) {
    const metadata_record *metadata = file->tensors.metadata;
    int64_t low = 0;
    int64_t high = file->tensors.metadata_count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        int order = strcmp(metadata[middle].key, key);
        if (order == 0) {
            return metadata[middle].value;
        }
        low = order < 0 ? middle + 1 : low;
        high = order < 0 ? high : middle;
    }
    return NULL;
}
