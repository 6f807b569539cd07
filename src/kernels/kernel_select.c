/* SPDX-License-Identifier: BSD-3-Clause
 *
 * kernel_select.c: the sets of kernels in this build, best first, and which of them this CPU runs.
 */
#include "kernels/kernel_select.h"

#include <stddef.h>
#include <string.h>

#include <attention/context.h>
#include <attention/tensor.h>

#include "base/cpu_features.h"
#include "kernels/kernel_tables.h"

typedef struct compiled_set {
    attni_isa isa;
    attni_kernel_set set;
} compiled_set;

/* One row: everything compiled for an instruction set, but for the stream kernels, which may be
 * another's: those of AVX2 are faster than the same text for AVX-512, since rows in a caller's
 * memory start anywhere and nearly every load of 64 bytes would touch two cache lines. */
/* clang-format off */
#define COMPILED_SET(isa, name, stream_name)                                                       \
    {isa,                                                                                          \
     {#name, &attni_row_kernels_##name##_float32, &attni_row_kernels_##name##_float64,             \
      &attni_product_kernels_##name##_float32, &attni_product_kernels_##name##_float64,            \
      &attni_tile_kernels_##name##_float32, &attni_lane_kernels_##name##_float32,                  \
      &attni_mask_kernels_##name##_float32, &attni_stream_kernels_##stream_name##_float32}}
/* clang-format on */

static const compiled_set compiled_sets[] = {
#if defined(ATTNI_HAVE_ISA_avx512)
    COMPILED_SET(ATTNI_ISA_AVX512, avx512, avx2),
#endif
#if defined(ATTNI_HAVE_ISA_avx2)
    COMPILED_SET(ATTNI_ISA_AVX2, avx2, avx2),
#endif
#if defined(ATTNI_HAVE_ISA_neon)
    COMPILED_SET(ATTNI_ISA_NEON, neon, neon),
#endif
#if defined(ATTNI_HAVE_ISA_baseline)
    COMPILED_SET(ATTNI_ISA_BASELINE, baseline, baseline),
#endif
};

const attni_kernel_set *attni_kernel_set_at(int32_t index) {
    int32_t runnable = 0;
    for (size_t i = 0; i < sizeof compiled_sets / sizeof compiled_sets[0]; ++i) {
        if (attni_cpu_has(compiled_sets[i].isa) && runnable++ == index) {
            return &compiled_sets[i].set;
        }
    }
    return NULL;
}

const attni_kernel_set *attni_kernel_set_find(const char *name) {
    const attni_kernel_set *set;
    for (int32_t index = 0; (set = attni_kernel_set_at(index)) != NULL; ++index) {
        if (name == NULL || strcmp(name, set->name) == 0) {
            return set;
        }
    }
    return NULL;
}

const attni_row_kernels *attni_kernels_of(const attni_kernel_set *set, int32_t dtype) {
    return dtype == ATTN_DTYPE_FLOAT64 ? set->float64 : set->float32;
}

const attni_product_kernels *attni_product_kernels_of(const attni_kernel_set *set, int32_t dtype) {
    return dtype == ATTN_DTYPE_FLOAT64 ? set->product_float64 : set->product_float32;
}

const char *attn_kernels_name(int32_t index) {
    const attni_kernel_set *set = index < 0 ? NULL : attni_kernel_set_at(index);
    return set == NULL ? NULL : set->name;
}
