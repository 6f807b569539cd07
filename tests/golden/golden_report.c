/* SPDX-License-Identifier: BSD-3-Clause
 *
 * golden_report.c: comparison of results with expected values, and the figures of a run.
 */
#include "golden_report.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const output_kinds[GOLDEN_OUTPUT_KINDS] = {
    "out",      "attn_output", "attn_weights",       "grad.q",
    "grad.k",   "grad.v",      "grad.attn_mask",     "grad.query",
    "grad.key", "grad.value",  "grad of a parameter"};

/* The pattern is a NaN-free float in both dtypes that no case produces. */
enum { PATTERN = 0xa5, MARGIN_BYTES = 64 };

static const char *dtype_name(int32_t dtype) {
    return dtype == ATTN_DTYPE_FLOAT64 ? "float64" : "float32";
}

static golden_score *score_of(golden_report *report, const golden_output *output) {
    int kind = 0;
    while (kind < GOLDEN_OUTPUT_KINDS - 1 && strcmp(output_kinds[kind], output->name) != 0) {
        ++kind;
    }
    return &report->scores[kind][output->view.dtype == ATTN_DTYPE_FLOAT64];
}

static void raise_largest(golden_largest *largest, double value, const char *name) {
    if (value > largest->value) {
        largest->value = value;
        snprintf(largest->name, sizeof largest->name, "%s", name);
    }
}

void golden_report_begin_case(golden_report *report, const char *name) {
    report->case_name = name;
    for (int kind = 0; kind < GOLDEN_OUTPUT_KINDS; ++kind) {
        for (int dtype = 0; dtype < GOLDEN_DTYPES; ++dtype) {
            report->scores[kind][dtype].case_error = -1;
            report->scores[kind][dtype].case_torch_error = -1;
        }
    }
}

/* Compares the case's error with what PyTorch's float32 reached. */
static void rank_beside_torch(golden_score *score, const char *kind, const char *case_name) {
    const double share = score->case_error / fmax(2 * score->case_torch_error, 1e-7);
    score->stated += 1;
    raise_largest(&score->of_torch, share, case_name);
    if (share <= 1) {
        score->as_good += 1;
    } else {
        printf("less exact than PyTorch: %s: %s: error %.3g, PyTorch's %.3g\n", case_name, kind,
               score->case_error, score->case_torch_error);
    }
}

void golden_report_end_case(golden_report *report) {
    for (int kind = 0; kind < GOLDEN_OUTPUT_KINDS; ++kind) {
        for (int dtype = 0; dtype < GOLDEN_DTYPES; ++dtype) {
            golden_score *score = &report->scores[kind][dtype];
            if (score->case_error < 0) {
                continue;
            }
            score->cases += 1;
            raise_largest(&score->error, score->case_error, report->case_name);
            if (score->case_torch_error >= 0) {
                rank_beside_torch(score, output_kinds[kind], report->case_name);
            }
        }
    }
}

void golden_fail(golden_report *report, const golden_setting *setting, const char *format, ...) {
    report->failures += 1;
    printf("FAILED %s", report->case_name);
    if (setting != NULL) {
        printf(" (%s, %s%s)", setting->context_name, dtype_name(setting->dtype),
               setting->stored_float_masks ? ", float32 masks" : "");
    }
    printf(": ");
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
}

bool golden_output_make(golden_case *golden, const golden_setting *setting, const char *name,
                        int32_t rank, const int64_t *shape, golden_output *output) {
    *output = (golden_output){.name = name, .bound = INFINITY};
    if (attn_tensor_init(&output->view, NULL, setting->dtype, rank, shape) != ATTN_OK) {
        return false;
    }
    const size_t bytes =
        (size_t)golden_count(&output->view) * attn_dtype_size_bytes(setting->dtype) +
        2 * (size_t)MARGIN_BYTES;
    char *memory = golden_take(golden, bytes);
    memset(memory, PATTERN, bytes);
    output->view.data = memory + MARGIN_BYTES;
    return true;
}

static bool holds_pattern(const char *memory, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i) {
        if ((unsigned char)memory[i] != PATTERN) {
            return false;
        }
    }
    return true;
}

static size_t output_bytes(const golden_output *output) {
    return (size_t)golden_count(&output->view) * attn_dtype_size_bytes(output->view.dtype);
}

static void check_margins(golden_report *report, const golden_setting *setting,
                          const golden_output *output) {
    const char *data = output->view.data;
    if (!holds_pattern(data - MARGIN_BYTES, MARGIN_BYTES) ||
        !holds_pattern(data + output_bytes(output), MARGIN_BYTES)) {
        golden_fail(report, setting, "%s: memory beside the output was written", output->name);
    }
}

/* |actual - expected|; NaN where only one of them is NaN. Equal values differ by 0, infinite ones
 * and two NaNs included. */
static double difference(double actual, double expected) {
    const bool both_nan = isnan(actual) && isnan(expected);
    return actual == expected || both_nan ? 0 : fabs(actual - expected);
}

/* The worst element: its index and error. A NaN where none is expected is worse than any number. */
static double worst_element(const golden_output *output, const golden_expected *expected,
                            int64_t *index) {
    double worst = 0;
    *index = 0;
    for (int64_t i = 0; i < expected->count; ++i) {
        const double error = difference(golden_value(&output->view, i), expected->values[i]);
        if (isnan(error)) {
            *index = i;
            return INFINITY;
        }
        if (error > worst) {
            worst = error;
            *index = i;
        }
    }
    return worst;
}

void golden_output_compare(golden_report *report, const golden_setting *setting,
                           const golden_output *output, const golden_expected *expected) {
    check_margins(report, setting, output);
    int64_t index;
    const double error = worst_element(output, expected, &index);
    const bool is_double = output->view.dtype == ATTN_DTYPE_FLOAT64;
    const double tolerance = is_double ? 1e-7 * expected->tolerance : expected->tolerance;
    if (error > tolerance || error > output->bound) {
        golden_fail(report, setting,
                    "%s element %lld: expected %.17g, got %.17g: differs by %.3g, allowed %.3g "
                    "(rounding bound %.3g)",
                    output->name, (long long)index, expected->values[index],
                    golden_value(&output->view, index), error, tolerance, output->bound);
    }
    golden_score *score = score_of(report, output);
    score->case_error = fmax(score->case_error, error);
    score->case_torch_error = is_double ? -1 : expected->torch_error;
    raise_largest(&score->of_tolerance, error / tolerance, report->case_name);
    raise_largest(&score->of_bound, error > 0 ? error / output->bound : 0, report->case_name);
}

void golden_output_check_untouched(golden_report *report, const golden_setting *setting,
                                   const golden_output *output) {
    check_margins(report, setting, output);
    if (!holds_pattern(output->view.data, output_bytes(output))) {
        golden_fail(report, setting, "%s was written although the call failed", output->name);
    }
}

static attn_status refusal_status(const char *error_kind) {
    if (strcmp(error_kind, "dtype") == 0) {
        return ATTN_ERROR_DTYPE;
    }
    /* A mask case is about the mask's rank or shape; one about its element type has the kind dtype.
     */
    return strcmp(error_kind, "shape") == 0 || strcmp(error_kind, "mask") == 0 ? ATTN_ERROR_SHAPE
                                                                               : ATTN_OK;
}

/* Whether the line begins with "NAME:" for an argument of the two functions; a mask's if the error
 * is about a mask. */
static bool names_argument(const char *line, bool about_mask) {
    static const char *const names[] = {"mask", "attention.mask", "key_padding_mask", "query",
                                        "key",  "value"};
    const size_t count = about_mask ? 3 : sizeof names / sizeof names[0];
    const size_t length = strcspn(line, ":");
    for (size_t i = 0; i < count; ++i) {
        if (line[length] == ':' && strlen(names[i]) == length &&
            memcmp(line, names[i], length) == 0) {
            return true;
        }
    }
    return false;
}

void golden_check_refusal(golden_report *report, const golden_case *golden,
                          const golden_setting *setting, attn_status status, const char *call) {
    const char *kind = golden_option(golden, "error_kind");
    const attn_status expected = refusal_status(kind);
    const char *detail = attn_last_error();
    if (expected == ATTN_OK) {
        golden_fail(report, setting, "the case has the unknown error_kind \"%s\"", kind);
    } else if (status != expected) {
        golden_fail(report, setting, "%s: expected %s, got %s (%s)", call,
                    attn_status_name(expected), attn_status_name(status), detail);
    } else if (strchr(detail, '\n') != NULL || !names_argument(detail, strcmp(kind, "mask") == 0)) {
        golden_fail(report, setting,
                    "%s: expected one line that begins with the argument's name, got \"%s\"", call,
                    detail);
    }
}

static void print_largest(const char *label, const golden_largest *largest) {
    printf("    %-34s %9.3g  %s\n", label, largest->value, largest->name);
}

static void print_score(const char *kind, int32_t dtype, const golden_score *score) {
    printf("  %s, %s: %lld cases\n", kind, dtype_name(dtype), (long long)score->cases);
    print_largest("largest error", &score->error);
    print_largest("largest share of the tolerance", &score->of_tolerance);
    print_largest("largest share of the bound", &score->of_bound);
    if (score->stated > 0) {
        print_largest("largest share of PyTorch's error", &score->of_torch);
        printf("    as good as PyTorch (error <= max(2 * PyTorch's, 1e-7) in every setting): %lld "
               "of %lld cases\n",
               (long long)score->as_good, (long long)score->stated);
    }
}

void golden_report_print_scores(const golden_report *report) {
    for (int kind = 0; kind < GOLDEN_OUTPUT_KINDS; ++kind) {
        for (int dtype = 0; dtype < GOLDEN_DTYPES; ++dtype) {
            const golden_score *score = &report->scores[kind][dtype];
            if (score->cases > 0) {
                print_score(output_kinds[kind],
                            dtype == 1 ? ATTN_DTYPE_FLOAT64 : ATTN_DTYPE_FLOAT32, score);
            }
        }
    }
}
