/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_rope.h: the text of attention/rope.h in numbers wider than float64, pair by pair.
 */
#ifndef ATTENTION_TESTS_ORACLE_ROPE_H
#define ATTENTION_TESTS_ORACLE_ROPE_H

#include <attention/rope.h>

#include "support/compare.h"
#include "support/oracle_tensor.h"

/* attn_rope(input, params) for valid arguments; params may be NULL. Errors are those that the
 * header allows; results of a pair that is not finite are left open. */
oracle_array oracle_rope(const attn_tensor *input, const attn_rope_params *params);

#endif
