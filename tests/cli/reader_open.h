/* SPDX-License-Identifier: BSD-3-Clause
 *
 * reader_open.h: opening files in the reader's tests, with the checks every error line must pass.
 */
#ifndef ATTENTION_TESTS_CLI_READER_OPEN_H
#define ATTENTION_TESTS_CLI_READER_OPEN_H

#include "safetensors_read.h"

/* Opens; on a failure checks that the error is one line that begins with the path, and returns NULL
 * with the rest of the line. */
safetensors_file *reader_open(const char *path, char *error, size_t error_bytes);

/* Opens a file of that header text and data_bytes bytes of data. */
safetensors_file *reader_open_header(void **state, const char *header, size_t data_bytes,
                                     char *error, size_t error_bytes);

#endif
