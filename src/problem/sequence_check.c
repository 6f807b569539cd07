/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sequence_check.c: reads the numbers that say where sequences are, before anything is written.
 */
#include "problem/sequence_check.h"

#include "base/checked_size.h"
#include "problem/batch_sequence.h"
#include "problem/block_mask.h"
#include "problem/block_mask_check.h"
#include "problem/query_runs.h"
#include "tensor/element.h"

attn_status attni_check_starts(const char *name, const attni_operand *starts, int64_t sequences,
                               int64_t total) {
    const int64_t last = starts->strides[0] == 0 ? 0 : sequences; /* one that repeats is one */
    int64_t lowest = 0;
    for (int64_t i = 0; starts->is_present && i <= last; ++i) {
        const int64_t start = attni_read_index(starts->data, i * starts->strides[0], starts->dtype);
        if (start < lowest || start > total) {
            return attni_fail(ATTN_ERROR_VALUE,
                              "%s: expected %lld%s to %lld, got %lld at element %lld", name,
                              (long long)lowest, i == 0 ? "" : " (the element before it)",
                              (long long)total, (long long)start, (long long)i);
        }
        lowest = start;
    }
    return ATTN_OK;
}

/* Of a sequence that has its own number of rows. */
static attn_status check_length(const attni_input_views *inputs, const attni_sdpa_problem *problem,
                                int64_t batch) {
    attni_sdpa_problem whole = *problem;
    whole.key_lengths.is_present = false;
    whole.src_len = INT64_MAX;
    const int64_t rows = attni_batch_sequence(&whole, batch).visibility.key_length;
    if (!problem->key_lengths.is_present) {
        return rows <= problem->src_len
                   ? ATTN_OK
                   : attni_fail(ATTN_ERROR_VALUE,
                                "%s: expected at most S=%lld keys (the columns of mask, bias and "
                                "weights), got %lld in sequence %lld",
                                inputs->names[ATTNI_KEY_PLACES], (long long)problem->src_len,
                                (long long)rows, (long long)batch);
    }
    const int64_t most = attni_min(rows, problem->src_len);
    const int64_t length =
        attni_read_index(problem->key_lengths.data, batch * problem->key_lengths.strides[0],
                         problem->key_lengths.dtype);
    if (length < 0 || length > most) {
        return attni_fail(ATTN_ERROR_VALUE, "%s: expected 0 to %lld, got %lld in sequence %lld",
                          inputs->lengths_name, (long long)most, (long long)length,
                          (long long)batch);
    }
    return ATTN_OK;
}

static attn_status check_lengths(const attni_input_views *inputs,
                                 const attni_sdpa_problem *problem) {
    const attni_operand *starts =
        problem->key_starts.is_present ? &problem->key_starts : &problem->pages.starts;
    const bool are_alike = starts->strides[0] == 0 && problem->key_lengths.strides[0] == 0;
    const int64_t distinct = are_alike ? attni_min(1, problem->num_batches) : problem->num_batches;
    for (int64_t batch = 0; starts->is_present && batch < distinct; ++batch) {
        ATTNI_TRY(check_length(inputs, problem, batch));
    }
    return ATTN_OK;
}

attn_status attni_check_page(const attni_kv_names *names, const attni_sdpa_problem *problem,
                             const attni_sequence *sequence, int64_t place) {
    const int64_t page = attni_page_entry(problem, sequence, place);
    if (page < 0 || page >= problem->pages.count) {
        return attni_fail(ATTN_ERROR_VALUE,
                          "%s: expected the number of one of %lld pages, got %lld at entry %lld of "
                          "sequence %lld",
                          names->of[ATTNI_KV_PAGE_TABLE], (long long)problem->pages.count,
                          (long long)page, (long long)place, (long long)sequence->batch);
    }
    return ATTN_OK;
}

/* The pages of a sequence that hold the keys `seen`. */
static attn_status check_pages(const attni_kv_names *names, const attni_sdpa_problem *problem,
                               const attni_sequence *sequence, attni_interval seen) {
    const int64_t end = attni_divide_up(seen.end, problem->pages.rows);
    for (int64_t place = seen.begin / problem->pages.rows; place < end; ++place) {
        ATTNI_TRY(attni_check_page(names, problem, sequence, place));
    }
    return ATTN_OK;
}

/* The same of the keys that some head sees of `rows`, which are alike for the block mask. `batch`
 * is the sequence's in the run. */
static attn_status check_shown_pages(const attni_kv_names *names, const attni_sdpa_problem *run,
                                     const attni_sequence *sequence, int64_t batch,
                                     attni_interval rows) {
    const attni_block_rows of = {run, batch, {0, run->num_heads}, rows};
    const attni_interval seen = attni_rows_union(&sequence->visibility, rows.begin, rows.end);
    attni_interval shown = attni_first_shown(&of, seen);
    for (; shown.begin < shown.end;
         shown = attni_first_shown(&of, (attni_interval){shown.end, seen.end})) {
        ATTNI_TRY(check_pages(names, run, sequence, shown));
    }
    return ATTN_OK;
}

/* The pages of the keys of a sequence that are read: those that some row sees, or all that have a
 * score before the mask. */
static attn_status check_read_pages(const attni_kv_names *names, const attni_sdpa_problem *run,
                                    const attni_sequence *sequence, int64_t batch) {
    if (run->scores.is_present && run->score_stage != ATTN_SCORE_MASKED) {
        return check_pages(names, run, sequence,
                           (attni_interval){0, sequence->visibility.key_length});
    }
    const int64_t rows = attni_has_blocks(run) ? run->blocks.block_rows : run->tgt_len;
    for (int64_t row = 0; row < run->tgt_len; row = attni_saturating_add(row, rows)) {
        const int64_t end = attni_min(attni_saturating_add(row, rows), run->tgt_len);
        ATTNI_TRY(check_shown_pages(names, run, sequence, batch, (attni_interval){row, end}));
    }
    return ATTN_OK;
}

/* Pages of other keys may lie anywhere. */
static attn_status check_all_pages(const attni_kv_names *names, const attni_sdpa_problem *problem) {
    attni_query_runs runs = attni_query_runs_of(problem);
    attni_sdpa_problem run;
    while (attni_next_run(&runs, &run)) {
        for (int64_t batch = 0; batch < run.num_batches && run.tgt_len > 0; ++batch) {
            attni_sequence sequence = attni_batch_sequence(&run, batch);
            sequence.batch += runs.first; /* for messages */
            ATTNI_TRY(check_read_pages(names, &run, &sequence, batch));
        }
    }
    return ATTN_OK;
}

attn_status attni_check_sequences(const attni_input_views *inputs,
                                  const attni_sdpa_problem *problem) {
    const attni_pages *pages = &problem->pages;
    const int64_t sequences = problem->num_batches;
    ATTNI_TRY(
        attni_check_starts("query_starts", &problem->query_starts, sequences, problem->tgt_len));
    ATTNI_TRY(attni_check_block_rows(problem));
    if (inputs->kv_names == NULL) {
        return ATTN_OK;
    }
    const char *const *names = inputs->kv_names->of;
    ATTNI_TRY(attni_check_starts(names[ATTNI_KV_STARTS], &problem->key_starts, sequences,
                                 problem->key_rows));
    ATTNI_TRY(attni_check_starts(names[ATTNI_KV_PAGE_STARTS], &pages->starts, sequences,
                                 pages->num_entries));
    ATTNI_TRY(check_lengths(inputs, problem));
    const bool reads_keys = problem->rows_are_written || problem->scores.is_present;
    return pages->rows > 0 && reads_keys ? check_all_pages(inputs->kv_names, problem) : ATTN_OK;
}
