/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_runs.c: the items of many runs as one list. What a run is takes a few numbers; the call and
 * the plan that follow from them are made anew in a slot when it comes to the run, which it does
 * once, since items are dealt in order.
 */
#include "fused/fused_runs.h"

#include "base/checked_size.h"
#include "fused/fused_engine.h"
#include "fused/fused_merge.h"
#include "problem/query_runs.h"

/* A run in the list. Numbers that another thread may write meanwhile are those that were read when
 * the list was made. */
typedef struct listed_run {
    int64_t first; /* sequence */
    int64_t sequences;
    attni_interval rows;   /* of the first sequence */
    attni_interval chunks; /* see attni_fused_engine */
    int64_t first_item;    /* of the list */
    int64_t first_merge;
    size_t partials_offset;
    bool begins_wave; /* its partials take the place of those before */
} listed_run;

typedef struct run_list {
    attn_context *context;
    const attni_sdpa_problem *problem;
    const attni_fused_runs_plan *plan;
    char *scratch;
    listed_run *runs;
    int64_t num_runs;
    int64_t num_items;
    int64_t num_merges;
} run_list;

/* The runs [begin, end) of a list, whose partials are in memory together. */
typedef struct run_wave {
    const run_list *list;
    int64_t begin;
    int64_t end;
} run_wave;

/* A slot's memory begins with the run that its items are of. */
typedef struct slot_run {
    int64_t number; /* in the list; -1: none yet */
    attni_sdpa_problem problem;
    attni_fused_plan plan;
    attni_fused_engine engine;
} slot_run;

static size_t aligned(size_t bytes) {
    return (bytes + ATTNI_ALIGNMENT - 1) / ATTNI_ALIGNMENT * ATTNI_ALIGNMENT;
}

/* ---- plans ---- */

static void lay_out(attni_fused_runs_plan *plan, size_t slot_bytes, attni_layout *layout) {
    plan->slot_bytes = aligned(sizeof(slot_run)) + slot_bytes;
    plan->runs_offset = attni_layout_add(layout, plan->num_runs, sizeof(listed_run));
    plan->partials_offset = attni_layout_add(layout, 1, plan->partials_bytes);
    plan->slots_offset = attni_layout_add(layout, plan->num_slots, plan->slot_bytes);
}

/* Runs without rows are not in the list. */
static int64_t most_runs(const attni_sdpa_problem *whole) {
    return attni_min(whole->call_batches, whole->tgt_len);
}

void attni_fused_bound_runs_plan(const attn_context *context, const attni_sdpa_problem *whole,
                                 const attni_fused_plan *plan, attni_layout *layout) {
    *layout = (attni_layout){0};
    if (plan->num_items == 0) {
        return;
    }
    const attni_fused_bounds bounds = attni_fused_bound_runs(context, whole, plan, layout);
    attni_fused_runs_plan most = {
        .num_runs = most_runs(whole),
        .num_slots = attni_context_slots(context, INT64_MAX),
        .partials_bytes = bounds.partials_bytes,
    };
    lay_out(&most, bounds.slot_bytes, layout);
    attni_layout_add(layout, most.num_runs, ATTNI_ALIGNMENT); /* between partials */
}

/* Puts a run's partials behind those of others, *end bytes of them, or, where they would be too
 * many, to the start again. Whether it does: then those before must be done with. */
static bool place_partials(size_t bytes, size_t *end) {
    const bool begins_wave = *end + bytes > ATTNI_MOST_PARTIALS;
    *end = begins_wave ? bytes : *end + bytes;
    return begins_wave;
}

attn_status attni_fused_make_runs_plan(const attn_context *context,
                                       const attni_sdpa_problem *problem,
                                       attni_fused_runs_plan *plan, attni_layout *layout) {
    attni_query_runs runs = attni_query_runs_of(problem);
    attni_sdpa_problem run;
    size_t slot_bytes = 0;
    size_t partials_end = 0;
    double work = 0;
    *plan = (attni_fused_runs_plan){0};
    while (attni_next_run(&runs, &run)) {
        attni_fused_plan own = {0};
        ATTNI_TRY(attni_fused_make_plan(context, &run, &own, &(attni_layout){0}));
        if (own.num_items > 0) {
            (void)place_partials(own.partials_bytes, &partials_end);
            plan->num_runs += 1;
            plan->partials_bytes =
                partials_end > plan->partials_bytes ? partials_end : plan->partials_bytes;
            slot_bytes = own.slot_bytes > slot_bytes ? own.slot_bytes : slot_bytes;
            work += own.work;
        }
    }
    if (plan->num_runs > 0) {
        plan->num_slots = work < ATTNI_SERIAL_WORK ? 1 : attni_context_slots(context, INT64_MAX);
        lay_out(plan, slot_bytes, layout);
    }
    return ATTN_OK;
}

/* ---- the list ---- */

static bool has_room(const run_list *list, const attni_fused_plan *own, size_t partials_end) {
    const attni_fused_runs_plan *plan = list->plan;
    return list->num_runs < plan->num_runs && partials_end <= plan->partials_bytes &&
           own->slot_bytes <= plan->slot_bytes - aligned(sizeof(slot_run));
}

static void add_run(run_list *list, const attni_query_runs *runs, const attni_sdpa_problem *run,
                    const attni_fused_plan *own, size_t partials_offset, bool begins_wave) {
    const attni_interval chunks = attni_fused_dealt_chunks(run, own);
    list->runs[list->num_runs++] = (listed_run){
        .first = runs->first,
        .sequences = run->num_batches,
        .rows = runs->rows_of_first,
        .chunks = chunks,
        .first_item = list->num_items,
        .first_merge = list->num_merges,
        .partials_offset = partials_offset,
        .begins_wave = begins_wave,
    };
    const bool merges = chunks.end - chunks.begin > 1;
    list->num_items +=
        attni_fused_engine_of(list->context, run, own, chunks, list->scratch).num_items;
    list->num_merges += merges ? own->num_merges : 0;
}

static attn_status list_runs(run_list *list) {
    attni_query_runs runs = attni_query_runs_of(list->problem);
    attni_sdpa_problem run;
    size_t partials_end = 0;
    while (attni_next_run(&runs, &run)) {
        attni_fused_plan own = {0};
        ATTNI_TRY(attni_fused_make_plan(list->context, &run, &own, &(attni_layout){0}));
        if (own.num_items == 0) {
            continue;
        }
        const bool begins_wave = place_partials(own.partials_bytes, &partials_end);
        if (!has_room(list, &own, partials_end)) {
            return attni_fail(ATTN_ERROR_VALUE,
                              "query_starts: expected nobody to write it during the call");
        }
        add_run(list, &runs, &run, &own, partials_end - own.partials_bytes, begins_wave);
    }
    return ATTN_OK;
}

/* ---- items ---- */

static slot_run *run_in(const run_list *list, int32_t slot) {
    return (slot_run *)(void *)(list->scratch + list->plan->slots_offset +
                                (size_t)slot * list->plan->slot_bytes);
}

/* Makes the slot's run that of this number: its plan with the memory that all share. */
static void enter_run(const run_list *list, int32_t slot, int64_t number) {
    const listed_run *entry = &list->runs[number];
    slot_run *at = run_in(list, slot);
    at->number = number;
    at->problem = attni_run_of(list->problem, entry->first, entry->sequences, entry->rows);
    at->plan = (attni_fused_plan){0};
    /* It succeeded when the list was made, of the same numbers. */
    (void)attni_fused_make_plan(list->context, &at->problem, &at->plan, &(attni_layout){0});
    at->plan.num_slots = list->plan->num_slots;
    at->plan.partials_offset = list->plan->partials_offset + entry->partials_offset;
    at->plan.slots_offset = list->plan->slots_offset + aligned(sizeof(slot_run));
    at->plan.slot_bytes = list->plan->slot_bytes;
    at->engine =
        attni_fused_engine_of(list->context, &at->problem, &at->plan, entry->chunks, list->scratch);
    attni_fused_forget_sights(&at->engine, slot);
}

/* The last run of a wave that begins at or before `index`, by the items' or the merges' numbers. A
 * run without any begins where the next one does. */
static int64_t find_run(const run_wave *wave, int64_t index, bool by_merges) {
    int64_t begin = wave->begin;
    int64_t end = wave->end;
    while (end - begin > 1) {
        const int64_t middle = begin + (end - begin) / 2;
        const listed_run *run = &wave->list->runs[middle];
        if ((by_merges ? run->first_merge : run->first_item) <= index) {
            begin = middle;
        } else {
            end = middle;
        }
    }
    return begin;
}

static const listed_run *go_to_run(const run_wave *wave, int32_t slot, int64_t index,
                                   bool by_merges) {
    const int64_t number = find_run(wave, index, by_merges);
    if (run_in(wave->list, slot)->number != number) {
        enter_run(wave->list, slot, number);
    }
    return &wave->list->runs[number];
}

static void run_item(void *data, int32_t slot, int64_t index) {
    const run_wave *wave = data;
    const int64_t of_list = wave->list->runs[wave->begin].first_item + index;
    const listed_run *run = go_to_run(wave, slot, of_list, false);
    attni_fused_run_item(&run_in(wave->list, slot)->engine, slot, of_list - run->first_item);
}

static void merge_item(void *data, int32_t slot, int64_t index) {
    const run_wave *wave = data;
    const int64_t of_list = wave->list->runs[wave->begin].first_merge + index;
    const listed_run *run = go_to_run(wave, slot, of_list, true);
    attni_fused_merge_item(&run_in(wave->list, slot)->engine, slot, of_list - run->first_merge);
}

/* ---- the whole ---- */

/* From run `begin` on, all before the next that begins a wave. */
static run_wave wave_from(const run_list *list, int64_t begin) {
    int64_t end = begin + 1;
    while (end < list->num_runs && !list->runs[end].begins_wave) {
        ++end;
    }
    return (run_wave){list, begin, end};
}

static attn_status run_wave_of(run_wave *wave) {
    const run_list *list = wave->list;
    const listed_run *first = &list->runs[wave->begin];
    const bool is_last = wave->end == list->num_runs;
    const int64_t past_items = is_last ? list->num_items : list->runs[wave->end].first_item;
    const int64_t past_merges = is_last ? list->num_merges : list->runs[wave->end].first_merge;
    ATTNI_TRY(attni_parallel_items(list->context, list->plan->num_slots,
                                   past_items - first->first_item, run_item, wave));
    return attni_parallel_items(list->context, list->plan->num_slots,
                                past_merges - first->first_merge, merge_item, wave);
}

attn_status attni_fused_run_runs(attn_context *context, const attni_sdpa_problem *problem,
                                 const attni_fused_runs_plan *plan, char *scratch,
                                 int64_t *num_blocks) {
    run_list list = {
        .context = context,
        .problem = problem,
        .plan = plan,
        .scratch = scratch,
    };
    *num_blocks = 0;
    if (plan->num_runs == 0) {
        return ATTN_OK;
    }
    list.runs = (listed_run *)(void *)(scratch + plan->runs_offset);
    ATTNI_TRY(list_runs(&list));
    *num_blocks = list.num_items;
    for (int32_t slot = 0; slot < plan->num_slots; ++slot) {
        run_in(&list, slot)->number = -1;
    }
    for (int64_t begin = 0; begin < list.num_runs;) {
        run_wave wave = wave_from(&list, begin);
        ATTNI_TRY(run_wave_of(&wave));
        begin = wave.end;
    }
    return ATTN_OK;
}
