/* SPDX-License-Identifier: BSD-3-Clause
 *
 * case_reader.c: a file at once in memory, then record by record.
 */
#include "case_reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attention/attention.h>

typedef struct reading {
    interop_case *made;
    unsigned char *at;
    unsigned char *end;
    char line[1024];
    const char *problem;
} reading;

int32_t case_dtype(const char *name) {
    static const char *const names[] = {
        [ATTN_DTYPE_FLOAT32] = "float32",   [ATTN_DTYPE_FLOAT64] = "float64",
        [ATTN_DTYPE_BOOL] = "bool",         [ATTN_DTYPE_INT64] = "int64",
        [ATTN_DTYPE_BFLOAT16] = "bfloat16", [ATTN_DTYPE_FLOAT16] = "float16",
        [ATTN_DTYPE_INT32] = "int32",       [ATTN_DTYPE_INT8] = "int8",
        [ATTN_DTYPE_UINT8] = "uint8"};
    for (int32_t dtype = 0; dtype < (int32_t)(sizeof names / sizeof names[0]); ++dtype) {
        if (names[dtype] != NULL && strcmp(name, names[dtype]) == 0) {
            return dtype;
        }
    }
    return ATTN_DTYPE_INVALID;
}

static int fail(reading *r, const char *problem) {
    r->problem = problem;
    return -1;
}

/* The next line without its end; 0 after the last. */
static int next_line(reading *r) {
    const unsigned char *newline = memchr(r->at, '\n', (size_t)(r->end - r->at));
    if (newline == NULL || newline - r->at >= (ptrdiff_t)sizeof r->line) {
        return 0;
    }
    memcpy(r->line, r->at, (size_t)(newline - r->at));
    r->line[newline - r->at] = '\0';
    r->at += newline - r->at + 1;
    return 1;
}

/* "DTYPE RANK D0 D1 ..." and the elements behind the line. */
static int read_elements(reading *r, char *words, case_tensor *tensor) {
    char *rest = NULL;
    const char *dtype = strtok_r(words, " ", &rest);
    const char *rank = strtok_r(NULL, " ", &rest);
    int64_t shape[ATTN_MAX_RANK] = {0};
    if (dtype == NULL || rank == NULL || atoi(rank) < 0 || atoi(rank) > ATTN_MAX_RANK) {
        return fail(r, "no dtype or rank");
    }
    for (int32_t axis = 0; axis < atoi(rank); ++axis) {
        const char *length = strtok_r(NULL, " ", &rest);
        shape[axis] = length != NULL ? strtoll(length, NULL, 10) : -1;
    }
    int64_t count;
    if (attn_tensor_init(&tensor->view, r->at, case_dtype(dtype), atoi(rank), shape) != ATTN_OK ||
        attn_tensor_count(&tensor->view, &count) != ATTN_OK) {
        return fail(r, attn_last_error());
    }
    const int64_t bytes = count * (int64_t)attn_dtype_size_bytes(tensor->view.dtype);
    if (bytes > r->end - r->at) {
        return fail(r, "the file ends within a tensor");
    }
    r->at += bytes;
    return 0;
}

static int read_tensor(reading *r, char *words) {
    case_tensor *tensor = &r->made->tensors[r->made->num_tensors++];
    char *rest = NULL;
    snprintf(tensor->name, sizeof tensor->name, "%s", strtok_r(words, " ", &rest));
    return read_elements(r, rest, tensor);
}

static int read_expected(reading *r, char *words) {
    case_tensor *tensor = &r->made->expected[r->made->num_expected++];
    char *rest = NULL;
    snprintf(tensor->name, sizeof tensor->name, "%s", strtok_r(words, " ", &rest));
    tensor->tolerance = strtod(rest, &rest);
    return read_elements(r, rest, tensor);
}

static int read_option(reading *r, char *words) {
    case_option *option = &r->made->options[r->made->num_options++];
    char *value = NULL;
    snprintf(option->name, sizeof option->name, "%s", strtok_r(words, " ", &value));
    snprintf(option->value, sizeof option->value, "%s", value);
    return 0;
}

static int read_error(reading *r, char *words) {
    char *text = NULL;
    r->made->error_code = (int32_t)strtol(words, &text, 10);
    snprintf(r->made->error_text, sizeof r->made->error_text, "%s", text + 1);
    return 0;
}

static int read_call(reading *r, char *words) {
    snprintf(r->made->call, sizeof r->made->call, "%s", words);
    return 0;
}

static int read_record(reading *r) {
    static const struct {
        const char *word;
        int (*read)(reading *r, char *words);
    } records[] = {{"call ", read_call},
                   {"option ", read_option},
                   {"tensor ", read_tensor},
                   {"expect ", read_expected},
                   {"error ", read_error}};
    for (size_t i = 0; i < sizeof records / sizeof records[0]; ++i) {
        const size_t length = strlen(records[i].word);
        if (strncmp(r->line, records[i].word, length) == 0) {
            return records[i].read(r, r->line + length);
        }
    }
    return fail(r, "unknown record");
}

static int has_room(const interop_case *made) {
    return made->num_options < CASE_MAX_RECORDS && made->num_tensors < CASE_MAX_RECORDS &&
           made->num_expected < CASE_MAX_RECORDS;
}

static unsigned char *read_bytes(const char *path, size_t *count) {
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        return NULL;
    }
    *count = (size_t)ftell(file);
    unsigned char *bytes = malloc(*count + 1);
    rewind(file);
    if (bytes != NULL && fread(bytes, 1, *count, file) != *count) {
        free(bytes);
        bytes = NULL;
    }
    fclose(file);
    return bytes;
}

int case_read(interop_case *made, const char *path, char *error, size_t error_bytes) {
    size_t count = 0;
    *made = (interop_case){.bytes = read_bytes(path, &count)};
    if (made->bytes == NULL) {
        snprintf(error, error_bytes, "%s: cannot be read", path);
        return -1;
    }
    reading r = {.made = made, .at = made->bytes, .end = made->bytes + count};
    while (has_room(made) && next_line(&r)) {
        if (read_record(&r) != 0) {
            snprintf(error, error_bytes, "%s: \"%s\": %s", path, r.line, r.problem);
            return -1;
        }
    }
    if (r.at != r.end) {
        snprintf(error, error_bytes, "%s: %td bytes too many", path, r.end - r.at);
        return -1;
    }
    return 0;
}

void case_destroy(interop_case *made) {
    free(made->bytes);
    made->bytes = NULL;
}

const char *case_text(const interop_case *made, const char *option) {
    for (int i = 0; i < made->num_options; ++i) {
        if (strcmp(made->options[i].name, option) == 0) {
            return made->options[i].value;
        }
    }
    return NULL;
}

const attn_tensor *case_view(const interop_case *made, const char *tensor) {
    for (int i = 0; i < made->num_tensors; ++i) {
        if (strcmp(made->tensors[i].name, tensor) == 0) {
            return &made->tensors[i].view;
        }
    }
    return NULL;
}

int64_t case_number(const interop_case *made, const char *option, int64_t absent) {
    const char *text = case_text(made, option);
    return text != NULL ? strtoll(text, NULL, 10) : absent;
}

double case_real(const interop_case *made, const char *option, double absent) {
    const char *text = case_text(made, option);
    return text != NULL ? strtod(text, NULL) : absent;
}
