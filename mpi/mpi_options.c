/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_options.c: reads params and mpi_params, fills reports.
 */
#include "mpi_options.h"

#include <math.h>
#include <string.h>

/* A struct's size in the release in which `field` was its last. */
#define BYTES_THROUGH(type, field) (offsetof(type, field) + sizeof(((type *)NULL)->field))

/* Structs are made of fields of so many bytes; a size beyond the most was never set. */
enum { FIELD_BYTES = 8, MOST_STRUCT_BYTES = 4096 };

static attn_status check_size(const char *name, uint64_t size, size_t first_bytes) {
    if (size < first_bytes || size > MOST_STRUCT_BYTES) {
        return attni_mpi_fail(ATTN_ERROR_VALUE,
                              "%s: expected struct_size (sizeof the struct) of %zu to %d, got %llu",
                              name, first_bytes, MOST_STRUCT_BYTES, (unsigned long long)size);
    }
    return ATTN_OK;
}

/* By the core library's rule: what the caller's version lacks is zero, what this one does not know
 * must be. */
static attn_status read_struct(const char *name, const void *given, size_t first_bytes,
                               size_t known_bytes, void *known) {
    uint64_t size;
    memset(known, 0, known_bytes);
    if (given == NULL) {
        return ATTN_OK;
    }
    memcpy(&size, given, sizeof size);
    ATTNI_MPI_TRY(check_size(name, size, first_bytes));
    for (uint64_t i = known_bytes; i < size; ++i) {
        if (((const unsigned char *)given)[i] != 0) {
            return attni_mpi_fail(ATTN_ERROR_UNSUPPORTED,
                                  "%s: expected zeroes past byte %zu, which is all this version "
                                  "knows, got an option at byte %llu",
                                  name, known_bytes, (unsigned long long)i);
        }
    }
    const size_t whole_fields = (size_t)size / FIELD_BYTES * FIELD_BYTES;
    memcpy(known, given, whole_fields < known_bytes ? whole_fields : known_bytes);
    return ATTN_OK;
}

/* Each is refused by its own name. */
static attn_status check_refused(const attni_mpi_call *call) {
    const attn_sdpa_params *const params = &call->params;
    const struct {
        const char *name;
        const void *given;
        const char *reason;
    } refused[] = {
        {"weights", params->weights, "a rank has the weights of its own keys only"},
        {"scores", params->scores, "a rank has the scores of its own keys only"},
        {"report", params->report, "mpi_params.report tells of the whole"},
        {"kv", params->kv, "keys and values are tensors with a matrix for each batch and head"},
        {"query_starts", params->query_starts, "a rank's rows are those of every sequence"},
        {"gradients.weights", call->gradients.weights, "no call returns weights"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; ++i) {
        if (refused[i].given != NULL) {
            return attni_mpi_fail(ATTN_ERROR_UNSUPPORTED,
                                  "%s: expected NULL, for over many ranks %s", refused[i].name,
                                  refused[i].reason);
        }
    }
    return ATTN_OK;
}

static attn_status read_dropout(attni_mpi_call *call) {
    const attn_dropout *const given = call->params.dropout;
    if (given == NULL) {
        return ATTN_OK;
    }
    ATTNI_MPI_TRY(read_struct("dropout", given, BYTES_THROUGH(attn_dropout, column),
                              sizeof call->dropout, &call->dropout));
    call->dropout.struct_size = sizeof call->dropout;
    call->params.dropout = &call->dropout;
    return ATTN_OK;
}

attn_status attni_mpi_read_sdpa_params(const attn_sdpa_params *given, attni_mpi_call *call) {
    ATTNI_MPI_TRY(read_struct("params", given, BYTES_THROUGH(attn_sdpa_params, position_bias),
                              sizeof call->params, &call->params));
    call->params.struct_size = sizeof call->params;
    ATTNI_MPI_TRY(check_refused(call));
    return read_dropout(call);
}

attn_status attni_mpi_read_gradients(const attn_sdpa_gradients *given, attni_mpi_call *call) {
    if (given == NULL) {
        return attni_mpi_fail(ATTN_ERROR_NULL, "gradients: expected what is wanted, got NULL");
    }
    ATTNI_MPI_TRY(read_struct("gradients", given, BYTES_THROUGH(attn_sdpa_gradients, sinks),
                              sizeof call->gradients, &call->gradients));
    call->gradients.struct_size = sizeof call->gradients;
    return check_refused(call);
}

static attn_status check_choice(const char *name, int32_t value, int32_t highest) {
    if (value < 0 || value > highest) {
        return attni_mpi_fail(value < 0 ? ATTN_ERROR_VALUE : ATTN_ERROR_UNSUPPORTED,
                              "%s: expected 0 to %d, of enum attn_mpi_%s, got %d", name,
                              (int)highest, name, (int)value);
    }
    return ATTN_OK;
}

static attn_status check_cost(const char *name, double value) {
    if (!(value >= 0) || isinf(value)) {
        return attni_mpi_fail(ATTN_ERROR_VALUE, "%s: expected 0 or a finite number above, got %g",
                              name, value);
    }
    return ATTN_OK;
}

attn_status attni_mpi_check_report(const attn_mpi_report *report) {
    if (report == NULL) {
        return attni_mpi_fail(ATTN_ERROR_NULL, "report: expected a struct to fill, got NULL");
    }
    return check_size("report", report->struct_size, BYTES_THROUGH(attn_mpi_report, reason));
}

attn_status attni_mpi_read_params(const attn_mpi_params *given, attni_mpi_call *call) {
    attn_mpi_params known;
    ATTNI_MPI_TRY(read_struct("mpi_params", given, BYTES_THROUGH(attn_mpi_params, report),
                              sizeof known, &known));
    ATTNI_MPI_TRY(check_choice("scheme", known.scheme, ATTN_MPI_SCHEME_DECODE));
    ATTNI_MPI_TRY(check_choice("placement", known.placement, ATTN_MPI_PLACEMENT_ZIGZAG));
    ATTNI_MPI_TRY(check_cost("latency_seconds", known.latency_seconds));
    ATTNI_MPI_TRY(check_cost("bytes_per_second", known.bytes_per_second));
    ATTNI_MPI_TRY(check_cost("products_per_second", known.products_per_second));
    if (known.report != NULL) {
        ATTNI_MPI_TRY(attni_mpi_check_report(known.report));
    }
    call->scheme = known.scheme;
    call->placement = known.placement;
    call->costs =
        (attni_mpi_costs){known.latency_seconds, known.bytes_per_second, known.products_per_second};
    call->report = known.report;
    return ATTN_OK;
}

void attni_mpi_write_report(const attn_mpi_report *known, attn_mpi_report *report) {
    const uint64_t size = report->struct_size;
    const size_t kept = size < sizeof *known ? (size_t)size : sizeof *known;
    memcpy((char *)report + sizeof size, (const char *)known + sizeof size, kept - sizeof size);
    memset((char *)report + kept, 0, (size_t)size - kept);
}
