/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fuzz_safetensors.c: the program's reader of weights files. A file that is accepted is read to the
 * last byte of its last tensor.
 */
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
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
    fuzz_count("safetensors", status == 0);
    return 0;
}
