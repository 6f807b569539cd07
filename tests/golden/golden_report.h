/* SPDX-License-Identifier: BSD-3-Clause
 *
 * golden_report.h: compares results with what a case expects, and keeps the figures of the whole
 * run.
 *
 * Tolerances. A float32 result may differ by the case's own tolerance. A float64 result may differ
 * by 1e-7 of that, so by 1e-12 where it is 1e-5: the expected values were computed by PyTorch in
 * float64 from the very inputs the call gets, so they carry an error of the kind the result has;
 * both shrink by 2^-53 / 2^-24 = 1.9e-9 against float32, which leaves a factor of 50.
 */
#ifndef GOLDEN_REPORT_H
#define GOLDEN_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include <attention/attention.h>

#include "golden_case.h"

enum { GOLDEN_NAME_BYTES = 128, GOLDEN_OUTPUT_KINDS = 11, GOLDEN_DTYPES = 2 };

/* One way of running a case. */
typedef struct golden_setting {
    attn_context *context;
    char context_name[64]; /* "avx2, native" */
    bool is_float32_only;  /* what its engine computes */
    int32_t
        dtype; /* of the call: ATTN_DTYPE_FLOAT32 as the case is stored, or ATTN_DTYPE_FLOAT64 */
    bool stored_float_masks; /* a float64 call whose float masks stay float32 */
} golden_setting;

/* The largest of something, and the case it belongs to. */
typedef struct golden_largest {
    double value;
    char name[GOLDEN_NAME_BYTES];
} golden_largest;

/* Figures of one kind of output in one dtype, over all cases and settings. */
typedef struct golden_score {
    int64_t cases;   /* cases that have this output */
    int64_t stated;  /* of these, cases that state PyTorch's own float32 error */
    int64_t as_good; /* of these, cases whose error is at most max(2 * PyTorch's, 1e-7) in every
                        setting */
    golden_largest error;        /* absolute */
    golden_largest of_tolerance; /* error / tolerance */
    golden_largest of_torch;     /* error / max(2 * PyTorch's, 1e-7) */
    golden_largest of_bound;     /* error / rounding bound */
    double case_error; /* worst of the case that is running; negative: it has no such output */
    double case_torch_error;
} golden_score;

typedef struct golden_report {
    int64_t failures;
    int64_t forward_calls;
    int64_t backward_calls;
    int64_t refused_calls;
    const char *case_name; /* the case that is running */
    golden_score scores[GOLDEN_OUTPUT_KINDS][GOLDEN_DTYPES];
} golden_report;

/* A result to be compared. */
typedef struct golden_output {
    const char *name; /* "out", "attn_output", "attn_weights", or "grad." and an input */
    attn_tensor view; /* contiguous */
    double bound;     /* the rounding bound on its error, for the dtype it has */
} golden_output;

void golden_report_begin_case(golden_report *report, const char *name);

/* Folds the running case into the scores, and says so if it is less exact than PyTorch's float32.
 */
void golden_report_end_case(golden_report *report);

/* Counts and prints a failure of the running case. */
void golden_fail(golden_report *report, const golden_setting *setting, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Makes an output of the expected shape in the setting's dtype, filled with a byte pattern and with
 * a margin on both sides. */
bool golden_output_make(golden_case *golden, const golden_setting *setting, const char *name,
                        int32_t rank, const int64_t *shape, golden_output *output);

/* Compares element by element, within tolerance and bound; checks the margins. */
void golden_output_compare(golden_report *report, const golden_setting *setting,
                           const golden_output *output, const golden_expected *expected);

/* Fails unless the output and its margins still hold the pattern golden_output_make left. */
void golden_output_check_untouched(golden_report *report, const golden_setting *setting,
                                   const golden_output *output);

/* Fails unless `status` and the detail it left are what a case with expect=error asks for: the code
 * of its error_kind, and one line that begins with the name of an argument. `call` is for the
 * message. */
void golden_check_refusal(golden_report *report, const golden_case *golden,
                          const golden_setting *setting, attn_status status, const char *call);

/* Prints the table of scores. */
void golden_report_print_scores(const golden_report *report);

#endif
