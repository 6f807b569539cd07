/* SPDX-License-Identifier: BSD-3-Clause
 *
 * refused_view.h: a function of views that refuses leaves the view it would have made as it was.
 */
#ifndef TESTS_TENSOR_REFUSED_VIEW_H
#define TESTS_TENSOR_REFUSED_VIEW_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <attention/status.h>
#include <attention/tensor.h>

/* A view nothing of which is a plausible value. */
static inline attn_tensor poison(void) {
    attn_tensor view;
    memset(&view, 0x55, sizeof view);
    return view;
}

/* What is not expected of a call fails the test; *view must be as it was after a refusal. */
static inline void assert_refused(attn_status status, attn_status expected, const attn_tensor *view) {
    const attn_tensor untouched = poison();
    if (status != expected) {
        fail_msg("expected %s, got %s (%s)", attn_status_name(expected), attn_status_name(status),
                 attn_last_error());
    }
    assert_memory_equal(view, &untouched, sizeof untouched);
    assert_true(strlen(attn_last_error()) > 0);
}

#endif
