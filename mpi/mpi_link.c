/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_link.c: a communicator's duplicate, hung on it as an attribute.
 */
#include "mpi_link.h"

#include <pthread.h>
#include <stdlib.h>

static int is_running(void) {
    int initialized = 0, finalized = 0;
    MPI_Initialized(&initialized);
    if (initialized) {
        MPI_Finalized(&finalized);
    }
    return initialized && !finalized;
}

/* MPI_Finalize frees what is left by itself, and may delete attributes when nothing may be called any
 * more. */
static void disconnect_link(attni_mpi_link *link) {
    if (!is_running()) {
        return;
    }
    if (link->unit != MPI_DATATYPE_NULL) {
        MPI_Type_free(&link->unit);
    }
    if (link->group.comm != MPI_COMM_NULL) {
        MPI_Comm_free(&link->group.comm);
    }
}

static int delete_link(MPI_Comm comm, int keyval, void *value, void *extra) {
    (void)comm;
    (void)keyval;
    (void)extra;
    disconnect_link(value);
    free(value);
    return MPI_SUCCESS;
}

/* The key that links hang on: one for the process, made by the first call. A duplicate that the
 * program makes gets a link of its own. */
static attn_status find_key(int *key) {
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static int made = MPI_KEYVAL_INVALID;
    int code = MPI_SUCCESS;
    pthread_mutex_lock(&mutex);
    if (made == MPI_KEYVAL_INVALID) {
        code = MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, delete_link, &made, NULL);
    }
    *key = made;
    pthread_mutex_unlock(&mutex);
    return attni_mpi_result("MPI_Comm_create_keyval", code);
}

static attn_status check_communicator(MPI_Comm comm) {
    if (!is_running()) {
        return attni_mpi_fail(ATTN_MPI_ERROR_STATE,
                              "comm: expected MPI to be initialised and not finalised");
    }
    if (comm == MPI_COMM_NULL) {
        return attni_mpi_fail(ATTN_MPI_ERROR_STATE, "comm: expected a communicator, got "
                                                    "MPI_COMM_NULL");
    }
    int is_between_groups = 0;
    ATTNI_MPI_TRY(
        attni_mpi_result("MPI_Comm_test_inter", MPI_Comm_test_inter(comm, &is_between_groups)));
    if (is_between_groups) {
        return attni_mpi_fail(ATTN_MPI_ERROR_STATE,
                              "comm: expected an intracommunicator, got one between two groups");
    }
    return ATTN_OK;
}

/* The program may have set another handler since the last call. */
static attn_status follow_error_handler(MPI_Comm comm, const attni_mpi_link *link) {
    MPI_Errhandler handler;
    ATTNI_MPI_TRY(
        attni_mpi_result("MPI_Comm_get_errhandler", MPI_Comm_get_errhandler(comm, &handler)));
    const attn_status status = attni_mpi_result("MPI_Comm_set_errhandler",
                                                MPI_Comm_set_errhandler(link->group.comm, handler));
    MPI_Errhandler_free(&handler);
    return status;
}

/* What a link needs of MPI itself. */
static attn_status connect_link(MPI_Comm comm, int num_ranks, attni_mpi_link *link) {
    link->group.num_ranks = num_ranks;
    link->group.comm = MPI_COMM_NULL;
    link->unit = MPI_DATATYPE_NULL;
    ATTNI_MPI_TRY(attni_mpi_result("MPI_Comm_dup", MPI_Comm_dup(comm, &link->group.comm)));
    ATTNI_MPI_TRY(
        attni_mpi_result("MPI_Comm_rank", MPI_Comm_rank(link->group.comm, &link->group.rank)));
    ATTNI_MPI_TRY(attni_mpi_result(
        "MPI_Type_contiguous", MPI_Type_contiguous(ATTNI_MPI_UNIT_BYTES, MPI_BYTE, &link->unit)));
    return attni_mpi_result("MPI_Type_commit", MPI_Type_commit(&link->unit));
}

/* A link with its tables, or NULL. */
static attni_mpi_link *allocate_link(int num_ranks) {
    const size_t table = (size_t)num_ranks * sizeof(attni_mpi_place);
    attni_mpi_link *link =
        malloc(sizeof *link + 2 * table + (size_t)num_ranks * sizeof link->lengths[0]);
    if (link != NULL) {
        link->query_places = (attni_mpi_place *)(link + 1);
        link->key_places = link->query_places + num_ranks;
        link->lengths = (int64_t(*)[ATTNI_MPI_NUM_LENGTHS])(link->key_places + num_ranks);
    }
    return link;
}

/* A rank without memory takes part in the duplication all the same, for it is collective. */
static attn_status make_link(MPI_Comm comm, int key, attni_mpi_link **made) {
    int num_ranks;
    ATTNI_MPI_TRY(attni_mpi_result("MPI_Comm_size", MPI_Comm_size(comm, &num_ranks)));
    attni_mpi_link without_tables = {.unit = MPI_DATATYPE_NULL};
    attni_mpi_link *link = allocate_link(num_ranks);
    attni_mpi_link *const used = link != NULL ? link : &without_tables;
    attn_status status = connect_link(comm, num_ranks, used);
    if (status == ATTN_OK && link == NULL) {
        status =
            attni_mpi_fail(ATTN_ERROR_MEMORY, "comm: no memory for a table of %d ranks", num_ranks);
    }
    if (used->unit != MPI_DATATYPE_NULL) {
        status = attni_mpi_agree(&used->group, status);
    }
    if (status == ATTN_OK) {
        status = attni_mpi_result("MPI_Comm_set_attr", MPI_Comm_set_attr(comm, key, link));
    }
    if (status != ATTN_OK) {
        disconnect_link(used);
        free(link);
        link = NULL;
    }
    *made = link;
    return status;
}

attn_status attni_mpi_link_of(MPI_Comm comm, attni_mpi_link **link) {
    int key;
    int is_found = 0;
    ATTNI_MPI_TRY(check_communicator(comm));
    ATTNI_MPI_TRY(find_key(&key));
    ATTNI_MPI_TRY(
        attni_mpi_result("MPI_Comm_get_attr", MPI_Comm_get_attr(comm, key, link, &is_found)));
    return is_found ? follow_error_handler(comm, *link) : make_link(comm, key, link);
}
