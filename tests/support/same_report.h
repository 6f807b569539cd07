/* SPDX-License-Identifier: BSD-3-Clause
 *
 * same_report.h: that what was told of a call before it is what its run then reported.
 */
#ifndef ATTENTION_TESTS_SUPPORT_SAME_REPORT_H
#define ATTENTION_TESTS_SUPPORT_SAME_REPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <attention/attention.h>

static inline void assert_same_report(const attn_sdpa_report *told, const attn_sdpa_report *ran) {
    assert_int_equal(told->engine, ran->engine);
    assert_int_equal(told->gemm, ran->gemm);
    assert_int_equal(told->depends_on_blas_threads, ran->depends_on_blas_threads);
    assert_int_equal(told->packs, ran->packs);
    assert_int_equal(told->row_block, ran->row_block);
    assert_int_equal(told->num_blocks, ran->num_blocks);
    assert_int_equal(told->workspace_bytes, ran->workspace_bytes);
    assert_string_equal(told->kernels, ran->kernels);
    assert_string_equal(told->reason, ran->reason);
}

#endif
