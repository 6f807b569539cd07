/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_rms_norm.h: the text of attention/rms_norm.h in numbers wider than float64, row by row.
 */
#ifndef ATTENTION_TESTS_ORACLE_RMS_NORM_H
#define ATTENTION_TESTS_ORACLE_RMS_NORM_H

#include <attention/rms_norm.h>

#include "support/compare.h"
#include "support/oracle_tensor.h"

/* attn_rms_norm(input, params) for valid arguments; params may be NULL. Errors are those that the
 * header allows. */
oracle_array oracle_rms_norm(const attn_tensor *input, const attn_rms_norm_params *params);

#endif
