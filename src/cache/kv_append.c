/* SPDX-License-Identifier: BSD-3-Clause
 *
 * kv_append.c: the public call that stores keys and values.
 */
#include <attention/kv.h>

#include "base/float_traps.h"
#include "base/versioned_struct.h"
#include "cache/append_check.h"
#include "cache/append_run.h"
#include "cache/append_scales.h"
#include "tensor/tensor_check.h"

/* The tensors of a call: those that are written, and those that are read. */
typedef struct tensor_lists {
    attni_argument written[6];
    attni_argument read[12];
    int32_t num_written;
    int32_t num_read;
} tensor_lists;

static attn_status add_written(tensor_lists *lists, const char *name, const attn_tensor *tensor) {
    ATTNI_TRY(attni_check_writable(name, tensor));
    lists->written[lists->num_written++] = (attni_argument){name, tensor};
    return ATTN_OK;
}

static void add_read(tensor_lists *lists, const char *name, const attn_tensor *tensor) {
    lists->read[lists->num_read++] = (attni_argument){name, tensor};
}

/* What is written may not touch anything else; all of it was checked. */
static attn_status check_overlap(const attn_kv *given, const attn_tensor *key,
                                 const attn_tensor *value, const attn_kv_append_params *params) {
    attn_kv kv;
    attni_argument of_kv[ATTNI_KV_TENSORS];
    attn_kv_append_params known;
    tensor_lists lists = {.num_written = 0};
    ATTNI_TRY(attni_kv_read(&attni_names_of_kv, given, &kv));
    attni_kv_list(&attni_names_of_kv, &kv, of_kv);
    ATTNI_TRY(attni_struct_read("params", params,
                                ATTNI_BYTES_THROUGH(attn_kv_append_params, positions), sizeof known,
                                &known));
    for (int32_t i = 0; i < ATTNI_KV_TENSORS; ++i) {
        if (attni_append_writes(&kv, i)) {
            ATTNI_TRY(add_written(&lists, of_kv[i].name, of_kv[i].tensor));
        } else {
            add_read(&lists, of_kv[i].name, of_kv[i].tensor);
        }
    }
    add_read(&lists, "key", key);
    add_read(&lists, "value", value);
    add_read(&lists, "starts", known.starts);
    add_read(&lists, "positions", known.positions);
    return attni_check_outputs(lists.written, lists.num_written, lists.read, lists.num_read);
}

attn_status attn_kv_append(attn_context *context, const attn_kv *kv, const attn_tensor *key,
                           const attn_tensor *value, const attn_kv_append_params *params) {
    ATTNI_NO_FLOAT_TRAPS;
    attni_error_clear();
    ATTNI_TRY(attni_context_resolve(context, &context));
    const attni_append_request request = {
        .kv = kv,
        .kv_names = &attni_names_of_kv,
        .key = key,
        .value = value,
        .params = params,
        .row_data = ATTNI_DATA_REQUIRED,
        .kv_data = ATTNI_DATA_REQUIRED,
    };
    attni_append_problem problem;
    ATTNI_TRY(attni_append_check(&request, &problem));
    ATTNI_TRY(check_overlap(kv, key, value, params));
    return attni_append_run(context, &problem);
}
