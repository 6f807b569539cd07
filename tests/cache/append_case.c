/* SPDX-License-Identifier: BSD-3-Clause
 *
 * append_case.c: builds random calls of attn_kv_append. Elements are placed here by what kv.h says.
 */
#include "append_case.h"

#include <stdlib.h>
#include <string.h>

enum { TENSORS, STARTS, PAGES, FLAT };

static int64_t draw(append_case *built, int64_t lowest, int64_t highest) {
    return random_between(&built->random, lowest, highest);
}

static attn_tensor *add_integers(append_case *built, int32_t rank, int64_t a, int64_t b) {
    const int64_t shape[] = {a, b};
    const int32_t dtype = draw(built, 0, 1) == 0 ? ATTN_DTYPE_INT64 : ATTN_DTYPE_INT32;
    const enum tensor_layout layout = draw(built, 0, 1) == 0 ? LAYOUT_CONTIGUOUS : LAYOUT_STEP_TWO;
    return pool_input(&built->pool, dtype, rank, shape, layout);
}

static void choose_sizes(append_case *built) {
    built->kind = (int)draw(built, TENSORS, FLAT);
    built->batch = draw(built, 1, MOST_APPEND_SEQUENCES);
    built->page = draw(built, 1, 9);
    built->is_ragged = draw(built, 0, 1) == 1;
    const int64_t common_room = draw(built, 0, 30), common_rows = draw(built, 0, common_room);
    for (int64_t b = 0; b < built->batch; ++b) {
        const int has_own = built->kind == STARTS || built->kind == FLAT;
        built->rooms[b] = has_own ? draw(built, common_rows, 30) : common_room;
        if (built->kind >= PAGES) {
            built->rooms[b] = (built->rooms[b] + built->page - 1) / built->page * built->page;
        }
        built->rows[b] = built->is_ragged ? draw(built, 0, built->rooms[b]) : common_rows;
    }
}

/* New rows go to different places; with positions some are skipped, else they end at the length. */
static void choose_places(append_case *built) {
    attn_tensor *lengths = add_integers(built, 1, built->batch, 0);
    const int has_positions = draw(built, 0, 1) == 1;
    for (int64_t b = 0; b < built->batch; ++b) {
        const int64_t length = draw(built, built->rows[b], built->rooms[b]);
        oracle_store_integer(lengths, &b, length);
        int64_t next = 0;
        for (int64_t i = 0; i < built->rows[b]; ++i) {
            const int64_t left = built->rooms[b] - next - (built->rows[b] - i);
            const int64_t place = next + draw(built, 0, left);
            built->places[b][i] = has_positions ? place : length - built->rows[b] + i;
            next = place + 1;
            if (has_positions && draw(built, 0, 4) == 0) {
                built->places[b][i] = -draw(built, 1, 1 << 30);
            }
        }
    }
    built->kv.lengths = !has_positions || draw(built, 0, 1) == 1 ? lengths : NULL;
    built->params.positions = has_positions ? lengths : NULL; /* replaced below */
}

static void set_positions(append_case *built) {
    if (built->params.positions == NULL) {
        return;
    }
    const int64_t last = built->batch - 1;
    const int64_t total = built->first_row[last] + built->rows[last] + 1;
    attn_tensor *positions = built->is_ragged
                                 ? add_integers(built, 1, total, 0)
                                 : add_integers(built, 2, built->batch, built->rows[0]);
    if (built->is_ragged) {
        random_fill_integers(positions, &built->random, 1000, 2000); /* of nobody's rows */
    }
    for (int64_t b = 0; b < built->batch; ++b) {
        for (int64_t i = 0; i < built->rows[b]; ++i) {
            const int64_t index[] = {built->is_ragged ? built->first_row[b] + i : b, i};
            oracle_store_integer(positions, index, built->places[b][i]);
        }
    }
    built->params.positions = positions;
}

/* ---- the cache ---- */

static int64_t set_starts(append_case *built) {
    attn_tensor *starts = add_integers(built, 1, built->batch + 1, 0);
    int64_t next = draw(built, 0, 2);
    for (int64_t b = 0; b <= built->batch; ++b) {
        oracle_store_integer(starts, &b, next);
        if (b < built->batch) {
            built->first_room[b] = next;
            next += built->rooms[b];
        }
    }
    built->kv.starts = starts;
    return next + draw(built, 0, 2);
}

static int64_t places_of(const append_case *built, int64_t sequence) {
    return built->rooms[sequence] / built->page;
}

/* Whether some new row goes to the entry. */
static int is_needed(const append_case *built, int64_t sequence, int64_t entry) {
    for (int64_t i = 0; i < built->rows[sequence]; ++i) {
        const int64_t place = built->places[sequence][i];
        if (place >= 0 && place / built->page == entry) {
            return 1;
        }
    }
    return 0;
}

static int64_t set_pages(append_case *built) {
    int64_t entries = 0, most = 0;
    for (int64_t b = 0; b < built->batch; ++b) {
        built->first_room[b] = entries;
        entries += places_of(built, b);
        most = places_of(built, b) > most ? places_of(built, b) : most;
    }
    const int is_flat = built->kind == FLAT;
    attn_tensor *table =
        is_flat ? add_integers(built, 1, entries, 0) : add_integers(built, 2, built->batch, most);
    const int64_t num_pages = entries + 1;
    for (int64_t b = 0; b < built->batch; ++b) {
        for (int64_t p = 0; p < places_of(built, b); ++p) {
            const int64_t index[] = {is_flat ? built->first_room[b] + p : b, p};
            /* The pages in reverse; where nothing goes, none. */
            const int64_t page = num_pages - 1 - (built->first_room[b] + p);
            oracle_store_integer(table, index, is_needed(built, b, p) ? page : -1 - p);
        }
    }
    built->page_table = table;
    built->kv.page_table = table;
    if (is_flat) {
        attn_tensor *starts = add_integers(built, 1, built->batch + 1, 0);
        for (int64_t b = 0; b <= built->batch; ++b) {
            oracle_store_integer(starts, &b, b < built->batch ? built->first_room[b] : entries);
        }
        built->kv.page_starts = starts;
    }
    return num_pages;
}

static void place_of(const append_case *built, int64_t sequence, int64_t head, int64_t row,
                     int64_t feature, int64_t index[4]) {
    const int64_t of_tensor[] = {sequence, head, row, feature};
    const int64_t of_starts[] = {head, built->first_room[sequence] + row, feature, 0};
    if (built->kind == STARTS) {
        memcpy(index, of_starts, sizeof of_starts);
        return;
    }
    memcpy(index, of_tensor, sizeof of_tensor);
    if (built->kind >= PAGES) {
        const int64_t entry[] = {
            built->kind == FLAT ? built->first_room[sequence] + row / built->page : sequence,
            row / built->page};
        index[0] = oracle_integer(built->page_table, entry);
        index[2] = row % built->page;
    }
}

static int64_t flat_index(const attn_tensor *tensor, const int64_t *index) {
    int64_t flat = 0;
    for (int32_t axis = 0; axis < tensor->rank; ++axis) {
        flat = flat * tensor->shape[axis] + index[axis];
    }
    return flat;
}

static void expect(append_case *built, int part) {
    const attn_tensor *cached = built->cached[part], *rows = built->new_rows[part];
    const int64_t heads = rows->shape[rows->rank - 3], features = rows->shape[rows->rank - 1];
    built->expected[part] = oracle_expand(cached, cached->rank, cached->shape);
    for (int64_t b = 0; b < built->batch; ++b) {
        const int64_t shape[] = {heads, built->rows[b], features};
        int64_t at[3] = {0};
        if (oracle_count(3, shape) == 0) {
            continue;
        }
        do {
            int64_t index[4];
            const int64_t of_all[] = {at[0], built->first_row[b] + at[1], at[2]};
            const int64_t of_own[] = {b, at[0], at[1], at[2]};
            if (built->places[b][at[1]] >= 0) {
                place_of(built, b, at[0], built->places[b][at[1]], at[2], index);
                built->expected[part][flat_index(cached, index)] = oracle_rounded(
                    cached->dtype, oracle_element(rows, built->is_ragged ? of_all : of_own));
            }
        } while (oracle_next_index(3, shape, at));
    }
}

static void add_part(append_case *built, int part, int64_t groups, int64_t cached_rows) {
    static const int32_t dtypes[] = {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_BFLOAT16, ATTN_DTYPE_FLOAT16,
                                     ATTN_DTYPE_FLOAT64};
    const int64_t heads = draw(built, 1, 3), features = draw(built, 0, 40);
    const int64_t last = built->batch - 1;
    const int64_t cached_shape[] = {groups, heads, cached_rows, features};
    const int64_t total = built->first_row[last] + built->rows[last] + 1;
    const int64_t shape[] = {built->batch, heads, built->is_ragged ? total : built->rows[0],
                             features};
    const int is_joined = built->kind == STARTS;
    built->cached[part] =
        pool_output(&built->pool, dtypes[draw(built, 0, 3)], 4 - is_joined,
                    cached_shape + is_joined, (enum tensor_layout)draw(built, 0, 6));
    random_fill(built->cached[part], &built->random, -1, 1, 0);
    built->new_rows[part] =
        pool_input(&built->pool, dtypes[draw(built, 0, 3)], 4 - built->is_ragged,
                   shape + built->is_ragged, (enum tensor_layout)draw(built, 0, 6));
    random_fill(built->new_rows[part], &built->random, -3, 3, 0);
}

void append_case_build(append_case *built, uint64_t seed) {
    memset(built, 0, sizeof *built);
    built->random = random_seeded(seed);
    built->kv.struct_size = sizeof built->kv;
    built->params.struct_size = sizeof built->params;
    choose_sizes(built);
    int64_t next = 1;
    for (int64_t b = 0; b < built->batch; ++b) {
        built->first_row[b] = next;
        next += built->rows[b];
    }
    choose_places(built);
    set_positions(built);
    if (built->is_ragged) {
        attn_tensor *starts = add_integers(built, 1, built->batch + 1, 0);
        for (int64_t b = 0; b <= built->batch; ++b) {
            oracle_store_integer(starts, &b, b < built->batch ? built->first_row[b] : next);
        }
        built->params.starts = starts;
    }
    int64_t groups = built->batch, cached_rows = built->rooms[0];
    if (built->kind == STARTS) {
        cached_rows = set_starts(built);
    } else if (built->kind >= PAGES) {
        groups = set_pages(built);
        cached_rows = built->page;
    }
    for (int part = 0; part < 2; ++part) {
        add_part(built, part, groups, cached_rows);
        expect(built, part);
    }
    built->kv.key = built->cached[0];
    built->kv.value = built->cached[1];
}

void append_case_destroy(append_case *built) {
    free(built->expected[0]);
    free(built->expected[1]);
    pool_destroy(&built->pool);
}
