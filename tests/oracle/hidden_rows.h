/* SPDX-License-Identifier: BSD-3-Clause
 *
 * hidden_rows.h: what stands in rows of keys and values that no query sees, which may be anything.
 */
#ifndef ATTENTION_TESTS_HIDDEN_ROWS_H
#define ATTENTION_TESTS_HIDDEN_ROWS_H

#include <attention/tensor.h>

#include "support/random.h"

/* Ordinary numbers stay a level: NaN may get lost where a finite number that should not be there
 * moves a maximum. */
enum hidden_level {
    HIDDEN_NAN,
    HIDDEN_INFINITE, /* some elements, so that sums of them are infinite and not always NaN */
    HIDDEN_ORDINARY,
    NUM_HIDDEN_LEVELS
};
extern const char *const hidden_names[NUM_HIDDEN_LEVELS];

/*
 * Fills the rows of a key or value (batch axes, heads, S, features) that `hidden` (batches, S)
 * marks. Memory that also belongs to a row that is not hidden stays as it is. Returns the tensor
 * for the oracle: the same shape, float64, zeros in place of hidden rows. Its data is freed by the
 * caller.
 */
attn_tensor fill_hidden_rows(const attn_tensor *rows, const unsigned char *hidden, int level,
                             random_state *random);

#endif
