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

/* The scale, or zero, of a tensor of the cache. */
static attn_status add_numbers(tensor_lists *lists, const char *name, const attn_tensor *numbers,
                               const attn_tensor *of) {
    if (attni_is_of_rows(numbers, of)) {
        return add_written(lists, name, numbers);
    }
    add_read(lists, name, numbers);
    return ATTN_OK;
}

/* What is written may not touch anything else; all of it was checked. */
static attn_status check_overlap(const attn_kv *given, const attn_tensor *key,
                                 const attn_tensor *value, const attn_kv_append_params *params) {
    attn_kv kv;
    attn_kv_append_params known;
    tensor_lists lists = {.num_written = 0};
    ATTNI_TRY(
        attni_struct_read("kv", given, ATTNI_BYTES_THROUGH(attn_kv, lengths), sizeof kv, &kv));
    ATTNI_TRY(attni_struct_read("params", params,
                                ATTNI_BYTES_THROUGH(attn_kv_append_params, positions), sizeof known,
                                &known));
    ATTNI_TRY(add_written(&lists, "kv.key", kv.key));
    ATTNI_TRY(add_written(&lists, "kv.value", kv.value));
    ATTNI_TRY(add_numbers(&lists, "kv.key_scale", kv.key_scale, kv.key));
    ATTNI_TRY(add_numbers(&lists, "kv.value_scale", kv.value_scale, kv.value));
    ATTNI_TRY(add_numbers(&lists, "kv.key_zero", kv.key_zero, kv.key));
    ATTNI_TRY(add_numbers(&lists, "kv.value_zero", kv.value_zero, kv.value));
    add_read(&lists, "key", key);
    add_read(&lists, "value", value);
    add_read(&lists, "starts", known.starts);
    add_read(&lists, "positions", known.positions);
    add_read(&lists, "kv.page_table", kv.page_table);
    add_read(&lists, "kv.page_starts", kv.page_starts);
    add_read(&lists, "kv.starts", kv.starts);
    add_read(&lists, "kv.lengths", kv.lengths);
    return attni_check_outputs(lists.written, lists.num_written, lists.read, lists.num_read);
}

attn_status attn_kv_append(attn_context *context, const attn_kv *kv, const attn_tensor *key,
                           const attn_tensor *value, const attn_kv_append_params *params) {
    ATTNI_NO_FLOAT_TRAPS;
    attni_error_clear();
    ATTNI_TRY(attni_context_resolve(context, &context));
    attni_append_problem problem;
    ATTNI_TRY(attni_append_check(kv, key, value, params, &problem));
    ATTNI_TRY(check_overlap(kv, key, value, params));
    return attni_append_run(context, &problem);
}
