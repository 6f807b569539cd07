/* SPDX-License-Identifier: BSD-3-Clause
 *
 * run_compare.c: results against the expected ones of --expect.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "attention_run.h"
#include "element_types.h"
#include "program_exit.h"

/* |a - b|; 0 for equal infinities and for two NaNs, NaN if only one is NaN. */
static double difference(double a, double b) {
    if (a == b || (isnan(a) && isnan(b))) {
        return 0;
    }
    return fabs(a - b);
}

static double largest_difference(const attn_tensor *result, const attn_tensor *expected,
                                 int64_t count) {
    double largest = 0;
    for (int64_t i = 0; i < count; i++) {
        double distance = difference(element_at(result, i), element_at(expected, i));
        if (isnan(distance)) {
            return distance;
        }
        largest = distance > largest ? distance : largest;
    }
    return largest;
}

static int has_shape(const safetensors_entry *entry, const attn_tensor *tensor) {
    return entry->rank == tensor->rank &&
           memcmp(entry->shape, tensor->shape, (size_t)tensor->rank * sizeof tensor->shape[0]) == 0;
}

/* Expected values are read as float64, so that the comparison itself does not round. */
static int compare_tensor(const char *path, const safetensors_entry *entry,
                          const attn_tensor *result, run_difference *found) {
    char error[800];
    char expected_shape[200];
    char result_shape[200];
    int64_t count = 0;
    owned_tensor expected;
    if (!has_shape(entry, result)) {
        return program_fail(
            EXIT_BAD_FILE, "%s: %s: expected the computed shape %s, got %s", path, entry->name,
            shape_text(result->shape, result->rank, result_shape, sizeof result_shape),
            shape_text(entry->shape, entry->rank, expected_shape, sizeof expected_shape));
    }
    if (tensor_load_values(entry, ATTN_DTYPE_FLOAT64, &expected, error, sizeof error) != 0) {
        return program_fail(EXIT_BAD_FILE, "%s: %s", path, error);
    }
    attn_status status = attn_tensor_count(result, &count);
    if (status == ATTN_OK) {
        *found = (run_difference){1, largest_difference(result, &expected.view, count)};
    }
    owned_tensor_free(&expected);
    return status == ATTN_OK ? EXIT_DONE : program_fail_library(path, status);
}

static int compare_with_file(attention_run *run, const safetensors_file *file) {
    const char *path = run->options->expect;
    const safetensors_entry *output = safetensors_find(file, "attn_output");
    const safetensors_entry *weights = safetensors_find(file, "attn_weights");
    if (output == NULL) {
        return program_fail(EXIT_BAD_FILE, "%s: has no tensor attn_output to compare with", path);
    }
    int exit_code = compare_tensor(path, output, &run->output.view, &run->output_difference);
    if (exit_code == EXIT_DONE && weights != NULL && run->options->weights != RUN_WEIGHTS_NONE) {
        exit_code = compare_tensor(path, weights, &run->weights.view, &run->weights_difference);
    }
    return exit_code;
}

int run_compare(attention_run *run) {
    char error[1000];
    safetensors_file *file = NULL;
    if (run->options->expect == NULL) {
        return EXIT_DONE;
    }
    if (safetensors_open(run->options->expect, &file, error, sizeof error) != 0) {
        return program_fail(EXIT_BAD_FILE, "%s", error);
    }
    int exit_code = compare_with_file(run, file);
    safetensors_close(file);
    return exit_code;
}

int run_is_within_tolerance(const attention_run *run) {
    double tolerance = run->options->tolerance.value;
    return run->output_difference.largest <= tolerance &&
           run->weights_difference.largest <= tolerance;
}
