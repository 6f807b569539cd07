/* SPDX-License-Identifier: BSD-3-Clause
 *
 * kernel_select.h: sets of kernels, and how one is chosen.
 */
#ifndef ATTNI_KERNELS_KERNEL_SELECT_H
#define ATTNI_KERNELS_KERNEL_SELECT_H

#include <stdint.h>

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

/* The types in which the fused engine's numbers may be stored; it computes in float32. */
typedef enum attni_storage {
    ATTNI_STORED_FLOAT32,
    ATTNI_STORED_BFLOAT16,
    ATTNI_STORED_FLOAT16,
    ATTNI_NUM_STORAGES
} attni_storage;

/* A named set: the kernels of one instruction set; those without an element type are float32's. */
typedef struct attni_kernel_set {
    const char *name;
    const attni_row_kernels *float32;
    const attni_row_kernels *float64;
    const attni_feature_kernels *features_float32;
    const attni_feature_kernels *features_float64;
    const attni_gradient_kernels *gradients_float32;
    const attni_gradient_kernels *gradients_float64;
    const attni_product_kernels *product_float64;
    const attni_product_kernels *products[ATTNI_NUM_STORAGES]; /* of float32, by w's storage */
    const attni_product_kernels *int8_products; /* integers as they are: scales come after sums */
    const attni_tile_kernels *tiles;
    const attni_lane_kernels *lanes;
    const attni_mask_kernels *masks;
    const attni_quantized_kernels *quantized;
    const attni_storage_kernels *storage[ATTNI_NUM_STORAGES];
    const attni_stream_kernels *streams[ATTNI_NUM_STORAGES];
    const attni_stream_kernels *int8_streams; /* integers as they are: scales come after sums */
    const attni_pair_kernels *pairs;          /* of bfloat16, or NULL */
} attni_kernel_set;

/* The set of a name, the best one this CPU runs for NULL; NULL if there is no such set or this CPU
 * cannot run it. */
const attni_kernel_set *attni_kernel_set_find(const char *name);

/* The sets this CPU runs, best first; NULL past the last. */
const attni_kernel_set *attni_kernel_set_at(int32_t index);

/* The row kernels of an element type, enum attn_dtype float32 or float64. */
const attni_row_kernels *attni_kernels_of(const attni_kernel_set *set, int32_t dtype);

/* The feature kernels, likewise, and those of the backward pass. */
const attni_feature_kernels *attni_feature_kernels_of(const attni_kernel_set *set, int32_t dtype);
const attni_gradient_kernels *attni_gradient_kernels_of(const attni_kernel_set *set, int32_t dtype);

/* The product kernels of float64, or of float32 with a right matrix that is stored as `dtype`. */
const attni_product_kernels *attni_product_kernels_of(const attni_kernel_set *set, int32_t dtype);

/* The kernels of a storage type, enum attn_dtype float32, bfloat16 or float16; of a quantised one
 * those of float32, which it is dequantised to. */
const attni_storage_kernels *attni_storage_kernels_of(const attni_kernel_set *set, int32_t dtype);
const attni_stream_kernels *attni_stream_kernels_of(const attni_kernel_set *set, int32_t dtype);

#endif
