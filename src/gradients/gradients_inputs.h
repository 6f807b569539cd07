/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_inputs.h: the gradients of query, key and value.
 */
#ifndef ATTNI_GRADIENTS_GRADIENTS_INPUTS_H
#define ATTNI_GRADIENTS_GRADIENTS_INPUTS_H

#include <stdint.h>

/* Items of the plan; `data` is an attni_gradients_engine. Without whole heads an item waits for the
 * one before it, so they must begin in their order. */
void attni_gradients_inputs_item(void *data, int32_t slot, int64_t index);

#endif
