/* SPDX-License-Identifier: BSD-3-Clause
 *
 * key_source_places.c: sequences of random length, and their keys in any of the ways of kv.h. What
 * lies where is told here by what kv.h says, row by row.
 */
#include "key_source_places.h"

#include <math.h>
#include <string.h>

#include "property_setup.h"
#include "support/oracle_tensor.h"

static const int64_t page_sizes[] = {1, 16, 17, 128, 3, 32};
static const int64_t most_keys[] = {20, 300, 2300};
const int64_t source_heads_of[4][2] = {{1, 1}, {2, 2}, {4, 1}, {6, 2}};
const int64_t source_features_of[4][2] = {{8, 8}, {40, 24}, {64, 64}, {7, 33}};

int source_level(const source_case *built, enum source_factor which) {
    return built->chosen->level[which];
}

int source_is_ragged(const source_case *built) {
    return source_level(built, SOURCE_ROWS) >= RAGGED_ONE;
}

static int is_paged(const source_case *built) {
    return source_level(built, SOURCE_KIND) >= FIRST_PAGES;
}

static int is_flat(const source_case *built) {
    return source_level(built, SOURCE_KIND) >= FIRST_FLAT;
}

static int64_t page_rows(const source_case *built) {
    return page_sizes[source_level(built, SOURCE_KIND) - FIRST_PAGES];
}

static int64_t pages_of(const source_case *built, int64_t keys) {
    return (keys + page_rows(built) - 1) / page_rows(built);
}

static int64_t largest(int64_t count, const int64_t *numbers) {
    int64_t found = 0;
    for (int64_t i = 0; i < count; ++i) {
        found = numbers[i] > found ? numbers[i] : found;
    }
    return found;
}

/* ---- sizes ---- */

void source_choose_rows(source_case *built) {
    static const int64_t fixed[] = {1, 3, 70, 1};
    const int rows = source_level(built, SOURCE_ROWS);
    int64_t next = 2; /* rows before the first sequence are nobody's */
    for (int64_t b = 0; b < built->batch; ++b) {
        built->rows[b] = rows <= RAGGED_ONE
                             ? fixed[rows]
                             : random_between(&built->random, 0, rows == RAGGED_FEW ? 3 : 75);
        built->first_row[b] = next;
        next += built->rows[b];
    }
}

/* Without lengths a sequence has as many keys as there is room for. */
void source_choose_keys(source_case *built) {
    const int64_t most = most_keys[source_level(built, SOURCE_KEYS)];
    const int fills = source_level(built, SOURCE_LENGTHS) == 1;
    for (int64_t b = 0; b < built->batch; ++b) {
        built->keys[b] = random_between(&built->random, b == 1 ? 0 : most / 2, most);
        if (fills && is_paged(built)) {
            built->keys[b] = pages_of(built, built->keys[b]) * page_rows(built);
        }
    }
    for (int64_t b = 0; b < built->batch && fills; ++b) {
        const int has_own = source_level(built, SOURCE_KIND) == KIND_STARTS || is_flat(built);
        built->keys[b] = has_own ? built->keys[b] : largest(built->batch, built->keys);
    }
}

/* ---- keys and values ---- */

attn_tensor *source_add_integers(source_case *built, int64_t count) {
    const int32_t dtype =
        source_level(built, SOURCE_INDICES) == 0 ? ATTN_DTYPE_INT64 : ATTN_DTYPE_INT32;
    return pool_input(&built->all.pool, dtype, 1, &count, LAYOUT_CONTIGUOUS);
}

void source_store(const attn_tensor *integers, int64_t at, int64_t number) {
    oracle_store_integer(integers, &at, number);
}

/* Rows that the sequence has room for, those of its keys included. */
static int64_t room_of(const source_case *built, int64_t sequence) {
    return built->keys[sequence] + (source_level(built, SOURCE_LENGTHS) == 0 ? sequence % 3 : 0);
}

static int64_t lay_out_starts(source_case *built) {
    attn_tensor *starts = source_add_integers(built, built->batch + 1);
    int64_t next = 1;
    for (int64_t b = 0; b < built->batch; ++b) {
        source_store(starts, b, next);
        built->first_key[b] = next;
        next += room_of(built, b);
    }
    source_store(starts, built->batch, next);
    built->all.kv.starts = starts;
    return next + 1;
}

/* Pages in random order; entries that no key needs are -1 or far out. Returns how many pages there
 * are. */
static int64_t lay_out_pages(source_case *built) {
    int64_t places[MOST_SEQUENCES + 1] = {0};
    for (int64_t b = 0; b < built->batch; ++b) {
        places[b] = pages_of(built, room_of(built, b));
    }
    const int64_t most = largest(built->batch, places);
    int64_t entries = 0;
    for (int64_t b = 0; b < built->batch; ++b) {
        built->first_key[b] = is_flat(built) ? entries : b * most;
        entries += is_flat(built) ? places[b] : most;
    }
    int64_t order[8192];
    const int64_t num_pages = entries + 2;
    random_order(&built->random, num_pages, order);
    attn_tensor *table = source_add_integers(built, entries);
    for (int64_t i = 0; i < entries; ++i) {
        source_store(table, i, i % 2 == 0 ? -1 : 1 << 30);
    }
    for (int64_t b = 0; b < built->batch; ++b) {
        for (int64_t p = 0; p < pages_of(built, built->keys[b]); ++p) {
            source_store(table, built->first_key[b] + p, order[built->first_key[b] + p]);
        }
    }
    built->page_table = table;
    built->all.kv.page_table = table;
    if (is_flat(built)) {
        attn_tensor *starts = source_add_integers(built, built->batch + 1);
        for (int64_t b = 0; b <= built->batch; ++b) {
            source_store(starts, b, b < built->batch ? built->first_key[b] : entries);
        }
        built->all.kv.page_starts = starts;
        return num_pages;
    }
    table->rank = 2;
    table->shape[0] = built->batch;
    table->shape[1] = most;
    table->strides[0] = most;
    table->strides[1] = 1;
    return num_pages;
}

void source_place_key(const source_case *built, int64_t sequence, int64_t head, int64_t key,
                      int64_t feature, int64_t index[4]) {
    const int kind = source_level(built, SOURCE_KIND);
    if (kind == KIND_STARTS) {
        index[0] = head;
        index[1] = built->first_key[sequence] + key;
        index[2] = feature;
        return;
    }
    index[0] = sequence;
    index[1] = head;
    index[2] = key;
    index[3] = feature;
    if (kind >= FIRST_PAGES) {
        int64_t entry[2] = {built->first_key[sequence] + key / page_rows(built), 0};
        if (!is_flat(built)) {
            entry[0] = sequence;
            entry[1] = key / page_rows(built);
        }
        index[0] = oracle_integer(built->page_table, entry);
        index[2] = key % page_rows(built);
    }
}

/* What no key is at is NaN. */
static void fill_keys(source_case *built, const attn_tensor *tensor, int64_t heads, int is_value) {
    int64_t index[4] = {0};
    if (oracle_count(tensor->rank, tensor->shape) == 0) {
        return;
    }
    do {
        oracle_store(tensor, index, NAN);
    } while (oracle_next_index(tensor->rank, tensor->shape, index));
    const int has_infinities = is_value && source_level(built, SOURCE_VALUES) == 1;
    for (int64_t b = 0; b < built->batch; ++b) {
        const int64_t shape[] = {heads, built->keys[b], tensor->shape[tensor->rank - 1]};
        int64_t at[3] = {0};
        if (oracle_count(3, shape) == 0) {
            continue;
        }
        do {
            source_place_key(built, b, at[0], at[1], at[2], index);
            oracle_store(tensor, index,
                         has_infinities && at[1] % 29 == 11 ? INFINITY
                                                            : random_real(&built->random, -1, 1));
        } while (oracle_next_index(3, shape, at));
    }
}

static attn_tensor *add_keys(source_case *built, int32_t dtype, int64_t groups, int64_t rows,
                             int64_t features, int layout, int is_value) {
    const int64_t heads = source_heads_of[source_level(built, SOURCE_HEADS)][1];
    const int is_joined = source_level(built, SOURCE_KIND) == KIND_STARTS;
    const int64_t shape[] = {groups, heads, rows, features};
    attn_tensor *tensor = pool_input(&built->all.pool, dtype, is_joined ? 3 : 4, shape + is_joined,
                                     (enum tensor_layout)layout);
    fill_keys(built, tensor, heads, is_value);
    return tensor;
}

void source_set_keys(source_case *built) {
    const int64_t *features = source_features_of[source_level(built, SOURCE_FEATURES)];
    const int is_mixed = source_level(built, SOURCE_ENGINE) == SOURCE_FUSED_MIXED;
    const int kind = source_level(built, SOURCE_KIND);
    int64_t rooms[MOST_SEQUENCES];
    for (int64_t b = 0; b < built->batch; ++b) {
        rooms[b] = room_of(built, b);
    }
    int64_t groups = built->batch, rows = largest(built->batch, rooms);
    built->columns = rows;
    if (kind == KIND_STARTS) {
        rows = lay_out_starts(built);
    } else if (is_paged(built)) {
        groups = lay_out_pages(built);
        rows = page_rows(built);
        built->columns = is_flat(built) ? built->columns : built->page_table->shape[1] * rows;
    }
    if (source_level(built, SOURCE_LENGTHS) == 0) {
        attn_tensor *lengths = source_add_integers(built, built->batch);
        for (int64_t b = 0; b < built->batch; ++b) {
            source_store(lengths, b, built->keys[b]);
        }
        built->all.kv.lengths = lengths;
    }
    built->all.kv.struct_size = sizeof built->all.kv;
    built->all.key = add_keys(built, is_mixed ? ATTN_DTYPE_BFLOAT16 : built->dtype, groups, rows,
                              features[0], source_level(built, SOURCE_KEY_LAYOUT), 0);
    built->all.value = add_keys(built, is_mixed ? ATTN_DTYPE_FLOAT16 : built->dtype, groups, rows,
                                features[1], source_level(built, SOURCE_VALUE_LAYOUT), 1);
    built->all.kv.key = built->all.key;
    built->all.kv.value = built->all.value;
    built->all.params.kv = &built->all.kv;
}
