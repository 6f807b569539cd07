/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_cache.c: the cache of a forward call: what it must look like beside the layer, and how new
 * rows come into it.
 */
#include "cache/append_check.h"
#include "cache/append_places.h"
#include "cache/append_run.h"
#include "cache/append_scales.h"
#include "multihead/mha_layer.h"
#include "problem/key_source.h"
#include "problem/sdpa_check.h"

bool attni_mha_only_reads(const attni_mha_problem *problem, const attn_tensor *key,
                          const attn_tensor *value) {
    return problem->has_cache && key == NULL && value == NULL;
}

static attn_status fail_sequences(const attni_mha_problem *problem, const char *name,
                                  const attn_tensor *given) {
    char text[ATTNI_SHAPE_TEXT_BYTES];
    return attni_fail(ATTN_ERROR_SHAPE, "%s: expected %s=%lld sequences, got %s", name,
                      problem->has_starts ? "B" : "N", (long long)problem->num_sequences,
                      attni_shape_text(text, given->rank, given->shape));
}

/* Keys or values as the layer makes them, each sequence's own unless all of them only read one. */
static attn_status check_part(const attni_mha_problem *problem, const attni_input_views *inputs,
                              int32_t which, const char *features_name, int64_t features) {
    const attn_tensor *view = inputs->views[which];
    const attn_tensor *given = inputs->given[which];
    const char *name = inputs->names[which];
    const bool has_places = inputs->views[ATTNI_KEY_PLACES] != NULL;
    char text[ATTNI_SHAPE_TEXT_BYTES];
    if (!has_places) {
        const int32_t rank = problem->has_sequences ? 4 : 3;
        ATTNI_TRY(attni_check_rank(name, given, rank, rank));
    }
    const int64_t num_heads = problem->layer->num_kv_heads;
    if (view->shape[view->rank - 3] != num_heads || view->shape[view->rank - 1] != features) {
        return attni_fail(ATTN_ERROR_SHAPE,
                          "%s: expected num_kv_heads=%lld heads of %s=%lld values, got %s", name,
                          (long long)num_heads, features_name, (long long)features,
                          attni_shape_text(text, given->rank, given->shape));
    }
    const bool is_shared = !problem->appends && given->shape[0] == 1;
    return has_places || !problem->has_sequences || is_shared ||
                   given->shape[0] == problem->num_sequences
               ? ATTN_OK
               : fail_sequences(problem, name, given);
}

/* The sequences of a page table or of starts are the call's. */
static attn_status check_places(const attni_mha_problem *problem, const attni_input_views *inputs) {
    const attn_tensor *view = inputs->views[ATTNI_KEY_PLACES];
    if (view == NULL) {
        return ATTN_OK;
    }
    const char *name = inputs->names[ATTNI_KEY_PLACES];
    const attn_tensor *given = inputs->given[ATTNI_KEY_PLACES];
    const int32_t batch_rank = view->rank - 3;
    if (batch_rank != (problem->has_sequences ? 1 : 0)) {
        return attni_fail(ATTN_ERROR_SHAPE, "%s: expected %s, got %d batch axes", name,
                          problem->has_starts   ? "one batch axis, as attention.query_starts has"
                          : problem->is_batched ? "one batch axis, as query has"
                                                : "no batch axis, as query has none",
                          (int)batch_rank);
    }
    const bool is_shared =
        !problem->appends && !inputs->are_starts[ATTNI_KEY_PLACES] && view->shape[0] == 1;
    if (batch_rank == 0 || view->shape[0] == problem->num_sequences || is_shared) {
        return ATTN_OK;
    }
    return inputs->are_starts[ATTNI_KEY_PLACES]
               ? attni_fail_starts(inputs, ATTNI_KEY_PLACES, problem->num_sequences)
               : fail_sequences(problem, name, given);
}

/* S of sequences that have no one number of rows; the mask is still to be checked. */
static int64_t choose_columns(const attni_mha_problem *problem, int64_t key_rows) {
    const attn_tensor *mask = problem->params.key_padding_mask;
    const bool has_columns = mask != NULL && mask->rank > 0 && mask->rank <= ATTN_MAX_RANK &&
                             mask->shape[mask->rank - 1] >= 0;
    return attni_choose_columns(&problem->attention, NULL, problem->extra_cols,
                                has_columns ? mask->shape[mask->rank - 1] : key_rows);
}

attn_status attni_mha_check_cache(attni_mha_problem *problem) {
    if (!problem->has_cache) {
        return ATTN_OK;
    }
    attni_input_views inputs;
    attni_sdpa_problem places = {0};
    attni_start_inputs(&inputs);
    ATTNI_TRY(attni_read_kv(&problem->cache, &attni_names_of_cache, problem->data_rule, &inputs,
                            &places));
    const attn_mha *layer = problem->layer;
    ATTNI_TRY(check_part(problem, &inputs, ATTNI_KEY, "head_dim", layer->head_dim));
    ATTNI_TRY(check_part(problem, &inputs, ATTNI_VALUE, "value_head_dim", layer->value_head_dim));
    ATTNI_TRY(check_places(problem, &inputs));
    if (problem->cache.lengths == NULL) {
        return attni_fail(ATTN_ERROR_NULL,
                          "cache.lengths: expected the rows in use of each sequence, got NULL");
    }
    const attn_tensor *key = inputs.views[ATTNI_KEY];
    const int64_t key_rows = key->shape[key->rank - 2];
    problem->is_ragged = places.key_starts.is_present || places.pages.starts.is_present;
    problem->src_len = problem->is_ragged ? choose_columns(problem, key_rows) : key_rows;
    return ATTN_OK;
}

attn_status attni_mha_plan_append(const attni_mha_problem *problem, attni_mha_plan *plan) {
    if (!problem->appends) {
        return ATTN_OK;
    }
    const attn_tensor key = attni_mha_batched(problem, &plan->key);
    const attn_tensor value = attni_mha_batched(problem, &plan->value);
    const attn_kv_append_params params = {.struct_size = sizeof params,
                                          .starts = problem->attention.query_starts};
    const attni_append_request request = {
        .kv = &problem->cache,
        .kv_names = &attni_names_of_cache,
        .key = &key,
        .value = &value,
        .params = &params,
        .row_data = ATTNI_DATA_IGNORED,
        .kv_data = problem->data_rule,
    };
    ATTNI_TRY(attni_append_check(&request, &plan->append));
    attni_argument tensors[ATTNI_KV_TENSORS];
    attni_kv_list(&attni_names_of_cache, &problem->cache, tensors);
    for (int32_t i = 0; i < ATTNI_KV_TENSORS; ++i) {
        if (attni_append_writes(&problem->cache, i) && tensors[i].tensor != NULL) {
            ATTNI_TRY(attni_check_writable(tensors[i].name, tensors[i].tensor));
        }
    }
    return ATTN_OK;
}

int64_t attni_mha_column_of(const attni_mha_problem *problem, const attni_mha_plan *plan,
                            int64_t sequence, int64_t row) {
    if (!problem->has_cache) {
        return row;
    }
    const attni_append_sequence appended = attni_append_sequence_of(&plan->append, sequence);
    return attni_append_place(&plan->append, &appended, row);
}

attn_status attni_mha_append(attn_context *context, const attni_mha_problem *problem,
                             attni_mha_plan *plan) {
    if (!problem->appends) {
        return ATTN_OK;
    }
    plan->append.parts[ATTNI_NEW_KEYS].from.data = plan->key.data;
    plan->append.parts[ATTNI_NEW_VALUES].from.data = plan->value.data;
    return attni_append_run(context, &plan->append);
}
