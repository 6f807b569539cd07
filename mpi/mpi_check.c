/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_check.c: what is asked of one rank's arguments. The core library has its say on the whole
 * call, which it sees as one with all keys.
 */
#include "mpi_check.h"

#include <string.h>

#include "mpi_copy.h"
#include "mpi_memory.h"
#include "mpi_options.h"
#include "mpi_overlap.h"

typedef struct named_tensor {
    const char *name;
    const attn_tensor *tensor;
} named_tensor;

/* A view whose shape can be read: the core library says what else is wrong with it. */
static attn_status check_view(const char *name, const attn_tensor *tensor) {
    int64_t count;
    if (tensor == NULL) {
        return attni_mpi_fail(ATTN_ERROR_NULL, "%s: expected a tensor, got NULL", name);
    }
    const attn_status status = attn_tensor_count(tensor, &count);
    if (status != ATTN_OK) {
        return attni_mpi_fail(status, "%s: %s", name, attn_last_error());
    }
    if (tensor->rank < 2) {
        return attni_mpi_fail(ATTN_ERROR_SHAPE, "%s: expected rank 2 to %d, got %d", name,
                              ATTN_MAX_RANK, (int)tensor->rank);
    }
    return ATTN_OK;
}

attn_status attni_mpi_check_thread_level(int32_t num_threads) {
    int level, is_main;
    ATTNI_MPI_TRY(attni_mpi_result("MPI_Query_thread", MPI_Query_thread(&level)));
    if (level == MPI_THREAD_SINGLE && num_threads > 1) {
        return attni_mpi_fail(ATTN_MPI_ERROR_THREAD_LEVEL,
                              "comm: expected MPI_THREAD_FUNNELED or more of MPI_Init_thread "
                              "beside a context of %d threads, got MPI_THREAD_SINGLE",
                              (int)num_threads);
    }
    if (level <= MPI_THREAD_FUNNELED) {
        ATTNI_MPI_TRY(attni_mpi_result("MPI_Is_thread_main", MPI_Is_thread_main(&is_main)));
        if (!is_main) {
            return attni_mpi_fail(ATTN_MPI_ERROR_THREAD_LEVEL,
                                  "comm: expected MPI_THREAD_SERIALIZED or more of "
                                  "MPI_Init_thread on a thread that is not MPI's main one");
        }
    }
    return ATTN_OK;
}

/* Threads that a call needs are started here, where a refusal is an error like others. */
static attn_status check_context(const attni_mpi_arguments *arguments, int32_t *num_threads) {
    attn_context_info info = {.struct_size = sizeof info};
    if (arguments->looks_at_data) {
        ATTNI_MPI_TRY(attn_context_start(arguments->context));
    }
    ATTNI_MPI_TRY(attn_context_describe(arguments->context, &info));
    *num_threads = info.num_threads;
    return attni_mpi_check_thread_level(info.num_threads);
}

/* The structs of options, with what the call keeps of them. */
static attn_status read_structs(const attni_mpi_arguments *arguments, attni_mpi_call *call) {
    ATTNI_MPI_TRY(attni_mpi_read_params(arguments->mpi_params, call));
    ATTNI_MPI_TRY(attni_mpi_read_sdpa_params(arguments->params, call));
    if (arguments->is_backward) {
        ATTNI_MPI_TRY(attni_mpi_read_gradients(arguments->gradients, call));
        ATTNI_MPI_TRY(check_view("gradients.output", call->gradients.output));
    }
    call->has_lse = call->params.lse != NULL;
    if (call->has_lse) {
        call->lse = *call->params.lse;
    }
    call->is_softmax = call->params.normalizer == ATTN_NORMALIZER_SOFTMAX;
    return ATTN_OK;
}

attn_status attni_mpi_check_own(const attni_mpi_arguments *arguments, attni_mpi_call *call,
                                int32_t *num_threads) {
    const named_tensor required[] = {{"query", arguments->query},
                                     {"key", arguments->key},
                                     {"value", arguments->value},
                                     {"output", arguments->output}};
    attn_tensor *const kept[] = {&call->query, &call->key, &call->value, &call->output};
    *call = (attni_mpi_call){.context = arguments->context, .is_backward = arguments->is_backward};
    *num_threads = 1;
    for (size_t i = 0; i < sizeof required / sizeof required[0]; ++i) {
        ATTNI_MPI_TRY(check_view(required[i].name, required[i].tensor));
        *kept[i] = *required[i].tensor;
    }
    call->score_dtype =
        call->query.dtype == ATTN_DTYPE_FLOAT64 ? ATTN_DTYPE_FLOAT64 : ATTN_DTYPE_FLOAT32;
    ATTNI_MPI_TRY(read_structs(arguments, call));
    return check_context(arguments, num_threads);
}

/* A tensor of all keys that is nowhere, like the rank's own ones. */
static attn_status whole_of(const attni_mpi_call *call, const attn_tensor *own,
                            attn_tensor *whole) {
    int64_t shape[ATTN_MAX_RANK] = {0};
    for (int32_t axis = 0; axis < own->rank; ++axis) {
        shape[axis] = own->shape[axis];
    }
    /* A value with fewer rows than the key must stay one. */
    if (own->rank >= 2) {
        shape[own->rank - 2] += call->num_keys - call->key.shape[call->key.rank - 2];
    }
    return attn_tensor_init(whole, NULL, own->dtype, own->rank, shape);
}

/* The gradients of keys and values are of the rank's own rows, and are checked as those of a call
 * that has no others. */
static attn_status check_gradients_of_own_keys(const attni_mpi_call *call) {
    size_t bytes;
    const attn_sdpa_params params = {.struct_size = sizeof params,
                                     .enable_gqa = call->params.enable_gqa,
                                     .normalizer = call->params.normalizer,
                                     .lse = call->params.lse};
    const attn_sdpa_gradients gradients = {.struct_size = sizeof gradients,
                                           .output = call->gradients.output,
                                           .key = call->gradients.key,
                                           .value = call->gradients.value};
    return attn_sdpa_backward_workspace_bytes(call->context, &call->query, &call->key, &call->value,
                                              &params, &call->output, &gradients, &bytes);
}

/* The core library's own checks of a backward pass, of all keys as one tensor. */
static attn_status check_backward_by_core(const attni_mpi_call *call, const attn_tensor *key,
                                          const attn_tensor *value) {
    size_t bytes;
    attn_tensor key_gradient, value_gradient;
    attn_sdpa_gradients gradients = call->gradients;
    ATTNI_MPI_TRY(check_gradients_of_own_keys(call));
    if (gradients.key != NULL) {
        ATTNI_MPI_TRY(whole_of(call, gradients.key, &key_gradient));
        gradients.key = &key_gradient;
    }
    if (gradients.value != NULL) {
        ATTNI_MPI_TRY(whole_of(call, gradients.value, &value_gradient));
        gradients.value = &value_gradient;
    }
    return attn_sdpa_backward_workspace_bytes(call->context, &call->query, key, value,
                                              &call->params, &call->output, &gradients, &bytes);
}

static attn_status check_by_core(const attni_mpi_call *call) {
    size_t bytes;
    attn_tensor key, value;
    ATTNI_MPI_TRY(whole_of(call, &call->key, &key));
    ATTNI_MPI_TRY(whole_of(call, &call->value, &value));
    return call->is_backward ? check_backward_by_core(call, &key, &value)
                             : attn_sdpa_workspace_bytes(call->context, &call->query, &key, &value,
                                                         &call->params, &call->output, &bytes);
}

/* Which of the tensors of a call are written. */
enum { FIRST_GRADIENT = 16, NUM_TENSORS = FIRST_GRADIENT + ATTNI_MPI_NUM_GRADIENTS };

/* All tensors of a call; those that are not there are NULL. */
static void list_tensors(const attni_mpi_call *call, named_tensor *tensors) {
    const attn_sdpa_params *const params = &call->params;
    const attn_sdpa_gradients *const gradients = &call->gradients;
    const named_tensor all[NUM_TENSORS] = {
        {"query", &call->query},
        {"key", &call->key},
        {"value", &call->value},
        {"output", &call->output},
        {"mask", params->mask},
        {"bias", params->bias},
        {"query_offset", params->query_offset},
        {"key_lengths", params->key_lengths},
        {"alibi_slopes", params->alibi_slopes},
        {"sinks", params->sinks},
        {"lse", params->lse},
        {"mask_start", params->mask_start},
        {"position_bias", params->position_bias},
        {"block_mask", params->block_mask},
        {"gradients.output", gradients->output},
        {"gradients.lse", gradients->lse},
        {"gradients.query", gradients->query},
        {"gradients.key", gradients->key},
        {"gradients.value", gradients->value},
        {"gradients.mask", gradients->mask},
        {"gradients.bias", gradients->bias},
        {"gradients.position_bias", gradients->position_bias},
        {"gradients.alibi_slopes", gradients->alibi_slopes},
        {"gradients.sinks", gradients->sinks},
    };
    memcpy(tensors, all, sizeof all);
}

static attn_status check_data(const attni_mpi_call *call) {
    named_tensor tensors[NUM_TENSORS];
    list_tensors(call, tensors);
    for (size_t i = 0; i < NUM_TENSORS; ++i) {
        int64_t count = 0;
        if (tensors[i].tensor != NULL && tensors[i].tensor->data == NULL) {
            ATTNI_MPI_TRY(attn_tensor_count(tensors[i].tensor, &count));
        }
        if (count > 0) {
            return attni_mpi_fail(ATTN_ERROR_NULL, "%s: expected data, got NULL", tensors[i].name);
        }
    }
    return ATTN_OK;
}

static attn_status check_lengths(const attni_mpi_call *call) {
    const attni_mpi_numbers *const lengths = &call->lengths;
    if (!call->has_lengths || lengths->count == 0 ||
        (lengths->lowest >= 0 && lengths->highest <= call->num_keys)) {
        return ATTN_OK;
    }
    return attni_mpi_fail(ATTN_ERROR_VALUE,
                          "key_lengths: expected 0 to %lld, the keys of all ranks, got %lld",
                          (long long)call->num_keys,
                          (long long)(lengths->lowest < 0 ? lengths->lowest : lengths->highest));
}

/* The blocks of a part are some of the mask's blocks if it begins where one does: in rows, which
 * are the rank's own, and in keys. */
static attn_status check_blocks(const attni_mpi_call *call) {
    const attni_mpi_link *const link = call->link;
    const attn_sdpa_params *const params = &call->params;
    const attn_tensor *const blocks = params->block_mask;
    if (blocks == NULL || call->scheme == ATTN_MPI_SCHEME_HEADS) {
        return ATTN_OK;
    }
    const attni_mpi_stretch *const second = &link->query_places[link->group.rank].stretches[1];
    if (blocks->rank >= 2 && blocks->shape[blocks->rank - 2] != 1 && second->count > 0 &&
        second->local % params->block_rows != 0) {
        return attni_mpi_fail(ATTN_ERROR_UNSUPPORTED,
                              "block_mask: expected a rank's second stretch of rows to begin at a "
                              "multiple of block_rows, %lld, got row %lld",
                              (long long)params->block_rows, (long long)second->local);
    }
    for (int i = 0; i < ATTNI_MPI_STRETCHES * link->group.num_ranks; ++i) {
        const attni_mpi_stretch *const keys =
            &link->key_places[i / ATTNI_MPI_STRETCHES].stretches[i % ATTNI_MPI_STRETCHES];
        if (blocks->shape[blocks->rank - 1] != 1 && keys->count > 0 &&
            keys->first % params->block_columns != 0) {
            return attni_mpi_fail(ATTN_ERROR_UNSUPPORTED,
                                  "block_mask: expected the keys of each rank to begin at a "
                                  "multiple of block_columns, %lld, got key %lld of rank %d",
                                  (long long)params->block_columns, (long long)keys->first,
                                  i / ATTNI_MPI_STRETCHES);
        }
    }
    return ATTN_OK;
}

attn_status attni_mpi_check_whole(const attni_mpi_arguments *arguments, attni_mpi_call *call) {
    ATTNI_MPI_TRY(check_by_core(call));
    ATTNI_MPI_TRY(check_blocks(call));
    if (arguments->looks_at_data) {
        ATTNI_MPI_TRY(check_data(call));
    }
    const attn_sdpa_params *const params = &call->params;
    const attn_tensor *const given[] = {params->query_offset, params->key_lengths,
                                        params->mask_start};
    attni_mpi_numbers *const kept[] = {&call->offsets, &call->lengths, &call->starts};
    bool *const has[] = {&call->has_offsets, &call->has_lengths, &call->has_starts};
    for (int i = 0; i < 3; ++i) {
        *has[i] = given[i] != NULL;
        if (*has[i]) {
            attni_mpi_numbers_describe(given[i], kept[i]);
        }
        if (*has[i] && arguments->looks_at_data) {
            attni_mpi_numbers_read(kept[i]);
        }
    }
    return arguments->looks_at_data ? check_lengths(call) : ATTN_OK;
}

static attn_status check_apart(const named_tensor *written, const named_tensor *other) {
    if (written->tensor == NULL || other->tensor == NULL ||
        attni_mpi_are_apart(written->tensor, other->tensor)) {
        return ATTN_OK;
    }
    return attni_mpi_fail(ATTN_ERROR_OVERLAP, "%s: overlaps %s", written->name, other->name);
}

attn_status attni_mpi_check_overlap(const attni_mpi_arguments *arguments,
                                    const attni_mpi_call *call, size_t needed_bytes) {
    named_tensor tensors[NUM_TENSORS];
    const attn_tensor block = attni_mpi_bytes_at(arguments->workspace, needed_bytes);
    const named_tensor workspace = {"workspace", arguments->workspace != NULL ? &block : NULL};
    const named_tensor lse = {"lse", call->is_backward ? NULL : call->params.lse};
    const named_tensor output = {"output", &call->output};
    ATTNI_MPI_TRY(check_apart(&lse, &output));
    list_tensors(call, tensors);
    for (int i = FIRST_GRADIENT; i < NUM_TENSORS; ++i) {
        for (int other = FIRST_GRADIENT; other < i; ++other) {
            ATTNI_MPI_TRY(check_apart(&tensors[i], &tensors[other]));
        }
    }
    for (int i = 0; i < NUM_TENSORS; ++i) {
        ATTNI_MPI_TRY(check_apart(&workspace, &tensors[i]));
    }
    return ATTN_OK;
}
