/* SPDX-License-Identifier: BSD-3-Clause
 *
 * kernel_tables.h: the names of the tables that the kernel sources define, one for each instruction
 * set and element type they are compiled for.
 */
#ifndef ATTNI_KERNELS_KERNEL_TABLES_H
#define ATTNI_KERNELS_KERNEL_TABLES_H

#include "kernels/lane_kernels.h"
#include "kernels/mask_kernels.h"
#include "kernels/product_kernels.h"
#include "kernels/row_kernels.h"
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

extern const attni_product_kernels attni_product_kernels_baseline_float32;
extern const attni_product_kernels attni_product_kernels_baseline_float64;
extern const attni_product_kernels attni_product_kernels_neon_float32;
extern const attni_product_kernels attni_product_kernels_neon_float64;
extern const attni_product_kernels attni_product_kernels_avx2_float32;
extern const attni_product_kernels attni_product_kernels_avx2_float64;
extern const attni_product_kernels attni_product_kernels_avx512_float32;
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
extern const attni_stream_kernels attni_stream_kernels_baseline_float32;
extern const attni_stream_kernels attni_stream_kernels_neon_float32;
extern const attni_stream_kernels attni_stream_kernels_avx2_float32;

#endif
