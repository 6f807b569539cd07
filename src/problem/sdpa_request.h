/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_request.h: one attention call as it comes, before any check.
 */
#ifndef ATTNI_PROBLEM_SDPA_REQUEST_H
#define ATTNI_PROBLEM_SDPA_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include <attention/sdpa.h>

#include "problem/kv_tensors.h"
#include "tensor/tensor_check.h"

/* From attn_sdpa, or from a layer that computes query, key and value itself. */
typedef struct attni_sdpa_request {
    const attn_tensor *query;
    const attn_tensor *key;
    const attn_tensor *value;
    const attn_tensor *output;
    const attn_sdpa_params *params; /* already read by attni_sdpa_read_params */
    const char *option_prefix;      /* before the options' names in messages: "" or "attention." */
    attni_data_rule tensor_data;    /* of query, key, value, output */
    attni_data_rule option_data;    /* of everything in params */
    const attni_kv_names *kv_names; /* what messages call params->kv */
    const attn_tensor *extra_key;   /* rows behind the keys that every row sees, without data; NULL:
                                       none */
    const attn_tensor *extra_value; /* as many */
    const int64_t *key_columns; /* S of sequences with room for any number of keys each; NULL: what
                                   options say, or as many as key has rows */
    const attn_tensor *with_columns; /* has as many as weights, beside params, or NULL */
    bool reads_results; /* output and lse are read, as by gradients, and so may repeat */
    int32_t dtype;      /* of options and results, beside the score type; 0: query's */
} attni_sdpa_request;

#endif
