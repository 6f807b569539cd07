/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_plan.c: sizes of blocks and scratch memory of the fused engine. Pure: shapes, strides and
 * options decide; the number of threads only says how many pieces of scratch memory there are.
 */
#include "fused/fused_plan.h"

#include "base/checked_size.h"
#include "problem/block_mask.h"
#include "problem/block_numbers.h"
#include "problem/quantized_rows.h"

enum {
    ROW_BLOCK_BYTES = 768 << 10, /* of queries and sums of a block of rows; these are used in turn,
                                    so they may exceed the second-level cache */
    KEY_BLOCK_BYTES = 128 << 10, /* of keys and values of a block of keys; these are used by every
                                    panel and may not */
    MAX_PANELS = 16,
    MAX_KEYS = 256, /* of a tile, which should stay close to the first-level cache */
    MIN_KEYS = 96,
    KEY_GRANULE = 8,     /* blocks of keys are multiples of it */
    CHUNK_KEYS = 2048,   /* about so many are summed from a fresh maximum: an item's worth */
    ENOUGH_SPLITS = 32,  /* items below which chunks are spread, so that many threads help */
    ENOUGH_ITEMS = 8,    /* below, blocks are made smaller to have work for several threads */
    EXP_WORK = 16,       /* multiply-adds that take as long as a score's exponential */
    ITEM_WORK = 1 << 14, /* multiply-adds that take as long as starting and ending an item */
    LOOK_WORK = 1 << 10, /* multiply-adds of a row that take as long as looking at its mask */
    ASKED_FOR = 1 << 18, /* bytes of a mask */
    LONG_ITEM = 1 << 17, /* multiply-adds of an item during which memory can be fetched */
    PACKING_PANELS = 3   /* panels that read a block of values: enough to pay for copying it to
                            where its columns are aligned and do not fight for cache lines */
};

static int64_t common_divisor(int64_t a, int64_t b) {
    while (b != 0) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Query heads that use the same key and value head by the shapes: the largest number that divides
 * the groups of both. */
static int64_t group_of_shapes(const attni_sdpa_problem *problem) {
    return common_divisor(problem->key_group, problem->value_group);
}

/* The rows of the extra columns, too, if there are any. */
static bool heads_repeat(const attni_sdpa_problem *problem, const attni_operand *operand,
                         const attni_operand *extra, const attni_quantization *quantization) {
    return operand->strides[problem->batch_rank] == 0 && extra->strides[problem->batch_rank] == 0 &&
           attni_numbers_repeat(quantization, problem->batch_rank);
}

/* The same by where they lie: a head axis of stride 0 is a group of all. */
static int64_t group_of_strides(const attni_sdpa_problem *problem) {
    const bool keys_repeat =
        heads_repeat(problem, &problem->key, &problem->extra_key, &problem->key_quantization);
    const bool values_repeat =
        heads_repeat(problem, &problem->value, &problem->extra_value, &problem->value_quantization);
    const int64_t key_group = keys_repeat ? problem->num_heads : problem->key_group;
    const int64_t value_group = values_repeat ? problem->num_heads : problem->value_group;
    return attni_max(1, common_divisor(key_group, value_group));
}

/* Rows in lanes share keys where they see the same ones of them. */
static int64_t group_of_lanes(const attni_sdpa_problem *problem) {
    return attni_has_blocks(problem) && problem->blocks.strides[problem->batch_rank] != 0
               ? 1
               : group_of_strides(problem);
}

/* Heads of a group would meet in one row of averaged weights. */
static int64_t shaped_group(const attni_sdpa_problem *problem, bool averages) {
    return averages ? 1 : group_of_shapes(problem);
}

static int64_t last_stride(const attni_sdpa_problem *problem, const attni_operand *operand) {
    return operand->strides[problem->batch_rank + 2];
}

static bool is_float32(const attni_operand *operand) {
    return operand->dtype == ATTN_DTYPE_FLOAT32;
}

/* Weights to store are not those that are folded. */
static void choose_folding(const attni_sdpa_problem *problem, attni_fused_plan *plan) {
    const bool may_fold = plan->by_rows && !problem->weights.is_present;
    plan->folds_key_scales =
        may_fold && attni_scales_rows(problem, &problem->key, &problem->key_quantization);
    plan->folds_value_scales =
        may_fold && attni_scales_rows(problem, &problem->value, &problem->value_quantization);
}

/* Rows in lanes meet float32 or pairs of bfloat16, so that what is stored otherwise is widened a
 * block at a time; a few rows read keys and values as they are stored, but for quantised ones. */
static void choose_input_copies(const attni_sdpa_problem *problem, const attni_tile_kernels *tiles,
                                attni_fused_plan *plan) {
    const bool by_floats = !plan->by_rows && !plan->by_pairs;
    const bool has_odd_pair = plan->by_pairs && problem->head_dim % 2 != 0;
    /* What lies in pages is copied, unless a few rows meet it, block by block. */
    const bool gathers = problem->pages.rows > 0 && (!plan->by_rows || problem->weights.is_present);
    choose_folding(problem, plan);
    const bool is_key_quantized = attni_is_quantized(problem->key.dtype) && !plan->folds_key_scales;
    const bool is_value_quantized =
        attni_is_quantized(problem->value.dtype) && !plan->folds_value_scales;
    plan->key_stride = problem->head_dim + (has_odd_pair ? 1 : 0);
    plan->packs_key = gathers || is_key_quantized ||
                      (last_stride(problem, &problem->key) != 1 && problem->head_dim > 1) ||
                      has_odd_pair || (by_floats && !is_float32(&problem->key));
    plan->packs_value =
        gathers || is_value_quantized ||
        (last_stride(problem, &problem->value) != 1 && problem->value_dim > 1) ||
        (!plan->by_rows &&
         (problem->value_dim % tiles->lanes != 0 || !is_float32(&problem->value) ||
          plan->num_vectors >= plan->num_blocks * PACKING_PANELS * ATTNI_PANEL_VECTORS));
    plan->lists_rows =
        problem->pages.rows > 0 && plan->by_rows && !(plan->packs_key && plan->packs_value);
    plan->dequantizes_values = is_value_quantized && !plan->by_rows;
    plan->key_bytes =
        by_floats || is_key_quantized ? (int64_t)sizeof(float) : problem->key.element_bytes;
    plan->value_bytes = plan->by_rows && !is_value_quantized ? problem->value.element_bytes
                                                             : (int64_t)sizeof(float);
}

static void choose_copies(const attni_sdpa_problem *problem, const attni_tile_kernels *tiles,
                          attni_fused_plan *plan) {
    const bool has_weights = problem->weights.is_present;
    choose_input_copies(problem, tiles, plan);
    plan->stages_output = plan->by_rows || plan->spreads || !is_float32(&problem->output) ||
                          (last_stride(problem, &problem->output) != 1 && problem->value_dim > 1);
    plan->sums_averages = plan->averages && !is_float32(&problem->weights);
    plan->stages_weights =
        has_weights && !plan->sums_averages &&
        (last_stride(problem, &problem->weights) != 1 || !is_float32(&problem->weights));
    for (int32_t i = 0; i < ATTNI_MAX_MASKS; ++i) {
        const attni_mask *mask = &problem->masks[i];
        plan->stages_masks |=
            mask->kind != ATTN_MASK_NONE &&
            (mask->columns == ATTNI_COLUMNS_ARE_DISTANCES ||
             mask->strides[problem->batch_rank + 2] != 1 || attni_mask_is_narrow(mask));
    }
}

/* Whether items that follow one another have the same rows of the same masks: heads do, which share
 * a mask, or batches of one group. */
static bool masks_repeat(const attni_sdpa_problem *problem, const attni_fused_plan *plan) {
    bool over_heads = true;
    bool over_batches = true;
    for (int32_t i = 0; i < ATTNI_MAX_MASKS; ++i) {
        const attni_mask *mask = &problem->masks[i];
        over_heads &= mask->strides[problem->batch_rank] == 0;
        for (int32_t axis = 0; axis < problem->batch_rank; ++axis) {
            over_batches &= mask->strides[axis] == 0;
        }
    }
    return plan->num_groups > 1 ? over_heads : over_batches && problem->num_batches > 1;
}

/* Whether masks are looked at makes no difference to numbers in lanes; by rows it may be that of a
 * rounding, and does not depend on the capacity. Masks of a head that do not fit beside everything
 * else are asked for. A table of distances is small, and hides nothing. A block mask has said what
 * there is to see. */
static void choose_sights(const attni_sdpa_problem *problem, attni_fused_plan *plan) {
    bool may_hide = false;
    const double elements = (double)problem->tgt_len * (double)problem->src_len;
    for (int32_t i = 0; i < ATTNI_MAX_MASKS; ++i) {
        const attni_mask *mask = &problem->masks[i];
        const bool is_table = mask->columns == ATTNI_COLUMNS_ARE_DISTANCES;
        plan->has_masks |= mask->kind != ATTN_MASK_NONE;
        if (mask->kind != ATTN_MASK_NONE && !is_table) {
            may_hide = true;
            plan->asks_for_masks |=
                elements * (double)attn_dtype_size_bytes(mask->dtype) >= ASKED_FOR;
        }
    }
    const double row_work =
        (double)problem->src_len * ((double)problem->head_dim + (double)problem->value_dim);
    plan->looks_at_masks = may_hide && !attni_has_blocks(problem) && !problem->weights.is_present &&
                           (plan->by_rows || row_work >= LOOK_WORK);
    plan->asks_for_masks &= plan->looks_at_masks;
    plan->keeps_sights = plan->looks_at_masks && !plan->by_rows && masks_repeat(problem, plan);
    plan->num_tiles = attni_divide_up(problem->src_len, plan->key_block);
}

/* As many keys as fit in the cache. Where tiles begin decides in which order a row's keys are
 * summed, so it follows from the size of a key alone, and a sequence has the same bits in every
 * batch and at every capacity. Weights can be stored only once a row's sum is known, so a panel
 * that has weights to store has all keys in one tile. */
static int64_t choose_key_block(const attni_sdpa_problem *problem, int64_t row_bytes,
                                bool by_rows) {
    if (problem->weights.is_present) {
        return attni_max(1, problem->src_len);
    }
    if (by_rows) {
        return ATTNI_STREAM_KEYS;
    }
    const int64_t most = attni_clamp(KEY_BLOCK_BYTES / attni_max(1, row_bytes), MIN_KEYS, MAX_KEYS);
    return most / KEY_GRANULE * KEY_GRANULE;
}

/* What is summed from a fresh maximum may be summed anywhere: by items of their own, or one after
 * the other. */
static void choose_chunks(const attni_sdpa_problem *problem, attni_fused_plan *plan) {
    const bool is_whole = problem->weights.is_present;
    plan->tile_keys = attni_min(plan->key_block, attni_max(1, problem->src_len));
    plan->chunk_keys =
        is_whole ? plan->key_block : attni_divide_up(CHUNK_KEYS, plan->key_block) * plan->key_block;
    plan->num_chunks = attni_max(1, attni_divide_up(problem->src_len, plan->chunk_keys));
    plan->folds = plan->num_chunks > 1 || (problem->extra_cols > 0 && !is_whole);
}

/* What a block mask may leave apart of a tile, at most, and where panels end for it. */
static void choose_parts(const attni_sdpa_problem *problem, int64_t lanes, attni_fused_plan *plan) {
    const attni_block_mask *blocks = &problem->blocks;
    const bool is_cut = attni_has_blocks(problem) && !plan->by_rows &&
                        blocks->strides[problem->batch_rank + 1] != 0 &&
                        blocks->block_rows < problem->tgt_len;
    const int64_t rows = is_cut ? blocks->block_rows * plan->group : 0;
    plan->panel_rows = rows % lanes == 0 ? rows : 0;
    plan->max_parts = attni_has_blocks(problem) ? plan->tile_keys / blocks->block_columns + 2 : 1;
}

/* Panels of the largest block. */
static int64_t most_panels(int64_t panel_bytes) {
    return attni_clamp(ROW_BLOCK_BYTES / attni_max(1, panel_bytes), 1, MAX_PANELS);
}

/* Blocks of a group's rows: large ones read keys and values less often, small ones give more
 * threads something to do. */
static int64_t choose_blocks(int64_t groups, const attni_fused_plan *plan, int64_t panel_bytes) {
    const int64_t panels = attni_divide_up(plan->num_vectors, ATTNI_PANEL_VECTORS);
    const int64_t fewest_blocks = attni_divide_up(panels, most_panels(panel_bytes));
    const int64_t wanted_blocks = attni_divide_up(ENOUGH_ITEMS, groups);
    return attni_max(fewest_blocks, attni_min(wanted_blocks, attni_max(1, panels / 2)));
}

static int64_t chunked(int64_t cols, int64_t chunk) {
    return attni_divide_up(cols, chunk) * chunk;
}

/* Of a query and its sums, or a key and its value. Only compared, so that the sizes of absurdly
 * long rows need not be right. */
static int64_t row_bytes_of(const attni_sdpa_problem *problem, const attni_fused_plan *plan) {
    return (attni_min(problem->head_dim, INT32_MAX) + attni_min(plan->sum_stride, INT32_MAX)) *
           (int64_t)sizeof(float);
}

/* rows * cols floats; neither is negative. */
static size_t add_floats(attni_layout *layout, int64_t rows, int64_t cols) {
    int64_t row_bytes = 0;
    if (!attni_multiply(cols, (int64_t)sizeof(float), &row_bytes)) {
        layout->overflow = true;
        return 0;
    }
    return attni_layout_add(layout, rows, (size_t)row_bytes);
}

static void lay_out_slot(const attni_sdpa_problem *problem, int64_t lanes, attni_fused_plan *plan,
                         attni_layout *slot) {
    const int64_t width = plan->by_rows ? plan->rows : ATTNI_PANEL_VECTORS * lanes;
    const int64_t block_rows = attni_divide_up(plan->num_vectors, plan->num_blocks) * lanes;
    const int64_t keys = plan->tile_keys + problem->extra_cols;
    const int64_t cuts = plan->panel_rows > 0 ? block_rows / plan->panel_rows + 1 : 0;
    plan->max_panels = plan->by_rows ? 1 : attni_divide_up(block_rows, width) + cuts;
    plan->panels_offset = attni_layout_add(slot, plan->max_panels, sizeof(attni_panel));
    plan->queries_offset = add_floats(slot, block_rows, problem->head_dim);
    plan->sums_offset = add_floats(slot, block_rows, plan->sum_stride);
    plan->folded_offset = add_floats(slot, plan->folds ? block_rows : 0, plan->sum_stride);
    plan->tile_offset = add_floats(slot, keys, width);
    plan->pairs_offset = add_floats(slot, plan->by_pairs ? keys / 2 + plan->max_parts : 0, width);
    plan->parts_offset = attni_layout_add(slot, plan->max_parts, sizeof(attni_tile_keys));
    plan->shown_offset = attni_layout_add(slot, plan->max_parts, sizeof(attni_interval));
    const bool keeps_scores = attni_has_blocks(problem) && plan->has_masks && !plan->by_rows;
    plan->kept_scores_offset = add_floats(slot, keeps_scores ? plan->tile_keys : 0, width);
    plan->key_offset = add_floats(slot, plan->packs_key ? keys : 0, problem->head_dim);
    plan->value_offset = add_floats(slot, plan->packs_value ? keys : 0, plan->sum_stride);
    const bool gathers_values =
        plan->dequantizes_values || (plan->by_pairs && problem->pages.rows > 0);
    const int64_t gathered = gathers_values ? keys : plan->folds_value_scales ? 1 : 0;
    plan->gathered_offset = add_floats(slot, gathered, problem->value_dim);
    plan->lists_offset =
        attni_layout_add(slot, plan->lists_rows ? 2 : 0,
                         (size_t)(plan->tile_keys + ATTNI_STREAM_AHEAD) * sizeof(const void *));
    const bool is_staging = plan->stages_weights || plan->stages_masks;
    plan->staging_offset = add_floats(slot, is_staging ? keys : 0, width);
    plan->averages_offset = add_floats(slot, plan->sums_averages ? block_rows : 0,
                                       problem->src_len + problem->extra_cols);
    plan->kept_key_offset = attni_layout_add(slot, 1, sizeof(attni_sights_key));
    plan->kept_offset = attni_layout_add(slot, plan->keeps_sights ? plan->num_tiles : 0,
                                         (size_t)plan->max_panels * sizeof(attni_tile_sight));
}

/* ---- the steps of a plan ---- */

/* Only a layer has extra columns, and its heads are float32. */
static bool is_of_pairs(const attni_sdpa_problem *problem) {
    return problem->query.dtype == ATTN_DTYPE_BFLOAT16 &&
           problem->key.dtype == ATTN_DTYPE_BFLOAT16 &&
           problem->value.dtype == ATTN_DTYPE_BFLOAT16 && problem->extra_cols == 0;
}

/* What is one row, one tile, one group. */
static void choose_tile(const attni_sdpa_problem *problem, const attni_tile_kernels *tiles,
                        bool has_pairs, attni_fused_plan *plan) {
    plan->averages = problem->weights.is_present && problem->average_weights;
    const int64_t shaped = shaped_group(problem, plan->averages);
    /* Which kernels sum a row may depend on nothing but its sequence's shape. In lanes rows do not
     * meet, so that more of them may share keys wherever they lie. */
    plan->by_rows = shaped * problem->tgt_len <= ATTNI_STREAM_ROWS;
    plan->by_pairs = has_pairs && !plan->by_rows && is_of_pairs(problem);
    plan->group = plan->by_rows || plan->averages ? shaped : group_of_lanes(problem);
    plan->num_groups = problem->num_heads / plan->group;
    plan->rows = plan->group * problem->tgt_len; /* fits: they are rows of output */
    plan->num_vectors = attni_divide_up(plan->rows, tiles->lanes);
    plan->sum_stride = chunked(problem->value_dim, tiles->value_columns);
    plan->key_block = choose_key_block(problem, row_bytes_of(problem, plan), plan->by_rows);
    choose_chunks(problem, plan);
    choose_parts(problem, tiles->lanes, plan);
}

static int64_t panel_bytes_of(const attni_sdpa_problem *problem, int64_t lanes,
                              const attni_fused_plan *plan) {
    return ATTNI_PANEL_VECTORS * lanes * row_bytes_of(problem, plan);
}

/* `groups` of all batches, and of those that are computed with them. */
static int64_t groups_of_call(const attni_sdpa_problem *problem, int64_t groups) {
    int64_t of_call;
    const int64_t of_batch = groups / problem->num_batches;
    return attni_multiply(of_batch, problem->call_batches, &of_call) ? of_call : INT64_MAX;
}

/* How `groups` of all batches are cut into items: there need be enough of them in the whole call.
 */
static void choose_items(const attni_sdpa_problem *problem, int64_t groups, int64_t lanes,
                         attni_fused_plan *plan) {
    const int64_t of_call = groups_of_call(problem, groups);
    plan->num_blocks = choose_blocks(of_call, plan, panel_bytes_of(problem, lanes, plan));
    const int64_t items = groups * plan->num_blocks;
    const bool are_few = of_call < attni_divide_up(ENOUGH_SPLITS, plan->num_blocks);
    const double partial_bytes = (double)groups * (double)plan->num_chunks * (double)plan->rows *
                                 (double)(plan->sum_stride + 2) * sizeof(float);
    plan->spreads = plan->num_chunks > 1 && are_few && partial_bytes <= ATTNI_MOST_PARTIALS;
    plan->num_items = items * (plan->spreads ? plan->num_chunks : 1);
    plan->num_merges = plan->spreads ? items : 0;
}

/* Keys of a sequence, where all share one tensor: as if all were equally long. */
static double typical_keys(const attni_sdpa_problem *problem) {
    const bool is_shared = problem->key_starts.is_present || problem->pages.starts.is_present;
    const double sequences = is_shared ? (double)attni_max(1, problem->call_batches) : 1;
    return (double)(problem->src_len + problem->extra_cols) / sequences;
}

/* Whether threads, and memory asked for ahead, pay. */
static void weigh_items(const attn_context *context, const attni_sdpa_problem *problem,
                        attni_fused_plan *plan) {
    const double work = (double)problem->num_batches * (double)problem->num_heads *
                        (double)problem->tgt_len * typical_keys(problem) *
                        ((double)problem->head_dim + (double)problem->value_dim + EXP_WORK);
    plan->work = work + ITEM_WORK * (double)plan->num_items;
    plan->looks_ahead = !plan->by_rows && work / (double)plan->num_items >= LONG_ITEM;
    plan->num_slots =
        plan->work < ATTNI_SERIAL_WORK ? 1 : attni_context_slots(context, plan->num_items);
}

static void lay_out(const attni_sdpa_problem *problem, int64_t groups, int64_t lanes,
                    attni_fused_plan *plan, attni_layout *layout) {
    attni_layout slot = {0};
    lay_out_slot(problem, lanes, plan, &slot);
    layout->overflow = slot.overflow;
    plan->slot_bytes = slot.bytes;
    const int64_t extra = problem->extra_cols > 0 ? 1 : 0;
    const int64_t partials = plan->spreads ? groups * (plan->num_chunks + extra) : 0;
    plan->partials_offset = add_floats(layout, partials * plan->rows, plan->sum_stride + 2);
    plan->partials_bytes = layout->bytes - plan->partials_offset;
    plan->slots_offset = attni_layout_add(layout, plan->num_slots, plan->slot_bytes);
}

attn_status attni_fused_make_plan(const attn_context *context, const attni_sdpa_problem *problem,
                                  attni_fused_plan *plan, attni_layout *layout) {
    const attni_kernel_set *kernels = attni_context_kernels(context);
    const attni_tile_kernels *tiles = kernels->tiles;
    const bool may_pair = kernels->pairs != NULL && !attni_context_float32_weights(context);
    choose_tile(problem, tiles, may_pair, plan);
    const int64_t groups = problem->num_batches * (plan->averages ? 1 : plan->num_groups);
    if (!problem->rows_are_written || plan->rows == 0 || groups == 0) {
        return ATTN_OK;
    }
    if (plan->key_block > INT32_MAX) {
        return attni_fail(ATTN_ERROR_OVERFLOW,
                          "weights: expected at most 2^31 - 1 keys where weights are stored, got "
                          "S=%lld",
                          (long long)problem->src_len);
    }
    choose_items(problem, groups, tiles->lanes, plan);
    choose_copies(problem, tiles, plan);
    choose_sights(problem, plan);
    weigh_items(context, problem, plan);
    lay_out(problem, groups, tiles->lanes, plan, layout);
    plan->row_block =
        attni_min(plan->rows, attni_divide_up(plan->num_vectors, plan->num_blocks) * tiles->lanes);
    plan->packs = (plan->packs_key ? ATTNI_PACKS_KEY : 0) |
                  (plan->packs_value ? ATTNI_PACKS_VALUE : 0) | ATTNI_PACKS_QUERY |
                  (plan->stages_output ? ATTNI_PACKS_OUTPUT : 0);
    return ATTN_OK;
}

/* ---- calls of many runs ---- */

/* A slot of any run whose rows stand in lanes: its blocks have as many rows as there are, or as
 * blocks ever have. */
static size_t most_lane_bytes(const attni_sdpa_problem *problem, int64_t lanes,
                              const attni_fused_plan *plan, attni_layout *layout) {
    attni_fused_plan most = *plan;
    attni_layout slot = {0};
    const int64_t vectors = most_panels(panel_bytes_of(problem, lanes, plan)) * ATTNI_PANEL_VECTORS;
    most.num_blocks = 1;
    most.num_vectors = attni_min(plan->num_vectors, vectors);
    most.packs_value = true;
    most.keeps_sights = plan->has_masks;
    lay_out_slot(problem, lanes, &most, &slot);
    layout->overflow |= slot.overflow;
    return slot.bytes;
}

/* A slot of any run of a few rows: that of the most of them. */
static size_t most_row_bytes(const attn_context *context, const attni_sdpa_problem *problem,
                             bool averages, attni_layout *layout) {
    attni_sdpa_problem few = *problem;
    attni_fused_plan plan = {0};
    attni_layout of_few = {0};
    few.tgt_len = attni_min(problem->tgt_len, ATTNI_STREAM_ROWS / shaped_group(problem, averages));
    if (few.tgt_len > 0) {
        (void)attni_fused_make_plan(context, &few, &plan, &of_few);
    }
    layout->overflow |= of_few.overflow;
    return plan.slot_bytes;
}

attni_fused_bounds attni_fused_bound_runs(const attn_context *context,
                                          const attni_sdpa_problem *problem,
                                          const attni_fused_plan *plan, attni_layout *layout) {
    const int64_t lanes = attni_context_kernels(context)->tiles->lanes;
    const size_t by_lanes = plan->by_rows ? 0 : most_lane_bytes(problem, lanes, plan, layout);
    const size_t by_rows = most_row_bytes(context, problem, plan->averages, layout);
    const double partials = (double)problem->num_heads * (double)problem->tgt_len *
                            (double)attni_divide_up(problem->src_len, CHUNK_KEYS) *
                            (double)(plan->sum_stride + 2) * sizeof(float);
    return (attni_fused_bounds){
        .slot_bytes = by_lanes > by_rows ? by_lanes : by_rows,
        .partials_bytes = partials < ATTNI_MOST_PARTIALS ? (size_t)partials : ATTNI_MOST_PARTIALS,
    };
}
