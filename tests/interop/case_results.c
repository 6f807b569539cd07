/* SPDX-License-Identifier: BSD-3-Clause
 *
 * case_results.c: results by their names in the case.
 */
#include "case_results.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attention/attention.h>

#include "support/half_numbers.h"

const attn_tensor *case_results_make(case_results *room, const char *name, int32_t dtype,
                                     int32_t rank, const int64_t *shape) {
    attn_tensor *view = &room->views[room->count];
    int64_t count = 0;
    if (attn_tensor_init(view, NULL, dtype, rank, shape) != ATTN_OK ||
        attn_tensor_count(view, &count) != ATTN_OK) {
        return NULL;
    }
    view->data = calloc((size_t)count + 1, attn_dtype_size_bytes(dtype));
    room->names[room->count++] = name;
    return view->data == NULL ? NULL : view;
}

void case_results_free(case_results *room) {
    for (int i = 0; i < room->count; ++i) {
        free(room->views[i].data);
    }
}

static const case_tensor *find_expected(const interop_case *made, const char *name) {
    for (int i = 0; i < made->num_expected; ++i) {
        if (strcmp(made->expected[i].name, name) == 0) {
            return &made->expected[i];
        }
    }
    return NULL;
}

const attn_tensor *case_results_expected(const interop_case *made, case_results *room,
                                         const char *name) {
    const case_tensor *expected = find_expected(made, name);
    if (expected == NULL) {
        return NULL;
    }
    const int32_t query_dtype = case_view(made, "query")->dtype;
    const int is_narrow = half_is(query_dtype) && strcmp(name, "lse") == 0;
    return case_results_make(room, expected->name, is_narrow ? ATTN_DTYPE_FLOAT32 : query_dtype,
                             expected->view.rank, expected->view.shape);
}

const attn_tensor *case_results_main(const interop_case *made, case_results *room, const char *name,
                                     int64_t features) {
    const attn_tensor *query = case_view(made, "query");
    const attn_tensor *result = case_results_expected(made, room, name);
    if (result != NULL) {
        return result;
    }
    int64_t shape[ATTN_MAX_RANK];
    memcpy(shape, query->shape, sizeof shape);
    shape[query->rank - 1] = features;
    return case_results_make(room, NULL, query->dtype, query->rank, shape);
}

static double element(const attn_tensor *view, int64_t flat) {
    double wide = 0;
    float narrow = 0;
    if (half_is(view->dtype)) {
        return half_number(view->dtype, ((const uint16_t *)view->data)[flat]);
    }
    if (view->dtype == ATTN_DTYPE_FLOAT64) {
        memcpy(&wide, (const char *)view->data + flat * 8, sizeof wide);
        return wide;
    }
    memcpy(&narrow, (const char *)view->data + flat * 4, sizeof narrow);
    return narrow;
}

static int is_near(double actual, double expected, double tolerance) {
    if (isnan(expected) || isinf(expected)) {
        return isnan(expected) ? isnan(actual) : actual == expected;
    }
    return fabs(actual - expected) <= tolerance;
}

static const attn_tensor *find_result(const case_results *room, const char *name) {
    for (int i = 0; i < room->count; ++i) {
        if (room->names[i] != NULL && strcmp(room->names[i], name) == 0) {
            return &room->views[i];
        }
    }
    return NULL;
}

static int compare(const case_tensor *expected, const attn_tensor *actual, char *problem,
                   size_t problem_bytes) {
    int64_t count = 0;
    if (actual == NULL || attn_tensor_count(&expected->view, &count) != ATTN_OK) {
        snprintf(problem, problem_bytes, "not computed: %s", expected->name);
        return -1;
    }
    for (int64_t i = 0; i < count; ++i) {
        const double got = element(actual, i);
        const double wanted = element(&expected->view, i);
        if (!is_near(got, wanted, expected->tolerance)) {
            snprintf(problem, problem_bytes, "%s[%lld]: expected %.9g within %.2g, got %.9g",
                     expected->name, (long long)i, wanted, expected->tolerance, got);
            return -1;
        }
    }
    return 0;
}

int case_results_compare(const interop_case *made, const case_results *room, char *problem,
                         size_t problem_bytes) {
    for (int i = 0; i < made->num_expected; ++i) {
        const case_tensor *expected = &made->expected[i];
        if (compare(expected, find_result(room, expected->name), problem, problem_bytes) != 0) {
            return -1;
        }
    }
    return 0;
}
