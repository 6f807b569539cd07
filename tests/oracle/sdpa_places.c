/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_places.c: keys and values of an attn_sdpa case in the places that kv.h has, and the views of
 * ragged rows and of wider columns that the oracle gets.
 */
#include <stdlib.h>
#include <string.h>

#include "attention_options.h"
#include "sdpa_case.h"
#include "support/oracle_sdpa.h"
#include "support/oracle_tensor.h"

/* Rows of a page, 0 where the level has none. */
static int64_t page_of_level(int level) {
    static const int64_t rows[NUM_KEYS_LEVELS] = {[KEYS_IN_PAGES_1] = 1,
                                                  [KEYS_IN_PAGES_16] = 16,
                                                  [KEYS_IN_PAGES_17] = 17,
                                                  [KEYS_IN_LISTS] = 3};
    return rows[level];
}

static int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

int64_t sdpa_case_columns(const factor_case *chosen, int64_t keys) {
    const int64_t page = page_of_level(chosen->level[SDPA_KEYS_IN]);
    return page == 0 ? keys : divide_up(keys, page) * page;
}

/* ---- what the oracle gets ---- */

attn_tensor split_rows(const attn_tensor *all, int32_t from_end, int64_t sequences, int64_t rows) {
    attn_tensor view = *all;
    const int32_t axis = all->rank - from_end;
    memmove(view.shape + 1, all->shape, (size_t)all->rank * sizeof *view.shape);
    memmove(view.strides + 1, all->strides, (size_t)all->rank * sizeof *view.strides);
    view.rank = all->rank + 1;
    view.shape[0] = sequences;
    view.strides[0] = rows * all->strides[axis];
    view.shape[axis + 1] = rows;
    return view;
}

/* A mask or bias with as many columns as there are keys, unless it is placed, and, of ragged rows,
 * with all axes. */
static attn_tensor see_mask(const attn_tensor *given, const factor_case *chosen, int is_placed,
                            int64_t keys, int64_t sequences, int64_t rows) {
    attn_tensor view = *given;
    if (!is_placed && view.shape[view.rank - 1] == sdpa_case_columns(chosen, keys)) {
        view.shape[view.rank - 1] = keys;
    }
    if (chosen->level[SDPA_QUERIES] == QUERIES_BATCHED) {
        return view;
    }
    while (view.rank < 3) {
        view = split_rows(&view, view.rank, 1, view.shape[0]);
    }
    const int has_rows = view.shape[1] == sequences * rows;
    return split_rows(&view, 2, has_rows ? sequences : 1, has_rows ? rows : 1);
}

static void see_option(const attn_tensor **place, attn_tensor *view, const factor_case *chosen,
                       int is_placed, int64_t keys, int64_t sequences, int64_t rows) {
    if (*place != NULL) {
        *view = see_mask(*place, chosen, is_placed, keys, sequences, rows);
        *place = view;
    }
}

/* An output of rows, the last axis but `from_end - 1`. */
static attn_tensor see_output(const attn_tensor *given, const factor_case *chosen, int32_t from_end,
                              int64_t sequences, int64_t rows) {
    return chosen->level[SDPA_QUERIES] == QUERIES_RAGGED
               ? split_rows(given, from_end, sequences, rows)
               : *given;
}

void sdpa_case_set_seen(const factor_case *chosen, int64_t keys, int64_t sequences, int64_t rows,
                        sdpa_call *call) {
    seen_call *seen = &call->seen;
    seen->params = call->params;
    seen->params.query_starts = NULL;
    seen->given_params = call->given_params != NULL ? &seen->params : NULL;
    seen->output = see_output(call->output, chosen, 2, sequences, rows);
    const int is_placed = call->params.mask_start != NULL;
    see_option(&seen->params.mask, &seen->mask, chosen, is_placed, keys, sequences, rows);
    see_option(&seen->params.bias, &seen->bias, chosen, 0, keys, sequences, rows);
    if (call->params.lse != NULL) {
        seen->lse = see_output(call->params.lse, chosen, 1, sequences, rows);
        seen->params.lse = &seen->lse;
    }
    if (call->params.weights != NULL) {
        seen->weights = see_output(call->params.weights, chosen, 2, sequences, rows);
        seen->weights.shape[seen->weights.rank - 1] = keys;
        seen->params.weights = &seen->weights;
    }
}

/* ---- where keys are ---- */

/* Keys of all sequences: each sequence's matrices, and where its rows go. */
typedef struct placing {
    const factor_case *chosen;
    random_state random;
    attn_tensor views[2];  /* key and value, (batch axes, own heads, S, features) */
    int32_t batch_rank;    /* of them */
    int64_t batches, keys; /* keys: S */
    int64_t page;          /* rows of each, 0: no pages */
    int64_t *lengths;      /* of the sequences; S where none are given */
    int64_t *firsts;       /* rows, or entries of the table; one more than sequences */
    int64_t *pages;        /* of the entries; < 0: none */
    int64_t num_entries;
} placing;

/* Where key `key` of a sequence is: the index of its row in a tensor of all. */
static void place_key(const placing *placed, int64_t batch, int64_t head, int64_t key,
                      int64_t *index) {
    if (placed->page == 0) {
        index[0] = head;
        index[1] = placed->firsts[batch] + key;
        return;
    }
    index[0] = placed->pages[placed->firsts[batch] + key / placed->page];
    index[1] = head;
    index[2] = key % placed->page;
}

/* Whether there is a place for a key that nobody sees. */
static int has_place(const placing *placed, int64_t batch, int64_t key) {
    const int64_t first = placed->firsts[batch], count = placed->firsts[batch + 1] - first;
    return placed->page == 0
               ? key < count
               : key / placed->page < count && placed->pages[first + key / placed->page] >= 0;
}

static void copy_rows(const placing *placed, const attn_tensor *from, const attn_tensor *to) {
    int64_t index[ATTN_MAX_RANK] = {0}, target[4];
    const int32_t rank = from->rank;
    if (oracle_count(rank, from->shape) == 0) {
        return;
    }
    const size_t bytes = attn_dtype_size_bytes(from->dtype);
    int64_t at = 0;
    const int64_t matrix = from->shape[rank - 3] * from->shape[rank - 2] * from->shape[rank - 1];
    do {
        const int64_t batch = at++ / matrix, key = index[rank - 2];
        if (has_place(placed, batch, key)) {
            place_key(placed, batch, index[rank - 3], key, target);
            target[to->rank - 1] = index[rank - 1];
            memcpy(oracle_address(to, target), oracle_address(from, index), bytes);
        }
    } while (oracle_next_index(rank, from->shape, index));
}

/* Rows, or pages, that repeat in memory are not those of other sequences. */
static enum tensor_layout layout_of(const placing *placed, int which) {
    const enum tensor_layout layout = placed->chosen->level[FACTOR_KEY_LAYOUT + which];
    const int repeats_sequences =
        layout == LAYOUT_REPEATED_FIRST || (layout == LAYOUT_REPEATED_ROWS && placed->page == 0);
    return repeats_sequences ? LAYOUT_CONTIGUOUS : layout;
}

static const attn_tensor *move_keys(const placing *placed, int which, int64_t groups,
                                    tensor_pool *pool) {
    const attn_tensor *from = &placed->views[which];
    const int is_paged = placed->page > 0;
    const int64_t heads = from->shape[from->rank - 3], columns = from->shape[from->rank - 1];
    const int64_t shape[] = {groups, heads, is_paged ? placed->page : groups, columns};
    attn_tensor *to = pool_input(pool, from->dtype, is_paged ? 4 : 3, shape + !is_paged,
                                 layout_of(placed, which));
    copy_rows(placed, from, to);
    return to;
}

static attn_tensor *add_indices(const placing *placed, int64_t count, const int64_t *numbers,
                                tensor_pool *pool) {
    const int32_t dtype = index_dtype_of_level(placed->chosen->level[FACTOR_INDEX_DTYPE]);
    attn_tensor *indices = pool_input(pool, dtype, 1, &count, LAYOUT_CONTIGUOUS);
    for (int64_t i = 0; i < count; ++i) {
        oracle_store_integer(indices, &i, numbers[i]);
    }
    return indices;
}

/* Rooms are as long as the keys, or longer where lengths are told. */
static void place_behind(placing *placed, sdpa_call *call) {
    const int tells = call->params.key_lengths != NULL && random_between(&placed->random, 0, 1);
    placed->firsts[0] = random_between(&placed->random, 0, 2);
    for (int64_t b = 0; b < placed->batches; ++b) {
        const int64_t length = placed->lengths[b];
        const int64_t room = tells ? random_between(&placed->random, length, placed->keys) : length;
        placed->firsts[b + 1] = placed->firsts[b] + room;
    }
    const int64_t rows = placed->firsts[placed->batches] + random_between(&placed->random, 0, 2);
    call->kv.starts = add_indices(placed, placed->batches + 1, placed->firsts, &call->pool);
    call->kv.lengths = tells ? call->params.key_lengths : NULL;
    call->kv.key = move_keys(placed, 0, rows, &call->pool);
    call->kv.value = move_keys(placed, 1, rows, &call->pool);
}

/* Whether all sequences have the same keys and values, so that they may share pages. */
static int is_alike(const placing *placed) {
    int has_strides = 0;
    for (int32_t axis = 0; axis < placed->batch_rank; ++axis) {
        has_strides |= placed->views[0].strides[axis] != 0 || placed->views[1].strides[axis] != 0;
    }
    return !has_strides;
}

/* Whether some row sees a key of the page. */
static int is_needed(const placing *placed, const unsigned char *hidden, int64_t batch,
                     int64_t place) {
    const int64_t end = (place + 1) * placed->page;
    for (int64_t key = place * placed->page; key < end && key < placed->keys; ++key) {
        if (!hidden[batch * placed->keys + key]) {
            return 1;
        }
    }
    return 0;
}

/* Entries of a table that has as many for each sequence, or of a list of those that each needs. */
static void choose_firsts(placing *placed, int is_list) {
    const int64_t all = divide_up(placed->keys, placed->page);
    placed->firsts[0] = is_list ? random_between(&placed->random, 0, 2) : 0;
    for (int64_t b = 0; b < placed->batches; ++b) {
        const int64_t needed = divide_up(placed->lengths[b], placed->page);
        placed->firsts[b + 1] = placed->firsts[b] + (is_list ? needed : all);
    }
    placed->num_entries = placed->firsts[placed->batches] + (is_list ? 1 : 0);
}

/* Pages in an order of their own; entries that nobody needs are no pages. Returns how many pages
 * there are. */
static int64_t choose_pages(placing *placed, const unsigned char *hidden) {
    const int64_t num_pages = placed->num_entries + 1;
    const int shares = is_alike(placed);
    placed->pages = oracle_allocate(num_pages, sizeof *placed->pages);
    for (int64_t e = 0; e < placed->num_entries; ++e) {
        placed->pages[e] = -1 - e;
    }
    for (int64_t b = 0; b < placed->batches; ++b) {
        const int64_t first = placed->firsts[b], end = placed->firsts[b + 1];
        for (int64_t e = first; e < end; ++e) {
            if (is_needed(placed, hidden, b, e - first)) {
                placed->pages[e] = num_pages - 1 - (shares ? e - first : e);
            }
        }
    }
    return num_pages;
}

static void place_in_pages(placing *placed, const unsigned char *hidden, sdpa_call *call) {
    const int is_list = placed->chosen->level[SDPA_KEYS_IN] == KEYS_IN_LISTS;
    choose_firsts(placed, is_list);
    const int64_t num_pages = choose_pages(placed, hidden);
    attn_tensor *table = add_indices(placed, placed->num_entries, placed->pages, &call->pool);
    if (is_list) {
        call->kv.page_starts =
            add_indices(placed, placed->batches + 1, placed->firsts, &call->pool);
    } else {
        const attn_tensor *out = &call->seen.output;
        table->rank = placed->batch_rank + 1;
        memcpy(table->shape, out->shape, (size_t)placed->batch_rank * sizeof *table->shape);
        table->shape[placed->batch_rank] = divide_up(placed->keys, placed->page);
        int64_t stride = 1;
        for (int32_t axis = placed->batch_rank; axis >= 0; --axis) {
            table->strides[axis] = stride;
            stride *= table->shape[axis];
        }
    }
    call->kv.page_table = table;
    call->kv.lengths = call->params.key_lengths;
    if (call->kv.lengths == NULL) {
        attn_tensor *length = add_indices(placed, 1, &placed->keys, &call->pool);
        length->rank = 0;
        call->kv.lengths = length;
    }
    call->kv.key = move_keys(placed, 0, num_pages, &call->pool);
    call->kv.value = move_keys(placed, 1, num_pages, &call->pool);
}

static int64_t *lengths_of(const sdpa_call *call, const placing *placed) {
    if (call->params.key_lengths != NULL) {
        return oracle_expand_integers(call->params.key_lengths, placed->batch_rank,
                                      call->seen.output.shape);
    }
    int64_t *lengths = oracle_allocate(placed->batches + 1, sizeof *lengths);
    for (int64_t b = 0; b < placed->batches; ++b) {
        lengths[b] = placed->keys;
    }
    return lengths;
}

static void place(const factor_case *chosen, uint64_t seed, sdpa_call *call) {
    const seen_call *seen = &call->seen;
    placing placed = {.chosen = chosen,
                      .random = random_seeded(seed ^ 0x6b76),
                      .views = {broadcast_keys(call->key, call), broadcast_keys(call->value, call)},
                      .batch_rank = seen->output.rank - 3,
                      .keys = call->key->shape[call->key->rank - 2],
                      .page = page_of_level(chosen->level[SDPA_KEYS_IN])};
    placed.batches = oracle_count(placed.batch_rank, seen->output.shape);
    placed.lengths = lengths_of(call, &placed);
    placed.firsts = oracle_allocate(placed.batches + 1, sizeof *placed.firsts);
    if (placed.page == 0) {
        place_behind(&placed, call);
    } else {
        unsigned char *hidden =
            oracle_sdpa_hidden_keys(&seen->query, call->key, call->value, seen->given_params);
        place_in_pages(&placed, hidden, call);
        free(hidden);
    }
    free(placed.lengths);
    free(placed.firsts);
    free(placed.pages);
}

void sdpa_case_place_keys(const factor_case *chosen, uint64_t seed, sdpa_call *call) {
    if (chosen->level[SDPA_KEYS_IN] == KEYS_IN_ARGUMENTS) {
        return;
    }
    call->kv = (attn_kv){.struct_size = sizeof call->kv,
                         .key = call->key,
                         .value = call->value,
                         .lengths = call->params.key_lengths};
    if (chosen->level[SDPA_KEYS_IN] != KEYS_IN_CACHES) {
        place(chosen, seed, call);
    }
    call->key = NULL;
    call->value = NULL;
    call->params.key_lengths = NULL;
    call->params.kv = &call->kv;
}
