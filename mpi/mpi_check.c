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

attn_status attni_mpi_check_own(const attni_mpi_arguments *arguments, attni_mpi_call *call,
                                int32_t *num_threads) {
    const named_tensor required[] = {{"query", arguments->query},
                                     {"key", arguments->key},
                                     {"value", arguments->value},
                                     {"output", arguments->output}};
    attn_tensor *const kept[] = {&call->query, &call->key, &call->value, &call->output};
    *call = (attni_mpi_call){.context = arguments->context};
    *num_threads = 1;
    for (size_t i = 0; i < sizeof required / sizeof required[0]; ++i) {
        ATTNI_MPI_TRY(check_view(required[i].name, required[i].tensor));
        *kept[i] = *required[i].tensor;
    }
    ATTNI_MPI_TRY(attni_mpi_read_params(arguments->mpi_params, call));
    ATTNI_MPI_TRY(attni_mpi_read_sdpa_params(arguments->params, &call->params));
    call->has_lse = call->params.lse != NULL;
    if (call->has_lse) {
        call->lse = *call->params.lse;
    }
    call->is_softmax = call->params.normalizer == ATTN_NORMALIZER_SOFTMAX;
    call->score_dtype =
        call->query.dtype == ATTN_DTYPE_FLOAT64 ? ATTN_DTYPE_FLOAT64 : ATTN_DTYPE_FLOAT32;
    return check_context(arguments, num_threads);
}

/* The core library's own checks, of all keys as one tensor that is nowhere. */
static attn_status check_by_core(const attni_mpi_call *call) {
    size_t bytes;
    attn_tensor key, value;
    attn_tensor *const wholes[] = {&key, &value};
    const attn_tensor *const parts[] = {&call->key, &call->value};
    for (int i = 0; i < 2; ++i) {
        int64_t shape[ATTN_MAX_RANK] = {0};
        for (int32_t axis = 0; axis < parts[i]->rank; ++axis) {
            shape[axis] = parts[i]->shape[axis];
        }
        /* A value with fewer rows than the key must stay one. */
        shape[parts[i]->rank - 2] += call->num_keys - call->key.shape[call->key.rank - 2];
        ATTNI_MPI_TRY(attn_tensor_init(wholes[i], NULL, parts[i]->dtype, parts[i]->rank, shape));
    }
    return attn_sdpa_workspace_bytes(call->context, &call->query, &key, &value, &call->params,
                                     &call->output, &bytes);
}

enum { NUM_TENSORS = 13 };

/* All tensors of a call; those that are not there are NULL. */
static void list_tensors(const attni_mpi_call *call, named_tensor *tensors) {
    const attn_sdpa_params *const params = &call->params;
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

attn_status attni_mpi_check_whole(const attni_mpi_arguments *arguments, attni_mpi_call *call) {
    ATTNI_MPI_TRY(check_by_core(call));
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

/* Addresses from the first byte of a tensor to behind the last; both 0 if it is empty. */
typedef struct byte_range {
    uintptr_t first, end;
} byte_range;

static byte_range range_of(const attn_tensor *tensor) {
    const int64_t element_bytes = (int64_t)attn_dtype_size_bytes(tensor->dtype);
    byte_range range = {(uintptr_t)tensor->data,
                        (uintptr_t)tensor->data + (uintptr_t)element_bytes};
    for (int32_t axis = 0; axis < tensor->rank; ++axis) {
        const int64_t reach = (tensor->shape[axis] - 1) * tensor->strides[axis] * element_bytes;
        if (tensor->shape[axis] == 0) {
            return (byte_range){0};
        }
        if (reach < 0) {
            range.first += (uintptr_t)reach;
        } else {
            range.end += (uintptr_t)reach;
        }
    }
    return range;
}

static bool ranges_overlap(byte_range a, byte_range b) {
    return a.first < b.end && b.first < a.end;
}

attn_status attni_mpi_check_overlap(const attni_mpi_arguments *arguments,
                                    const attni_mpi_call *call, size_t needed_bytes) {
    named_tensor tensors[NUM_TENSORS];
    const uintptr_t first = (uintptr_t)arguments->workspace;
    const byte_range workspace = {first, first + needed_bytes};
    if (call->has_lse && ranges_overlap(range_of(&call->output), range_of(&call->lse))) {
        return attni_mpi_fail(ATTN_ERROR_OVERLAP, "lse: overlaps output");
    }
    list_tensors(call, tensors);
    for (size_t i = 0; first != 0 && i < NUM_TENSORS; ++i) {
        if (tensors[i].tensor != NULL && ranges_overlap(workspace, range_of(tensors[i].tensor))) {
            return attni_mpi_fail(ATTN_ERROR_OVERLAP, "workspace: overlaps %s", tensors[i].name);
        }
    }
    return ATTN_OK;
}
