/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_parts.c: what a block mask leaves of a tile: the stretches of keys that some row of a panel
 * sees. They stand side by side in the panel's tile, so that what is hidden between them costs
 * nothing. A row's largest score in the tile, and its sums, are those of a tile with all keys in
 * which hidden ones weigh 0: the bits of a dense mask, in lanes.
 */
#include "fused/fused_parts.h"

#include <string.h>

static attni_interval overlap(attni_interval a, attni_interval b) {
    return attni_interval_between(attni_max(a.begin, b.begin), attni_min(a.end, b.end));
}

static attni_block_rows rows_of_group(const attni_fused_item *item, attni_interval rows) {
    return (attni_block_rows){
        .problem = item->engine->problem,
        .batch = item->batch,
        .heads = {item->first_head, item->first_head + item->engine->plan->group},
        .rows = rows,
    };
}

static attni_block_rows rows_of_panel(const attni_fused_item *item, const attni_panel *panel) {
    return rows_of_group(item, (attni_interval){panel->row[0], panel->row[panel->count - 1] + 1});
}

void attni_fused_find_shown(attni_fused_item *item) {
    const attni_panel *last = &item->panels[item->num_panels - 1];
    const attni_block_rows rows = rows_of_group(
        item, (attni_interval){item->panels[0].row[0], last->row[last->count - 1] + 1});
    attni_interval shown = attni_first_shown(&rows, item->block);
    item->num_shown = 0;
    while (shown.begin < shown.end && item->num_shown < item->engine->plan->max_parts) {
        item->shown[item->num_shown++] = shown;
        shown = attni_first_shown(&rows, (attni_interval){shown.end, item->block.end});
    }
}

bool attni_fused_is_shown(const attni_fused_item *item, int64_t key) {
    bool is_shown = false;
    for (int64_t i = 0; i < item->num_shown && !is_shown; ++i) {
        is_shown = key >= item->shown[i].begin && key < item->shown[i].end;
    }
    return is_shown;
}

/* From the first to the last of `keys` that some row of a panel sees. */
static attni_interval shown_to_panel(const attni_fused_item *item, const attni_panel *panel,
                                     attni_interval keys) {
    const attni_block_rows rows = rows_of_panel(item, panel);
    const int64_t begin = attni_first_shown(&rows, keys).begin;
    return attni_interval_between(begin, attni_past_shown(&rows, keys));
}

void attni_fused_trim_to_blocks(const attni_fused_item *item) {
    for (int64_t p = 0; p < item->num_panels && attni_has_blocks(item->engine->problem); ++p) {
        attni_panel *panel = &item->panels[p];
        panel->seen = shown_to_panel(item, panel, panel->seen);
    }
}

/* A panel's end is one of its keys, unless another thread wrote the mask: it is needed all the
 * same, since results are stored there. */
attni_interval attni_fused_shown_block(const attni_fused_item *item, attni_interval block) {
    attni_interval shown = {block.end, block.begin};
    for (int64_t p = 0; p < item->num_panels; ++p) {
        const attni_panel *panel = &item->panels[p];
        const attni_interval keys = overlap(block, panel->seen);
        attni_interval own = shown_to_panel(item, panel, keys);
        if (keys.begin < keys.end && keys.end == panel->seen.end) {
            own = (attni_interval){own.begin < own.end ? own.begin : keys.begin, keys.end};
        }
        if (own.begin < own.end) {
            shown.begin = attni_min(shown.begin, own.begin);
            shown.end = attni_max(shown.end, own.end);
        }
    }
    return shown;
}

int64_t attni_fused_count_keys(const attni_fused_item *item) {
    const attni_interval block = item->block;
    if (!attni_has_blocks(item->engine->problem)) {
        return item->num_panels * (block.end - block.begin);
    }
    int64_t count = 0;
    for (int64_t p = 0; p < item->num_panels; ++p) {
        const attni_block_rows rows = rows_of_panel(item, &item->panels[p]);
        const attni_interval keys = overlap(block, item->panels[p].seen);
        attni_interval part = attni_first_shown(&rows, keys);
        for (; part.begin < part.end;
             part = attni_first_shown(&rows, (attni_interval){part.end, keys.end})) {
            count += part.end - part.begin;
        }
    }
    return count;
}

static attni_panel_tile whole_tile(const attni_fused_item *item, attni_interval keys) {
    item->parts[0] = (attni_tile_keys){
        .keys =
            keys.begin < keys.end ? keys : (attni_interval){item->block.begin, item->block.begin},
        .count = keys.end - keys.begin,
        .are_shown = true,
    };
    return (attni_panel_tile){item->parts, 1, item->parts[0].count, 0, false};
}

/* The parts of those keys, of which all are shown to some panel, that one panel sees. */
static void add_parts(const attni_fused_item *item, const attni_block_rows *rows,
                      attni_interval keys, attni_panel_tile *tile) {
    const int64_t most = item->engine->plan->max_parts;
    attni_interval part = attni_first_shown(rows, keys);
    while (part.begin < part.end && tile->num_parts < most) {
        item->parts[tile->num_parts] = (attni_tile_keys){
            .keys = part,
            .count = part.end - part.begin,
            .first = tile->count,
            .number = tile->num_parts,
            .are_shown = attni_all_are_shown(rows, part),
        };
        tile->count += part.end - part.begin;
        tile->num_parts += 1;
        part = attni_first_shown(rows, (attni_interval){part.end, keys.end});
    }
}

attni_panel_tile attni_fused_cut_tile(const attni_fused_item *item, const attni_panel *panel,
                                      attni_interval keys) {
    if (!attni_has_blocks(item->engine->problem)) {
        return whole_tile(item, keys);
    }
    const attni_block_rows rows = rows_of_panel(item, panel);
    attni_panel_tile tile = {.parts = item->parts};
    for (int64_t i = 0; i < item->num_shown; ++i) {
        add_parts(item, &rows, overlap(item->shown[i], keys), &tile);
    }
    return tile.num_parts > 0 ? tile : whole_tile(item, (attni_interval){0, 0});
}

/* Whether the rows of two lanes are those of one block in each column of blocks. */
static bool share_blocks(const attni_fused_item *item, const attni_panel *panel, int32_t lane,
                         int32_t other) {
    const attni_block_mask *blocks = &item->engine->problem->blocks;
    const int64_t *strides = &blocks->strides[item->engine->problem->batch_rank];
    return (strides[0] == 0 || panel->head[lane] == panel->head[other]) &&
           (strides[1] == 0 ||
            panel->row[lane] / blocks->block_rows == panel->row[other] / blocks->block_rows);
}

/* Rows ascend from lane to lane, and heads of a group that stand in lanes share their blocks. */
static void read_column(const attni_fused_item *item, const attni_panel *panel, int64_t key,
                        int32_t blocks[ATTNI_PANEL_LANES]) {
    const bool are_alike = share_blocks(item, panel, 0, panel->width - 1);
    for (int32_t lane = 0; lane < panel->width; ++lane) {
        const bool is_same = lane > 0 && (are_alike || share_blocks(item, panel, lane, lane - 1));
        blocks[lane] = is_same ? blocks[lane - 1]
                               : attni_block_at(item->engine->problem, item->batch,
                                                panel->head[lane], panel->row[lane], key);
    }
}

int64_t attni_fused_read_blocks(const attni_fused_item *item, const attni_panel *panel,
                                attni_interval keys, int32_t blocks[ATTNI_PANEL_LANES]) {
    const attni_sdpa_problem *problem = item->engine->problem;
    const size_t bytes = (size_t)panel->width * sizeof *blocks;
    int32_t next[ATTNI_PANEL_LANES];
    read_column(item, panel, keys.begin, blocks);
    int64_t past = attni_past_block(problem, keys.begin);
    while (past < keys.end) {
        read_column(item, panel, past, next);
        if (memcmp(next, blocks, bytes) != 0) {
            return past;
        }
        past = attni_past_block(problem, past);
    }
    return keys.end;
}
