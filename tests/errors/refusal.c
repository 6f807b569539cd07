/* SPDX-License-Identifier: BSD-3-Clause
 *
 * refusal.c: assertions on statuses, details and memory, and the running of tables as tests.
 */
#include "refusal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void refusal_fill(void *memory, size_t bytes) {
    memset(memory, REFUSAL_CANARY, bytes);
}

void refusal_assert_untouched(const char *what, const void *memory, size_t bytes) {
    const unsigned char *values = memory;
    for (size_t i = 0; i < bytes; ++i) {
        if (values[i] != REFUSAL_CANARY) {
            fail_msg("%s: byte %zu was written by a call that failed", what, i);
        }
    }
}

/* Whether the detail is the line, or begins with what stands before a final "...". */
static bool matches(const char *detail, const char *line) {
    const size_t length = strlen(line);
    const bool open_end = length >= 3 && strcmp(line + length - 3, "...") == 0;
    return open_end ? strncmp(detail, line, length - 3) == 0 : strcmp(detail, line) == 0;
}

void refusal_assert(const char *call, attn_status status, attn_status expected, const char *line) {
    const char *detail = attn_last_error();
    if (status != expected) {
        fail_msg("%s: expected %s, got %s: \"%s\"", call, attn_status_name(expected),
                 attn_status_name(status), detail);
    }
    if (!matches(detail, line)) {
        fail_msg("%s: expected the detail\n\"%s\", got\n\"%s\"", call, line, detail);
    }
    if (strpbrk(detail, "\r\n") != NULL) {
        fail_msg("%s: the detail is more than one line: \"%s\"", call, detail);
    }
}

static char struct_line[192];

const char *refusal_size_line(const char *name, size_t known_bytes, uint64_t given) {
    snprintf(struct_line, sizeof struct_line,
             "%s: expected struct_size %zu (sizeof the struct) or more, got %llu", name,
             known_bytes, (unsigned long long)given);
    return struct_line;
}

const char *refusal_newer_line(const char *name, size_t known_bytes, size_t at) {
    snprintf(struct_line, sizeof struct_line,
             "%s: expected zeroes past byte %zu, which is all this version knows, got an option at "
             "byte %zu",
             name, known_bytes, at);
    return struct_line;
}

bool refusal_line_names(const char *line, const char *argument) {
    const size_t length = strlen(argument);
    return strncmp(line, argument, length) == 0 && line[length] == ':';
}

void refusal_assert_ok(const char *call, attn_status status) {
    if (status != ATTN_OK || attn_last_error()[0] != '\0') {
        fail_msg("%s: expected success without detail, got %s: \"%s\"", call,
                 attn_status_name(status), attn_last_error());
    }
}

void refusal_numbers(float *values, int64_t count, int seed) {
    for (int64_t i = 0; i < count; ++i) {
        values[i] = (float)((i * 37 + seed * 53) % 101 - 50) / 40;
    }
}

void refusal_assert_close(const char *name, const float *actual, const double *expected,
                          int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        if (!(fabs((double)actual[i] - expected[i]) <= 1e-5)) {
            fail_msg("%s: element %lld: expected %.9g, got %.9g", name, (long long)i, expected[i],
                     (double)actual[i]);
        }
    }
}

attn_tensor refusal_view(void *data, int32_t dtype, int32_t rank, const int64_t *shape) {
    attn_tensor view;
    refusal_assert_ok("attn_tensor_init", attn_tensor_init(&view, data, dtype, rank, shape));
    return view;
}

static void set_rank(attn_tensor *view, int64_t rank) {
    const int64_t kept = rank < view->rank ? rank : view->rank;
    if (rank >= 0 && rank <= ATTN_MAX_RANK) {
        memmove(view->shape + (rank - kept), view->shape + (view->rank - kept),
                (size_t)kept * sizeof view->shape[0]);
        memmove(view->strides + (rank - kept), view->strides + (view->rank - kept),
                (size_t)kept * sizeof view->strides[0]);
        for (int64_t axis = 0; axis < rank - kept; ++axis) {
            view->shape[axis] = 1;
            view->strides[axis] = 1;
        }
    }
    view->rank = (int32_t)rank;
}

void refusal_spoil_view(attn_tensor *views, const refusal_spoil *spoil) {
    attn_tensor *view = &views[spoil->tensor];
    switch (spoil->fault) {
    case REFUSAL_NO_FAULT:
    case REFUSAL_NO_TENSOR:
        break;
    case REFUSAL_NO_DATA:
        view->data = NULL;
        break;
    case REFUSAL_DTYPE:
        view->dtype = (int32_t)spoil->value;
        break;
    case REFUSAL_RANK:
        set_rank(view, spoil->value);
        break;
    case REFUSAL_LENGTH:
        view->shape[spoil->axis] = spoil->value;
        break;
    case REFUSAL_STRIDE:
        view->strides[spoil->axis] = spoil->value;
        break;
    case REFUSAL_MEMORY:
        view->data = (char *)views[spoil->other].data + spoil->value;
        break;
    case REFUSAL_ELEMENT:
        ((int64_t *)view->data)[spoil->axis] = spoil->value;
        break;
    case REFUSAL_BYTE:
        ((unsigned char *)view->data)[spoil->axis] = (unsigned char)spoil->value;
        break;
    }
}

void refusal_suite_add(refusal_suite *suite, const char *name, CMUnitTestFunction run,
                       const void *entry) {
    if (suite->count == REFUSAL_MAX_TESTS) {
        print_error("%s: REFUSAL_MAX_TESTS is too small\n", name);
        exit(EXIT_FAILURE);
    }
    suite->tests[suite->count++] = (struct CMUnitTest){
        .name = name, .test_func = run, .initial_state = (void *)(uintptr_t)entry};
}

int refusal_suite_run(const refusal_suite *suite, const char *name) {
    return _cmocka_run_group_tests(name, suite->tests, suite->count, NULL, NULL);
}
