/* SPDX-License-Identifier: BSD-3-Clause
 *
 * kernel_tables.h: the names of the tables that the kernel sources define, one for each instruction
 * set and element type they are compiled for.
 */
#ifndef ATTNI_KERNELS_KERNEL_TABLES_H
#define ATTNI_KERNELS_KERNEL_TABLES_H

#include "kernels/feature_kernels.h"
#include "kernels/gradient_kernels.h"
#include "kernels/lane_kernels.h"
#include "kernels/mask_kernels.h"
#include "kernels/pair_kernels.h"
#include "kernels/product_kernels.h"
#include "kernels/quantized_kernels.h"
#include "kernels/row_kernels.h"
#include "kernels/storage_kernels.h"
#include "kernels/stream_kernels.h"
#include "kernels/tile_kernels.h"

extern const attni_row_kernels attni_row_kernels_baseline_float32;
extern const attni_row_kernels attni_row_kernels_baseline_float64;
extern const attni_row_kernels attni_row_kernels_neon_float32;
extern const attni_row_kernels attni_row_kernels_neon_float64;
extern const attni_row_kernels attni_row_kernels_avx2_float32;
extern const attni_row_kernels attni_row_kernels_avx2_float64;
extern const attni_row_kernels attni_row_kernels_avx512_float32;
extern const attni_row_kernels attni_row_kernels_avx512_float64;

extern const attni_feature_kernels attni_feature_kernels_baseline_float32;
extern const attni_feature_kernels attni_feature_kernels_baseline_float64;
extern const attni_feature_kernels attni_feature_kernels_neon_float32;
extern const attni_feature_kernels attni_feature_kernels_neon_float64;
extern const attni_feature_kernels attni_feature_kernels_avx2_float32;
extern const attni_feature_kernels attni_feature_kernels_avx2_float64;
extern const attni_feature_kernels attni_feature_kernels_avx512_float32;
extern const attni_feature_kernels attni_feature_kernels_avx512_float64;

extern const attni_gradient_kernels attni_gradient_kernels_baseline_float32;
extern const attni_gradient_kernels attni_gradient_kernels_baseline_float64;
extern const attni_gradient_kernels attni_gradient_kernels_neon_float32;
extern const attni_gradient_kernels attni_gradient_kernels_neon_float64;
extern const attni_gradient_kernels attni_gradient_kernels_avx2_float32;
extern const attni_gradient_kernels attni_gradient_kernels_avx2_float64;
extern const attni_gradient_kernels attni_gradient_kernels_avx512_float32;
extern const attni_gradient_kernels attni_gradient_kernels_avx512_float64;

extern const attni_product_kernels attni_product_kernels_baseline_float64;
extern const attni_product_kernels attni_product_kernels_neon_float64;
extern const attni_product_kernels attni_product_kernels_avx2_float64;
extern const attni_product_kernels attni_product_kernels_avx512_float64;

extern const attni_tile_kernels attni_tile_kernels_baseline_float32;
extern const attni_tile_kernels attni_tile_kernels_neon_float32;
extern const attni_tile_kernels attni_tile_kernels_avx2_float32;
extern const attni_tile_kernels attni_tile_kernels_avx512_float32;
extern const attni_lane_kernels attni_lane_kernels_baseline_float32;
extern const attni_lane_kernels attni_lane_kernels_neon_float32;
extern const attni_lane_kernels attni_lane_kernels_avx2_float32;
extern const attni_lane_kernels attni_lane_kernels_avx512_float32;
extern const attni_mask_kernels attni_mask_kernels_baseline_float32;
extern const attni_mask_kernels attni_mask_kernels_neon_float32;
extern const attni_mask_kernels attni_mask_kernels_avx2_float32;
extern const attni_mask_kernels attni_mask_kernels_avx512_float32;
extern const attni_quantized_kernels attni_quantized_kernels_baseline_float32;
extern const attni_quantized_kernels attni_quantized_kernels_neon_float32;
extern const attni_quantized_kernels attni_quantized_kernels_avx2_float32;
extern const attni_quantized_kernels attni_quantized_kernels_avx512_float32;

/* Those of an instruction set that are others for each storage type. */
#define DECLARE_STORED(isa)                                                    \
    extern const attni_product_kernels attni_product_kernels_##isa##_float32;  \
    extern const attni_product_kernels attni_product_kernels_##isa##_bfloat16; \
    extern const attni_product_kernels attni_product_kernels_##isa##_float16;  \
    extern const attni_product_kernels attni_product_kernels_##isa##_int8;     \
    extern const attni_storage_kernels attni_storage_kernels_##isa##_float32;  \
    extern const attni_storage_kernels attni_storage_kernels_##isa##_bfloat16; \
    extern const attni_storage_kernels attni_storage_kernels_##isa##_float16;  \
    extern const attni_stream_kernels attni_stream_kernels_##isa##_float32;    \
    extern const attni_stream_kernels attni_stream_kernels_##isa##_bfloat16;   \
    extern const attni_stream_kernels attni_stream_kernels_##isa##_float16;    \
    extern const attni_stream_kernels attni_stream_kernels_##isa##_int8

/* Only of what multiplies pairs of bfloat16, and of baseline in tests. */
extern const attni_pair_kernels attni_pair_kernels_baseline_bfloat16;
extern const attni_pair_kernels attni_pair_kernels_neon_bfloat16;
extern const attni_pair_kernels attni_pair_kernels_avx512_bfloat16;

DECLARE_STORED(baseline);
DECLARE_STORED(neon);
DECLARE_STORED(avx2);
DECLARE_STORED(avx512);

#endif
