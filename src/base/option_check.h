/* SPDX-License-Identifier: BSD-3-Clause
 *
 * option_check.h: the rule for options that are one of a few numbers. What is above those this
 * version knows may be an option of a later release, so it is ATTN_ERROR_UNSUPPORTED; what is below
 * is a mistake, ATTN_ERROR_VALUE.
 */
#ifndef ATTNI_BASE_OPTION_CHECK_H
#define ATTNI_BASE_OPTION_CHECK_H

#include <stdint.h>

#include "base/error.h"

/* An enum whose values are 0 to `highest`. Messages name the option `prefix` and `name`, such as
 * "attention." and "normalizer", and `what`, such as "enum attn_normalizer". */
attn_status attni_check_choice(const char *prefix, const char *name, int32_t value, int32_t highest,
                               const char *what);

/* A boolean, 0 or 1. */
attn_status attni_check_switch(const char *prefix, const char *name, int32_t value);

/* The sum of some of the bits `known`. */
attn_status attni_check_bits(const char *prefix, const char *name, int32_t value, int32_t known,
                             const char *what);

/* A field without a meaning yet. */
attn_status attni_check_reserved(const char *prefix, int32_t value);

#endif
