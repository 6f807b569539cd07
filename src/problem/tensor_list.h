/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tensor_list.h: the tensors of a call that are there, for who asks whether they overlap.
 */
#ifndef ATTNI_PROBLEM_TENSOR_LIST_H
#define ATTNI_PROBLEM_TENSOR_LIST_H

#include <attention/sdpa.h>

#include "tensor/tensor_check.h"

enum { ATTNI_MOST_TENSORS = 40 };

/* The outputs, then the inputs. Start from count 0. */
typedef struct attni_tensor_list {
    attni_argument tensors[ATTNI_MOST_TENSORS];
    int32_t count;
    int32_t num_outputs;
} attni_tensor_list;

/* Adds one unless it is NULL. */
void attni_list_tensor(attni_tensor_list *list, const char *name, const attn_tensor *tensor);

/* Adds what params says is read, kv's included, which was checked. */
void attni_list_options(attni_tensor_list *list, const attn_sdpa_params *params);

#endif
