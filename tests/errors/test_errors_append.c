/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_append.c: what attn_kv_append says of wrong calls; nothing is written then.
 */
#include <string.h>

#include "refusal.h"

/* A cache in pages: two sequences of up to three pages of four rows. */
enum { B = 2, M = 3, PAGES = 7, PAGE = 4, HK = 2, HV = 3, L = 3, E = 5, EV = 2, TOTAL = 8 };

enum {
    NEW_KEY,
    NEW_VALUE,
    CACHED_KEY,
    CACHED_VALUE,
    PAGE_TABLE,
    LENGTHS,
    POSITIONS,
    JOINED_KEY, /* of ragged new rows, with NEW_STARTS */
    JOINED_VALUE,
    NEW_STARTS,
    JOINED_CACHE, /* of sequences one behind the other, with STARTS */
    STARTS,
    FLAT_TABLE,
    PAGE_STARTS,
    NUM_VIEWS
};

/* Which way rows and cache go together. */
typedef enum cache_form { IN_PAGES, RAGGED, BEHIND, FLAT_PAGES } cache_form;

typedef struct fixture {
    float new_key[B * HK * L * E], new_value[B * HV * L * EV];
    float cached_key[PAGES * HK * PAGE * E], cached_value[PAGES * HV * PAGE * EV];
    float joined_key[HK * TOTAL * E], joined_value[HK * TOTAL * E];
    float joined_cache[2][HK * 20 * E];
    int64_t table[B * M], lengths[B], positions[B * L], new_starts[B + 1], starts[B + 1];
    int64_t page_starts[B + 1];
    attn_tensor views[NUM_VIEWS], joined_cache_value;
    float numbers[2][PAGES * HK * PAGE];
    attn_tensor scale, zero; /* of each row of the cache, once its keys are integers */
    attn_kv kv;
    attn_kv_append_params params;
    const attn_tensor *key, *value;
} fixture;

static void set_views(fixture *f) {
    static const int64_t shapes[NUM_VIEWS][4] = {
        [NEW_KEY] = {B, HK, L, E},
        [NEW_VALUE] = {B, HV, L, EV},
        [CACHED_KEY] = {PAGES, HK, PAGE, E},
        [CACHED_VALUE] = {PAGES, HV, PAGE, EV},
        [PAGE_TABLE] = {B, M},
        [LENGTHS] = {B},
        [POSITIONS] = {B, L},
        [JOINED_KEY] = {HK, TOTAL, E},
        [JOINED_VALUE] = {HK, TOTAL, E},
        [NEW_STARTS] = {B + 1},
        [JOINED_CACHE] = {HK, 20, E},
        [STARTS] = {B + 1},
        [FLAT_TABLE] = {B * M},
        [PAGE_STARTS] = {B + 1},
    };
    static const int32_t ranks[NUM_VIEWS] = {4, 4, 4, 4, 2, 1, 2, 3, 3, 1, 3, 1, 1, 1};
    void *const data[NUM_VIEWS] = {
        f->new_key,         f->new_value, f->cached_key, f->cached_value, f->table,
        f->lengths,         f->positions, f->joined_key, f->joined_value, f->new_starts,
        f->joined_cache[0], f->starts,    f->table,      f->page_starts};
    for (int i = 0; i < NUM_VIEWS; ++i) {
        const int is_real =
            i <= CACHED_VALUE || (i >= JOINED_KEY && i <= JOINED_VALUE) || i == JOINED_CACHE;
        f->views[i] = refusal_view(data[i], is_real ? ATTN_DTYPE_FLOAT32 : ATTN_DTYPE_INT64,
                                   ranks[i], shapes[i]);
    }
    f->joined_cache_value =
        refusal_view(f->joined_cache[1], ATTN_DTYPE_FLOAT32, 3, shapes[JOINED_CACHE]);
}

/* A valid call. */
static void prepare(fixture *f, cache_form form) {
    static const int64_t table[] = {6, 0, 3, 2, 5, 1}, lengths[] = {5, 12};
    static const int64_t new_starts[] = {0, 1, 4}, starts[] = {1, 8, 20}, page_starts[] = {0, 2, 5};
    memset(f, 0, sizeof *f);
    memcpy(f->table, table, sizeof table);
    memcpy(f->lengths, lengths, sizeof lengths);
    memcpy(f->new_starts, new_starts, sizeof new_starts);
    memcpy(f->starts, starts, sizeof starts);
    memcpy(f->page_starts, page_starts, sizeof page_starts);
    for (int64_t i = 0; i < B * L; ++i) {
        f->positions[i] = i;
    }
    refusal_fill(f->cached_key, sizeof f->cached_key);
    refusal_fill(f->cached_value, sizeof f->cached_value);
    refusal_fill(f->joined_cache, sizeof f->joined_cache);
    set_views(f);
    f->kv = (attn_kv){.struct_size = sizeof f->kv, .lengths = &f->views[LENGTHS]};
    f->params.struct_size = sizeof f->params;
    f->kv.key = &f->views[form == BEHIND ? JOINED_CACHE : CACHED_KEY];
    f->kv.value = form == BEHIND ? &f->joined_cache_value : &f->views[CACHED_VALUE];
    f->kv.starts = form == BEHIND ? &f->views[STARTS] : NULL;
    f->kv.page_table = form == BEHIND       ? NULL
                       : form == FLAT_PAGES ? &f->views[FLAT_TABLE]
                                            : &f->views[PAGE_TABLE];
    f->kv.page_starts = form == FLAT_PAGES ? &f->views[PAGE_STARTS] : NULL;
    f->key = &f->views[NEW_KEY];
    f->value = &f->views[NEW_VALUE];
    if (form == RAGGED || form == BEHIND) {
        f->params.starts = &f->views[NEW_STARTS];
        f->key = &f->views[JOINED_KEY];
        f->value = &f->views[JOINED_VALUE];
    }
    if (form == RAGGED) {
        /* As many value heads and features as JOINED_VALUE. */
        static const int64_t shape[] = {PAGES, HK, PAGE, E};
        f->views[CACHED_VALUE] = refusal_view(f->joined_cache, ATTN_DTYPE_FLOAT32, 4, shape);
    }
    if (form == FLAT_PAGES) {
        f->lengths[0] = 5;
    }
}

static attn_status run(fixture *f) {
    return attn_kv_append(NULL, &f->kv, f->key, f->value, &f->params);
}

/* One thing wrong with a call. */
typedef struct append_refusal {
    const char *name;
    cache_form form;
    void (*spoil)(fixture *f);
    attn_status status;
    const char *line;
} append_refusal;

#define SPOIL(name, statement)     \
    static void name(fixture *f) { \
        statement;                 \
    }

SPOIL(no_key, f->key = NULL)
SPOIL(no_value, f->value = NULL)
SPOIL(no_cached_key, f->kv.key = NULL)
SPOIL(no_cached_value, f->kv.value = NULL)
SPOIL(no_key_data, f->views[NEW_KEY].data = NULL)
SPOIL(no_cached_data, f->views[CACHED_KEY].data = NULL)
SPOIL(no_lengths, f->kv.lengths = NULL)
SPOIL(small_params, f->params.struct_size = 8)
SPOIL(small_kv, f->kv.struct_size = 8)
SPOIL(key_of_integers, f->views[NEW_KEY].dtype = ATTN_DTYPE_INT64)
SPOIL(cache_of_bytes, f->views[CACHED_KEY].dtype = ATTN_DTYPE_FLOAT8_E4M3)
SPOIL(lengths_of_floats, f->views[LENGTHS].dtype = ATTN_DTYPE_FLOAT32)
SPOIL(key_of_other_heads, f->views[NEW_KEY].shape[1] = 1)
SPOIL(key_of_other_features, f->views[NEW_KEY].shape[3] = 4)
SPOIL(key_of_other_batch, f->views[NEW_KEY].shape[0] = 1)
SPOIL(key_of_rank_three, f->key = &f->views[JOINED_KEY])
SPOIL(value_of_fewer_rows, f->views[NEW_VALUE].shape[2] = 2)
SPOIL(lengths_of_other_batch, f->views[LENGTHS].shape[0] = 3)
SPOIL(positions_of_other_rows,
      (f->params.positions = &f->views[POSITIONS], f->views[POSITIONS].shape[1] = 2))
SPOIL(cache_values_in_other_pages, f->views[CACHED_VALUE].shape[0] = 6)
SPOIL(cache_of_rank_two,
      (f->kv.page_table = NULL, f->views[CACHED_KEY].rank = 2, f->views[CACHED_VALUE].rank = 2))
SPOIL(values_of_other_rooms, f->joined_cache_value.shape[1] = 19)
SPOIL(length_below_new_rows, f->lengths[1] = 2)
SPOIL(length_past_room, f->lengths[1] = 13)
SPOIL(length_negative, f->lengths[0] = -1)
SPOIL(position_past_room, (f->params.positions = &f->views[POSITIONS], f->positions[4] = 12))
SPOIL(positions_without_data,
      (f->params.positions = &f->views[POSITIONS], f->views[POSITIONS].data = NULL))
SPOIL(positions_of_floats,
      (f->params.positions = &f->views[POSITIONS], f->views[POSITIONS].dtype = ATTN_DTYPE_FLOAT32))
SPOIL(page_negative, f->table[0] = -1)
SPOIL(page_past_end, f->table[5] = PAGES)
SPOIL(new_starts_descend, f->new_starts[1] = 5)
SPOIL(new_starts_past_end, f->new_starts[2] = TOTAL + 1)
SPOIL(new_starts_of_other_batch, f->views[NEW_STARTS].shape[0] = 2)
SPOIL(no_new_starts, f->views[NEW_STARTS].shape[0] = 0)
SPOIL(starts_descend, f->starts[1] = 0)
SPOIL(length_past_own_rows, f->lengths[0] = 8)
SPOIL(page_starts_past_end, f->page_starts[2] = 7)
SPOIL(length_past_own_pages, f->lengths[0] = 9)
SPOIL(starts_beside_pages, f->kv.starts = &f->views[STARTS])
SPOIL(page_starts_alone, (f->kv.page_table = NULL, f->kv.page_starts = &f->views[PAGE_STARTS]))
SPOIL(cached_key_repeats, f->views[CACHED_KEY].strides[1] = 0)
SPOIL(value_in_key, f->views[CACHED_VALUE].data = f->cached_key)
SPOIL(new_key_in_cache, f->views[NEW_KEY].data = f->cached_value)
SPOIL(lengths_in_cache, f->views[LENGTHS].data = f->cached_key)
SPOIL(table_in_cache, f->views[CACHED_VALUE].data = f->table)

/* Keys become integers with a scale for each row and, if so, a zero. */
static void quantize(fixture *f, int has_zero) {
    static const int64_t shape[] = {PAGES, HK, PAGE, 1};
    f->views[CACHED_KEY].dtype = ATTN_DTYPE_INT8;
    f->scale = refusal_view(f->numbers[0], ATTN_DTYPE_FLOAT32, 4, shape);
    f->zero = refusal_view(f->numbers[1], ATTN_DTYPE_FLOAT32, 4, shape);
    f->kv.key_scale = &f->scale;
    f->kv.key_zero = has_zero ? &f->zero : NULL;
}

SPOIL(cache_of_q4_0, (f->views[CACHED_KEY].dtype = ATTN_DTYPE_Q4_0,
                      f->views[CACHED_KEY].shape[3] = 1, f->views[NEW_KEY].shape[3] = 32))
SPOIL(scale_that_heads_share, (quantize(f, 0), f->scale.shape[1] = 1))
SPOIL(zero_of_read_scale, (quantize(f, 1), f->scale.shape[2] = 1))
SPOIL(zero_without_scale, (quantize(f, 1), f->kv.key_scale = NULL))
SPOIL(zero_of_other_rows, (quantize(f, 1), f->zero.shape[2] = 2))
SPOIL(scale_that_repeats, (quantize(f, 0), f->scale.strides[1] = 0))
SPOIL(scale_in_cache, (quantize(f, 0), f->scale.data = f->cached_value))
SPOIL(zero_in_scale, (quantize(f, 1), f->zero.data = f->scale.data))
SPOIL(read_scale_in_cache, (quantize(f, 0), f->scale.shape[2] = 1, f->scale.data = f->cached_value))
SPOIL(scale_of_numbers, (quantize(f, 0), f->views[CACHED_KEY].dtype = ATTN_DTYPE_FLOAT32))

static const append_refusal refusals[] = {
    {"cache_of_q4_0_is_unsupported", IN_PAGES, cache_of_q4_0, ATTN_ERROR_UNSUPPORTED,
     "kv.key: expected a dtype that rows can be stored in, got q4_0, which this version only "
     "reads"},
    {"written_scale_that_heads_share_is_refused", IN_PAGES, scale_that_heads_share,
     ATTN_ERROR_SHAPE,
     "kv.key_scale: expected 2 (as kv.key) on axis 1, since new rows write it, got (7, 1, 4, 1)"},
    {"zero_of_rows_beside_a_read_scale_is_refused", IN_PAGES, zero_of_read_scale, ATTN_ERROR_VALUE,
     "kv.key_zero: expected fewer rows than are stored, since kv.key_scale is read, not written"},
    {"zero_of_rows_without_scale_is_refused", IN_PAGES, zero_without_scale, ATTN_ERROR_VALUE,
     "kv.key_zero: expected fewer rows than are stored, since kv.key_scale is read, not written"},
    {"zero_of_other_rows_than_a_written_scale_is_refused", IN_PAGES, zero_of_other_rows,
     ATTN_ERROR_SHAPE,
     "kv.key_zero: expected shape (7, 2, 4, 1), as kv.key_scale, which new rows write, got (7, 2, "
     "2, 1)"},
    {"written_scale_that_repeats_is_refused", IN_PAGES, scale_that_repeats, ATTN_ERROR_OVERLAP,
     "kv.key_scale: expected strides that give every element its own memory..."},
    {"written_scale_in_cache_is_refused", IN_PAGES, scale_in_cache, ATTN_ERROR_OVERLAP,
     "kv.key_scale: expected memory of its own, got memory that overlaps kv.value"},
    {"written_zero_in_scale_is_refused", IN_PAGES, zero_in_scale, ATTN_ERROR_OVERLAP,
     "kv.key_zero: expected memory of its own, got memory that overlaps kv.key_scale"},
    {"read_scale_in_cache_is_refused", IN_PAGES, read_scale_in_cache, ATTN_ERROR_OVERLAP,
     "kv.value: expected memory of its own, got memory that overlaps kv.key_scale"},
    {"scale_of_stored_numbers_is_refused", IN_PAGES, scale_of_numbers, ATTN_ERROR_VALUE,
     "kv.key_scale: expected NULL beside kv.key of float32, whose elements are not scaled"},
    {"key_null_is_refused", IN_PAGES, no_key, ATTN_ERROR_NULL, "key: expected a tensor, got NULL"},
    {"value_null_is_refused", IN_PAGES, no_value, ATTN_ERROR_NULL,
     "value: expected a tensor, got NULL"},
    {"cached_key_null_is_refused", IN_PAGES, no_cached_key, ATTN_ERROR_NULL,
     "kv.key: expected a tensor, got NULL"},
    {"cached_value_null_is_refused", IN_PAGES, no_cached_value, ATTN_ERROR_NULL,
     "kv.value: expected a tensor, got NULL"},
    {"key_data_null_is_refused", IN_PAGES, no_key_data, ATTN_ERROR_NULL,
     "key: expected data for shape (2, 2, 3, 5), got NULL"},
    {"cached_data_null_is_refused", IN_PAGES, no_cached_data, ATTN_ERROR_NULL,
     "kv.key: expected data for shape (7, 2, 4, 5), got NULL"},
    {"lengths_null_without_positions_is_refused", IN_PAGES, no_lengths, ATTN_ERROR_NULL,
     "kv.lengths: expected lengths without positions, got NULL"},
    {"params_too_small_is_refused", IN_PAGES, small_params, ATTN_ERROR_VALUE,
     "params: expected struct_size 24 (sizeof the struct) or more, got 8"},
    {"kv_too_small_is_refused", IN_PAGES, small_kv, ATTN_ERROR_VALUE,
     "kv: expected struct_size 56 (sizeof the struct) or more, got 8"},
    {"key_of_integers_is_refused", IN_PAGES, key_of_integers, ATTN_ERROR_DTYPE,
     "key: expected dtype float32, float64, bfloat16 or float16, got int64"},
    {"cache_of_float8_is_unsupported", IN_PAGES, cache_of_bytes, ATTN_ERROR_UNSUPPORTED,
     "kv.key: expected dtype float32, float64, bfloat16, float16, int8, uint8, int4x2, uint4x2, "
     "q8_0 or q4_0, got float8_e4m3, which this version does not compute with"},
    {"lengths_of_floats_is_refused", IN_PAGES, lengths_of_floats, ATTN_ERROR_DTYPE,
     "kv.lengths: expected dtype int64 or int32, got float32"},
    {"key_of_other_heads_is_refused", IN_PAGES, key_of_other_heads, ATTN_ERROR_SHAPE,
     "key: expected shape (2, H=2, L, E=5), got (2, 1, 3, 5)"},
    {"key_of_other_features_is_refused", IN_PAGES, key_of_other_features, ATTN_ERROR_SHAPE,
     "key: expected shape (2, H=2, L, E=5), got (2, 2, 3, 4)"},
    {"key_of_other_batch_is_refused", IN_PAGES, key_of_other_batch, ATTN_ERROR_SHAPE,
     "key: expected shape (2, H=2, L, E=5), got (1, 2, 3, 5)"},
    {"key_of_rank_three_is_refused", IN_PAGES, key_of_rank_three, ATTN_ERROR_SHAPE,
     "key: expected shape (2, H=2, L, E=5), got (2, 8, 5)"},
    {"value_of_fewer_rows_is_refused", IN_PAGES, value_of_fewer_rows, ATTN_ERROR_SHAPE,
     "value: expected shape (2, H=3, L=3, E=2), got (2, 3, 2, 2)"},
    {"lengths_of_other_batch_is_refused", IN_PAGES, lengths_of_other_batch, ATTN_ERROR_SHAPE,
     "kv.lengths: expected a shape that broadcasts to (2), got (3)"},
    {"positions_of_other_rows_is_refused", IN_PAGES, positions_of_other_rows, ATTN_ERROR_SHAPE,
     "positions: expected a shape that broadcasts to (2, L=3), got (2, 2)"},
    {"cached_values_in_other_pages_is_refused", IN_PAGES, cache_values_in_other_pages,
     ATTN_ERROR_SHAPE, "kv.value: expected shape (pages=7, Hv, page=4, Ev) with as many pages ..."},
    {"cache_of_rank_two_is_refused", IN_PAGES, cache_of_rank_two, ATTN_ERROR_SHAPE,
     "kv.key: expected rank 3 to 8, got 2"},
    {"cached_values_of_other_rooms_is_refused", BEHIND, values_of_other_rooms, ATTN_ERROR_SHAPE,
     "kv.value: expected shape (H=2, C=20, E=5), got (2, 19, 5)"},
    {"length_below_new_rows_is_refused", IN_PAGES, length_below_new_rows, ATTN_ERROR_VALUE,
     "kv.lengths: expected 3 new rows and more, which they count, got 2 of sequence 1"},
    {"length_past_room_is_refused", IN_PAGES, length_past_room, ATTN_ERROR_VALUE,
     "kv.lengths: expected 0 to S=12, got 13 at element 1"},
    {"length_negative_is_refused", IN_PAGES, length_negative, ATTN_ERROR_VALUE,
     "kv.lengths: expected 0 to S=12, got -1 at element 0"},
    {"position_past_room_is_refused", IN_PAGES, position_past_room, ATTN_ERROR_VALUE,
     "positions: expected a row below 12, which is the room of sequence 1, got 12 for row 1"},
    {"positions_without_data_are_refused", IN_PAGES, positions_without_data, ATTN_ERROR_NULL,
     "positions: expected data for shape (2, 3), got NULL"},
    {"positions_of_floats_are_refused", IN_PAGES, positions_of_floats, ATTN_ERROR_DTYPE,
     "positions: expected dtype int64 or int32, got float32"},
    {"page_negative_is_refused", IN_PAGES, page_negative, ATTN_ERROR_VALUE,
     "kv.page_table: expected the number of one of 7 pages, got -1 at entry 0 of sequence 0"},
    {"page_past_end_is_refused", IN_PAGES, page_past_end, ATTN_ERROR_VALUE,
     "kv.page_table: expected the number of one of 7 pages, got 7 at entry 2 of sequence 1"},
    {"new_starts_that_descend_are_refused", RAGGED, new_starts_descend, ATTN_ERROR_VALUE,
     "starts: expected 5 (the element before it) to 8, got 4 at element 2"},
    {"new_starts_past_the_end_are_refused", RAGGED, new_starts_past_end, ATTN_ERROR_VALUE,
     "starts: expected 1 (the element before it) to 8, got 9 at element 2"},
    {"new_starts_of_another_batch_are_refused", RAGGED, new_starts_of_other_batch, ATTN_ERROR_SHAPE,
     "starts: expected shape (B + 1 = 3), got (2)"},
    {"new_starts_of_no_elements_are_refused", RAGGED, no_new_starts, ATTN_ERROR_SHAPE,
     "starts: expected shape (B + 1), got (0)"},
    {"starts_that_descend_are_refused", BEHIND, starts_descend, ATTN_ERROR_VALUE,
     "kv.starts: expected 1 (the element before it) to 20, got 0 at element 1"},
    {"length_past_own_rows_is_refused", BEHIND, length_past_own_rows, ATTN_ERROR_VALUE,
     "kv.lengths: expected 0 to 7, got 8 in sequence 0"},
    {"page_starts_past_the_end_are_refused", FLAT_PAGES, page_starts_past_end, ATTN_ERROR_VALUE,
     "kv.page_starts: expected 2 (the element before it) to 6, got 7 at element 2"},
    {"length_past_own_pages_is_refused", FLAT_PAGES, length_past_own_pages, ATTN_ERROR_VALUE,
     "kv.lengths: expected 0 to 8, got 9 in sequence 0"},
    {"starts_beside_pages_are_refused", IN_PAGES, starts_beside_pages, ATTN_ERROR_VALUE,
     "kv.starts: expected NULL beside kv.page_table"},
    {"page_starts_alone_are_refused", IN_PAGES, page_starts_alone, ATTN_ERROR_VALUE,
     "kv.page_starts: expected NULL without kv.page_table"},
    {"cached_key_that_repeats_is_refused", IN_PAGES, cached_key_repeats, ATTN_ERROR_OVERLAP,
     "kv.key: ..."},
    {"cached_value_in_key_is_refused", IN_PAGES, value_in_key, ATTN_ERROR_OVERLAP,
     "kv.value: expected memory of its own, got memory that overlaps kv.key"},
    {"new_key_in_cache_is_refused", IN_PAGES, new_key_in_cache, ATTN_ERROR_OVERLAP,
     "kv.value: ..."},
    {"lengths_in_cache_are_refused", IN_PAGES, lengths_in_cache, ATTN_ERROR_VALUE,
     "kv.lengths: expected 0 to S=12, ..."},
    {"table_in_cache_is_refused", IN_PAGES, table_in_cache, ATTN_ERROR_OVERLAP, "kv.value: ..."},
};

static void run_refusal(void **state) {
    const append_refusal *entry = *state;
    static fixture f;
    prepare(&f, entry->form);
    refusal_assert_ok("attn_kv_append", run(&f));
    prepare(&f, entry->form);
    entry->spoil(&f);
    refusal_assert("attn_kv_append", run(&f), entry->status, entry->line);
    refusal_assert_untouched("kv.key", f.cached_key, sizeof f.cached_key);
    refusal_assert_untouched("kv.value", f.cached_value, sizeof f.cached_value);
    refusal_assert_untouched("joined cache", f.joined_cache, sizeof f.joined_cache);
}

/* However many rows there are: they have no elements. */
static void rows_without_features_return_at_once(void **state) {
    static fixture f;
    (void)state;
    prepare(&f, IN_PAGES);
    for (int i = NEW_KEY; i <= CACHED_VALUE; ++i) {
        f.views[i].shape[3] = 0;
    }
    f.views[NEW_KEY].shape[2] = INT64_C(1) << 40;
    f.views[NEW_VALUE].shape[2] = INT64_C(1) << 40;
    refusal_assert_ok("attn_kv_append", run(&f));
}

static void kv_null_is_refused(void **state) {
    static fixture f;
    (void)state;
    prepare(&f, IN_PAGES);
    refusal_assert("attn_kv_append", attn_kv_append(NULL, NULL, f.key, f.value, NULL),
                   ATTN_ERROR_NULL, "kv: expected where keys and values lie, got NULL");
    refusal_assert_ok("attn_kv_append", attn_kv_append(NULL, &f.kv, f.key, f.value, NULL));
}

int main(void) {
    static refusal_suite suite;
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; ++i) {
        refusal_suite_add(&suite, refusals[i].name, run_refusal, &refusals[i]);
    }
    refusal_suite_add(&suite, "kv_null_is_refused", kv_null_is_refused, NULL);
    refusal_suite_add(&suite, "rows_without_features_return_at_once",
                      rows_without_features_return_at_once, NULL);
    return refusal_suite_run(&suite, "errors of attn_kv_append");
}
