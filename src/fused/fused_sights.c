/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_sights.c: a mask is looked at before a tile is scored, since reading it takes a hundredth
 * of the time that scores take. Keys at the ends of a tile that it hides from all rows of a panel
 * are left out, all of them if it hides the tile whole: their weights would be 0, so that no number
 * changes. Where it changes no score of the rest it is not applied.
 *
 * Another thread may write a mask between two looks, or between a look and what follows from it.
 * Then the numbers are wrong; what is seen is within the tile in any case.
 */
#include "fused/fused_sights.h"

#include "fused/fused_item.h"
#include "fused/fused_masks.h"
#include "problem/mask_rows.h"

enum { NO_TILE = -1 };

static attni_interval overlap(attni_interval a, attni_interval b) {
    return attni_interval_between(attni_max(a.begin, b.begin), attni_min(a.end, b.end));
}

static attni_interval moved(int64_t begin, int64_t end, int64_t by) {
    return attni_interval_between(begin + by, end + by);
}

/* ---- a tile ---- */

/* Rows that lie in one place stand in neighbouring lanes: heads that share a mask. */
static int32_t drop_repeated(const char **rows, int32_t count) {
    int32_t kept = 1;
    for (int32_t lane = 1; lane < count; ++lane) {
        if (rows[lane] != rows[kept - 1]) {
            rows[kept++] = rows[lane];
        }
    }
    return kept;
}

/* A row that shows and changes the outermost keys leaves nothing to find out. */
static bool is_dense(const attni_fused_item *item, const attni_panel *panel, const attni_mask *mask,
                     attni_interval keys) {
    return attni_mask_shifts(mask, attni_fused_mask_element(item, panel, mask, 0, keys.begin)) &&
           attni_mask_shifts(mask, attni_fused_mask_element(item, panel, mask, 0, keys.end - 1));
}

/* Takes from a sight what a mask hides of it. A table of distances hides none: it is applied. */
static void see_through_mask(const attni_fused_item *item, const attni_panel *panel, int32_t index,
                             attni_tile_sight *sight) {
    const attni_mask *mask = &item->engine->problem->masks[index];
    const attni_interval keys = attni_masked_keys(&item->sequence, mask, sight->keys);
    const char *rows[ATTNI_PANEL_LANES];
    sight->changed[index] = keys;
    if (!item->engine->plan->looks_at_masks || keys.begin >= keys.end ||
        mask->columns == ATTNI_COLUMNS_ARE_DISTANCES || is_dense(item, panel, mask, keys)) {
        return;
    }
    const int32_t count = attni_fused_rows_share_mask(item, mask) ? 1 : panel->count;
    attni_fused_find_mask_rows(item, panel, mask, keys, count, rows);
    const attni_mask_sight seen =
        attni_mask_look(mask, item->engine->kernels->masks, rows, drop_repeated(rows, count),
                        keys.end - keys.begin);
    const attni_interval shown = moved(seen.begin, seen.end, keys.begin);
    const attni_interval changed = moved(seen.changed_begin, seen.changed_end, keys.begin);
    if (sight->keys.begin == keys.begin) {
        sight->keys = shown;
        sight->changed[index] = changed;
        return;
    }
    /* Keys before the mask are seen, and those that it hides behind them stay among what is. */
    const bool hides_first = shown.begin > keys.begin;
    sight->keys.end = attni_max(keys.begin, shown.end);
    sight->changed[index] =
        hides_first ? attni_interval_between(keys.begin, sight->keys.end) : changed;
}

static attni_interval keys_of_tile(const attni_fused_item *item, const attni_panel *panel,
                                   int64_t number) {
    const int64_t first = number * item->engine->plan->key_block;
    return overlap((attni_interval){first, first + item->engine->plan->key_block}, panel->seen);
}

static void look(const attni_fused_item *item, const attni_panel *panel, int64_t number,
                 attni_tile_sight *sight) {
    *sight = (attni_tile_sight){.number = number, .keys = keys_of_tile(item, panel, number)};
    for (int32_t i = 0; i < ATTNI_MAX_MASKS; ++i) {
        if (item->engine->problem->masks[i].kind != ATTN_MASK_NONE) {
            see_through_mask(item, panel, i, sight);
        }
    }
    for (int32_t i = 0; i < ATTNI_MAX_MASKS; ++i) {
        sight->changed[i] = overlap(sight->changed[i], sight->keys);
    }
}

/* Where what a panel saw of a tile is kept, if it is. */
static attni_tile_sight *kept_sight(const attni_fused_item *item, const attni_panel *panel,
                                    int64_t number) {
    return item->kept == NULL
               ? NULL
               : &item->kept[(panel - item->panels) * item->engine->plan->num_tiles + number];
}

static void see(const attni_fused_item *item, const attni_panel *panel, int64_t number,
                attni_tile_sight *sight) {
    attni_tile_sight *kept = kept_sight(item, panel, number);
    if (kept == NULL) {
        look(item, panel, number, sight);
        return;
    }
    if (kept->number != number) {
        look(item, panel, number, kept);
    }
    *sight = *kept;
}

static int64_t number_of(const attni_fused_item *item, attni_interval block) {
    return block.begin / item->engine->plan->key_block;
}

attni_interval attni_fused_see_block(const attni_fused_item *item, attni_panel *panel) {
    const int64_t number = number_of(item, item->block);
    if (!item->engine->plan->has_masks) {
        return overlap(item->block, panel->seen);
    }
    if (panel->sight.number != number) {
        see(item, panel, number, &panel->sight);
    }
    return overlap(item->block, panel->sight.keys);
}

bool attni_fused_sees_next(const attni_fused_item *item, attni_panel *panel, attni_interval block) {
    const int64_t number = number_of(item, block);
    if (panel->next.number != number) {
        see(item, panel, number, &panel->next);
    }
    return panel->next.keys.begin < panel->next.keys.end;
}

/* ---- all that is seen ---- */

/* The last row first, which of masks with structure shows the last keys; then row by row, each only
 * beyond what rows before it show, and in the order of the memory. */
static int64_t past_seen(const attni_fused_item *item, const attni_panel *panel,
                         const attni_mask *mask, attni_interval keys, int32_t count) {
    const attni_kernel_set *kernels = item->engine->kernels;
    const int64_t stride = mask->strides[item->engine->problem->batch_rank + 2];
    int64_t past =
        keys.begin +
        attni_mask_past_shown(mask, kernels,
                              attni_fused_mask_element(item, panel, mask, count - 1, keys.begin),
                              stride, keys.end - keys.begin);
    for (int32_t lane = 0; lane < count - 1 && past < keys.end; ++lane) {
        const char *row = attni_fused_mask_element(item, panel, mask, lane, past);
        const int64_t left = keys.end - past;
        if (attni_mask_first_shown(mask, kernels, row, stride, left) < left) {
            past += attni_mask_past_shown(mask, kernels, row, stride, left);
        }
    }
    return past;
}

static int64_t first_seen(const attni_fused_item *item, const attni_panel *panel,
                          const attni_mask *mask, attni_interval keys, int32_t count) {
    const int64_t stride = mask->strides[item->engine->problem->batch_rank + 2];
    int64_t num_hidden = keys.end - keys.begin;
    for (int32_t lane = 0; lane < count && num_hidden > 0; ++lane) {
        num_hidden = attni_mask_first_shown(
            mask, item->engine->kernels,
            attni_fused_mask_element(item, panel, mask, lane, keys.begin), stride, num_hidden);
    }
    return keys.begin + num_hidden;
}

/* What a mask shows of what is seen. Keys before it are. */
static attni_interval trimmed(const attni_fused_item *item, const attni_panel *panel,
                              const attni_mask *mask) {
    const attni_interval keys = attni_masked_keys(&item->sequence, mask, panel->seen);
    const int32_t count = attni_fused_rows_share_mask(item, mask) ? 1 : panel->count;
    if (keys.begin >= keys.end || mask->columns == ATTNI_COLUMNS_ARE_DISTANCES) {
        return panel->seen;
    }
    const attni_interval left = {keys.begin, past_seen(item, panel, mask, keys, count)};
    const int64_t begin = keys.begin > panel->seen.begin
                              ? panel->seen.begin
                              : first_seen(item, panel, mask, left, count);
    return attni_interval_between(begin, left.end);
}

static void trim_panel(const attni_fused_item *item, attni_panel *panel) {
    const attni_mask *masks = item->engine->problem->masks;
    const int64_t key_block = item->engine->plan->key_block;
    if (panel->seen.begin / key_block == (panel->seen.end - 1) / key_block) {
        attni_fused_sees_next(item, panel, panel->seen);
        panel->seen = panel->next.keys;
        return;
    }
    for (int32_t i = 0; i < ATTNI_MAX_MASKS; ++i) {
        if (masks[i].kind != ATTN_MASK_NONE && panel->seen.begin < panel->seen.end) {
            panel->seen = trimmed(item, panel, &masks[i]);
        }
    }
}

/* ---- what is kept ---- */

static bool is_same(const attni_sights_key *a, const attni_sights_key *b) {
    const attni_visibility *u = &a->visibility;
    const attni_visibility *v = &b->visibility;
    bool is_same = a->block == b->block && a->split == b->split &&
                   u->query_offset == v->query_offset && u->key_length == v->key_length &&
                   u->mask_end == v->mask_end;
    for (int32_t i = 0; i < ATTNI_MAX_MASKS; ++i) {
        is_same &= a->masks[i] == b->masks[i];
    }
    return is_same;
}

static attni_sights_key key_of(const attni_fused_item *item, int64_t block) {
    attni_sights_key key = {.is_valid = true,
                            .block = block,
                            .split = item->split,
                            .visibility = item->sequence.visibility};
    for (int32_t i = 0; i < ATTNI_MAX_MASKS; ++i) {
        key.masks[i] =
            attni_fused_offset(item, item->engine->problem->masks[i].strides, item->first_head);
    }
    return key;
}

bool attni_fused_keeps_sights_of(const attni_fused_item *item, int64_t block) {
    if (!item->engine->plan->keeps_sights) {
        return false;
    }
    const attni_sights_key key = key_of(item, block);
    return item->kept_key->is_valid && is_same(item->kept_key, &key);
}

/* Nothing is kept from now on but of this item. */
static void forget_others(const attni_fused_item *item, int64_t block) {
    *item->kept_key = key_of(item, block);
    for (int64_t i = 0; i < item->num_panels * item->engine->plan->num_tiles; ++i) {
        item->kept[i].number = NO_TILE;
    }
}

void attni_fused_trim_panels(const attni_fused_item *item, int64_t block) {
    if (!item->engine->plan->looks_at_masks) {
        return;
    }
    const bool is_kept = attni_fused_keeps_sights_of(item, block);
    if (item->engine->plan->keeps_sights && !is_kept) {
        forget_others(item, block);
    }
    for (int64_t p = 0; p < item->num_panels; ++p) {
        attni_panel *panel = &item->panels[p];
        if (is_kept) {
            panel->seen = panel->kept_seen;
        } else if (panel->seen.begin < panel->seen.end) {
            trim_panel(item, panel);
        }
        panel->kept_seen = panel->seen;
    }
}

/* ---- what is needed next ---- */

attni_ahead *attni_fused_masks_ahead(attni_fused_item *item, const attni_panel *panel,
                                     attni_interval block, int64_t num_steps, attni_ahead *also) {
    const attni_mask *masks = item->engine->problem->masks;
    const int64_t number = number_of(item, block);
    const attni_tile_sight *kept = kept_sight(item, panel, number);
    const bool is_known = kept != NULL && kept->number == number;
    attni_ahead *first = also;
    for (int32_t i = 0; i < ATTNI_MAX_MASKS; ++i) {
        attni_ahead *rows = &item->masks_ahead[i];
        if (masks[i].kind != ATTN_MASK_NONE) {
            const attni_interval keys =
                is_known ? kept->changed[i] : keys_of_tile(item, panel, number);
            *rows = attni_fused_mask_rows_ahead(
                item, panel, &masks[i], attni_masked_keys(&item->sequence, &masks[i], keys));
            rows->rows_at_once = attni_divide_up(rows->num_rows, num_steps);
            rows->also = first;
            first = rows;
        }
    }
    return first;
}
