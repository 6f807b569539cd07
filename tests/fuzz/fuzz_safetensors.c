/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fuzz_safetensors.c: the program's reader of weights files. The input is the file; or, where a file
 * would begin with a header's length that no file has (is_draft), it says what a file is put together
 * from, mostly a valid one. A file that is accepted is read to the last byte of its last tensor.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz_bytes.h"
#include "safetensors_read.h"

/* Adds up what the reader hands out; a wrong bound is a crash. */
static unsigned touch(const safetensors_entry *entry) {
    unsigned sum = (unsigned)strlen(entry->name) + (unsigned)strlen(entry->dtype);
    for (size_t i = 0; i < entry->data_bytes; ++i) {
        sum += ((const unsigned char *)entry->data)[i];
    }
    return sum;
}

enum { MOST_TENSORS = 4, FILE_CAPACITY = 4096 };

/* A file being put together: 8 bytes for the length of the header, the header, the data. */
typedef struct draft {
    char bytes[FILE_CAPACITY];
    size_t length;
} draft;

__attribute__((format(printf, 2, 3))) static void add(draft *file, const char *format, ...) {
    va_list values;
    va_start(values, format);
    const int added =
        vsnprintf(file->bytes + file->length, sizeof file->bytes - file->length, format, values);
    va_end(values);
    file->length += (size_t)added;
}

/* One entry that starts at `begin`; returns where it ends. Now and then an offset is off. */
static uint64_t add_entry(fuzz_bytes *bytes, draft *file, int number, uint64_t begin) {
    static const struct {
        const char *name;
        unsigned width;
    } dtypes[] = {{"F32", 4}, {"F64", 8},  {"F16", 2}, {"BF16", 2},
                  {"I64", 8}, {"BOOL", 1}, {"U8", 1}};
    const int dtype = fuzz_byte(bytes) % (int)(sizeof dtypes / sizeof dtypes[0]);
    const int rank = fuzz_byte(bytes) % 4;
    uint64_t count = 1;
    add(file, "%s\"tensor.%d\":{\"dtype\":\"%s\",\"shape\":[", number ? "," : "", number,
        dtypes[dtype].name);
    for (int axis = 0; axis < rank; ++axis) {
        const unsigned length = fuzz_byte(bytes) % 5;
        add(file, "%s%u", axis ? "," : "", length);
        count *= length;
    }
    const uint64_t end = begin + count * dtypes[dtype].width;
    const int is_off = fuzz_byte(bytes) > 250;
    add(file, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)begin,
        (unsigned long long)(is_off ? end ^ fuzz_word(bytes) : end));
    return end;
}

/* The header's length, then spaces to a multiple of 8 as writers leave them, then data of any value. */
static void finish(fuzz_bytes *bytes, draft *file, uint64_t data_bytes) {
    while (file->length % 8 != 0) {
        add(file, " ");
    }
    const uint64_t header_bytes = file->length - 8;
    for (int i = 0; i < 8; ++i) {
        file->bytes[i] = (char)(header_bytes >> 8 * i);
    }
    memset(file->bytes + file->length, 0x3f, data_bytes);
    file->length += data_bytes;
    const int num_spoiled = fuzz_byte(bytes) > 240 ? 1 + fuzz_byte(bytes) % 3 : 0;
    for (int i = 0; i < num_spoiled; ++i) {
        file->bytes[fuzz_word(bytes) % file->length] = (char)fuzz_byte(bytes);
    }
}

static void draw_file(fuzz_bytes *bytes, draft *file) {
    const int count = fuzz_byte(bytes) % (MOST_TENSORS + 1);
    uint64_t data_bytes = 0;
    file->length = 8;
    add(file, "{");
    for (int i = 0; i < count; ++i) {
        data_bytes = add_entry(bytes, file, i, data_bytes);
    }
    if (fuzz_byte(bytes) > 200) {
        add(file, "%s\"__metadata__\":{\"format\":\"pt\"}", count ? "," : "");
    }
    add(file, "}");
    finish(bytes, file, data_bytes);
}

/* 1 if the file was accepted. */
static int read_file(const void *data, size_t size) {
    static volatile unsigned sink;
    static int descriptor = -1;
    char path[64];
    char error[512] = "";
    safetensors_file *file;
    if (descriptor < 0) {
        descriptor = memfd_create("fuzz", 0);
    }
    if (ftruncate(descriptor, 0) != 0 || pwrite(descriptor, data, size, 0) != (ssize_t)size) {
        abort();
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    const int status = safetensors_open(path, &file, error, sizeof error);
    if ((status == 0) != (file != NULL) || (status == 0) != (error[0] == '\0')) {
        abort();
    }
    for (int64_t i = 0; status == 0 && i < safetensors_count(file); ++i) {
        sink = sink + touch(safetensors_at(file, i));
    }
    safetensors_close(file);
    return status == 0;
}

/* The highest byte of a length is 0 in every file that may be read, and with six bits alike near the
 * edges of int64 and uint64, where lengths are tried as they are. */
static int is_draft(const uint8_t *data, size_t size) {
    const int high = size >= 8 ? data[7] & 0x3f : 0;
    return high != 0 && high != 0x3f;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_bytes bytes = {data, size};
    static draft file;
    int is_accepted;
    if (is_draft(data, size)) {
        draw_file(&bytes, &file);
        is_accepted = read_file(file.bytes, file.length);
    } else {
        is_accepted = read_file(data, size);
    }
    fuzz_count("safetensors", is_accepted);
    return 0;
}

#ifdef FUZZ_BY_LIBFUZZER

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t capacity);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t capacity, unsigned seed);

/* Says that the header ends with the last brace and the spaces behind it. */
static void mend_header_length(uint8_t *file, size_t size) {
    const uint8_t *header = file + 8;
    const uint8_t *end = memrchr(header, '}', size - 8);
    end = end == NULL ? header : end + 1;
    while (end < file + size && *end == ' ') {
        ++end;
    }
    for (int i = 0; i < 8; ++i) {
        file[i] = (uint8_t)((uint64_t)(end - header) >> 8 * i);
    }
}

/* Nearly every change to a file makes its header's length wrong, and all that can be seen then is how
 * that is refused: seven times in eight it is put right. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t capacity, unsigned seed) {
    const size_t mutated = LLVMFuzzerMutate(data, size, capacity);
    if (mutated > 8 && !is_draft(data, mutated) && seed % 8 != 0) {
        mend_header_length(data, mutated);
    }
    return mutated;
}

#endif
