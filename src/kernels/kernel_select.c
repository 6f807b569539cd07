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

/* One row: everything compiled for an instruction set, but for the stream kernels of float32, which
 * may be another's: those of AVX2 are faster than the same text for AVX-512, since rows in a
 * caller's memory start anywhere and nearly every load of 64 bytes would touch two cache lines. */
/* clang-format off */
#define COMPILED_SET(isa, label, name, stream_name, pairs)                                         \
    {isa,                                                                                          \
     {label, &attni_row_kernels_##name##_float32, &attni_row_kernels_##name##_float64,             \
      &attni_feature_kernels_##name##_float32, &attni_feature_kernels_##name##_float64,            \
      &attni_gradient_kernels_##name##_float32, &attni_gradient_kernels_##name##_float64,          \
      &attni_product_kernels_##name##_float64,                                                     \
      {&attni_product_kernels_##name##_float32, &attni_product_kernels_##name##_bfloat16,          \
       &attni_product_kernels_##name##_float16},                                                   \
      &attni_product_kernels_##name##_int8,                                                        \
      &attni_tile_kernels_##name##_float32, &attni_lane_kernels_##name##_float32,                  \
      &attni_mask_kernels_##name##_float32, &attni_quantized_kernels_##name##_float32,             \
      {&attni_storage_kernels_##name##_float32, &attni_storage_kernels_##name##_bfloat16,          \
       &attni_storage_kernels_##name##_float16},                                                   \
      {&attni_stream_kernels_##stream_name##_float32, &attni_stream_kernels_##name##_bfloat16,     \
       &attni_stream_kernels_##name##_float16}, &attni_stream_kernels_##name##_int8, pairs}}
/* clang-format on */

/* A name that ends so has pairs. */
#if defined(ATTNI_HAVE_PAIRS_baseline)
#define BASELINE_NAME "baseline_bf16"
#define BASELINE_PAIRS &attni_pair_kernels_baseline_bfloat16
#else
#define BASELINE_NAME "baseline"
#define BASELINE_PAIRS NULL
#endif

static const compiled_set compiled_sets[] = {
#if defined(ATTNI_HAVE_PAIRS_avx512)
    COMPILED_SET(ATTNI_ISA_AVX512_BF16, "avx512_bf16", avx512, avx2,
                 &attni_pair_kernels_avx512_bfloat16),
#endif
#if defined(ATTNI_HAVE_ISA_avx512)
    COMPILED_SET(ATTNI_ISA_AVX512, "avx512", avx512, avx2, NULL),
#endif
#if defined(ATTNI_HAVE_ISA_avx2)
    COMPILED_SET(ATTNI_ISA_AVX2, "avx2", avx2, avx2, NULL),
#endif
#if defined(ATTNI_HAVE_PAIRS_neon)
    COMPILED_SET(ATTNI_ISA_NEON_BF16, "neon_bf16", neon, neon, &attni_pair_kernels_neon_bfloat16),
#endif
#if defined(ATTNI_HAVE_ISA_neon)
    COMPILED_SET(ATTNI_ISA_NEON, "neon", neon, neon, NULL),
#endif
#if defined(ATTNI_HAVE_ISA_baseline)
    COMPILED_SET(ATTNI_ISA_BASELINE, BASELINE_NAME, baseline, baseline, BASELINE_PAIRS),
#endif
};

enum { COMPILED = sizeof compiled_sets / sizeof compiled_sets[0] };

/* The set at a place of the order in which they are preferred: pairs that are not fast stand behind
 * the set that is the same without them. */
static const compiled_set *preferred(size_t place) {
    const bool has_pairs = COMPILED > 1 && compiled_sets[0].set.pairs != NULL;
    if (has_pairs && place < 2 && !attni_cpu_pairs_fast()) {
        return &compiled_sets[1 - place];
    }
    return &compiled_sets[place];
}

const attni_kernel_set *attni_kernel_set_at(int32_t index) {
    int32_t runnable = 0;
    for (size_t place = 0; place < COMPILED; ++place) {
        const compiled_set *one = preferred(place);
        if (attni_cpu_has(one->isa) && runnable++ == index) {
            return &one->set;
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

const attni_feature_kernels *attni_feature_kernels_of(const attni_kernel_set *set, int32_t dtype) {
    return dtype == ATTN_DTYPE_FLOAT64 ? set->features_float64 : set->features_float32;
}

const attni_gradient_kernels *attni_gradient_kernels_of(const attni_kernel_set *set,
                                                        int32_t dtype) {
    return dtype == ATTN_DTYPE_FLOAT64 ? set->gradients_float64 : set->gradients_float32;
}

static attni_storage storage_of(int32_t dtype) {
    switch (dtype) {
    case ATTN_DTYPE_BFLOAT16:
        return ATTNI_STORED_BFLOAT16;
    case ATTN_DTYPE_FLOAT16:
        return ATTNI_STORED_FLOAT16;
    default:
        return ATTNI_STORED_FLOAT32;
    }
}

const attni_storage_kernels *attni_storage_kernels_of(const attni_kernel_set *set, int32_t dtype) {
    return set->storage[storage_of(dtype)];
}

const attni_stream_kernels *attni_stream_kernels_of(const attni_kernel_set *set, int32_t dtype) {
    return set->streams[storage_of(dtype)];
}

const attni_product_kernels *attni_product_kernels_of(const attni_kernel_set *set, int32_t dtype) {
    switch (dtype) {
    case ATTN_DTYPE_FLOAT64:
        return set->product_float64;
    case ATTN_DTYPE_INT8:
        return set->int8_products;
    default:
        return set->products[storage_of(dtype)];
    }
}

const char *attn_kernels_name(int32_t index) {
    const attni_kernel_set *set = index < 0 ? NULL : attni_kernel_set_at(index);
    return set == NULL ? NULL : set->name;
}
