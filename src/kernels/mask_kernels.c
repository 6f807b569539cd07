/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mask_kernels.c: a block of keys at a time, over all rows, from both ends inwards until nothing
 * more can be learnt: of a mask without structure that takes a few rows of the outermost blocks.
 */
#include "kernels/mask_kernels.h"

#include "kernels/kernel_tables.h"
#include "kernels/vectors.h"

typedef unsigned char byte_vector __attribute__((vector_size(VECTOR_BYTES)));
typedef unsigned char bytes_in_memory
    __attribute__((vector_size(VECTOR_BYTES), aligned(1), may_alias));

/* Keys of a block: one load of each row. At most 64, so that a bit for each fits in a word. */
enum { FLAGS = VECTOR_BYTES, BIASES = LANES };

/* What rows do to the keys of a block, the first of them in the lowest bit. */
typedef struct block_sight {
    uint64_t shown;   /* to some row */
    uint64_t changed; /* some row's score, by hiding it or otherwise */
} block_sight;

/* Bit i tells whether lane i is set; its bits are all ones or all zeros. */
INLINE uint64_t bits_of_bytes(byte_vector lanes) {
#if VECTOR_BYTES == 64 && defined(__AVX512BW__)
    return _mm512_movepi8_mask((__m512i)lanes);
#elif VECTOR_BYTES == 32 && defined(__AVX2__)
    return (uint32_t)_mm256_movemask_epi8((__m256i)lanes);
#elif VECTOR_BYTES == 16 && defined(__SSE2__)
    return (uint32_t)_mm_movemask_epi8((__m128i)lanes);
#else
    uint64_t bits = 0;
    for (int i = 0; i < FLAGS; ++i) {
        bits |= (uint64_t)(lanes[i] & 1) << i;
    }
    return bits;
#endif
}

INLINE uint64_t bits_of_numbers(vector_mask lanes) {
#if VECTOR_BYTES == 64 && defined(__AVX512DQ__)
    return _mm512_movepi32_mask((__m512i)lanes);
#elif VECTOR_BYTES == 32 && defined(__AVX2__)
    return (uint32_t)_mm256_movemask_ps((__m256)lanes);
#elif VECTOR_BYTES == 16 && defined(__SSE2__)
    return (uint32_t)_mm_movemask_ps((__m128)lanes);
#else
    uint64_t bits = 0;
    for (int i = 0; i < BIASES; ++i) {
        bits |= (uint64_t)(lanes[i] & 1) << i;
    }
    return bits;
#endif
}

/* The lowest `count` bits, 1 to 64 of them. */
INLINE uint64_t lowest_bits(int64_t count) {
    return ~(uint64_t)0 >> (64 - count);
}

INLINE byte_vector load_bytes(const unsigned char *from, int64_t count) {
    if (count == FLAGS) {
        return *(const bytes_in_memory *)from;
    }
    byte_vector some = {0};
    memcpy(&some, from, (size_t)count);
    return some;
}

enum { ROWS_AT_ONCE = 4 };

/* `count` keys from `first` on, at most a block. Rows may be left out once the key `outermost` is
 * known to be shown and changed: there is nothing beyond it to learn of the others. */
typedef block_sight (*block_look)(const void *rows, int32_t num_rows, int64_t first, int64_t count,
                                  bool hidden_if, uint64_t outermost);

INLINE block_sight look_at_some_flags(const void *data, int32_t num_rows, int64_t first,
                                      int64_t count, bool hidden_if, uint64_t outermost) {
    const unsigned char *const *rows = data;
    byte_vector set = {0};
    byte_vector clear = {0};
    uint64_t some_set = 0;
    uint64_t some_clear = 0;
    for (int32_t r = 0; r < num_rows && (some_set & some_clear & outermost) == 0;) {
        const int32_t end = num_rows - r < ROWS_AT_ONCE ? num_rows : r + ROWS_AT_ONCE;
        for (; r < end; ++r) {
            const byte_vector flags = load_bytes(rows[r] + first, count);
            set |= flags;
            clear |= (byte_vector)(flags == 0);
        }
        some_set = bits_of_bytes((byte_vector)(set != 0)) & lowest_bits(count);
        some_clear = bits_of_bytes(clear) & lowest_bits(count);
    }
    return hidden_if ? (block_sight){some_clear, some_set} : (block_sight){some_set, some_clear};
}

INLINE block_sight look_at_some_biases(const void *data, int32_t num_rows, int64_t first,
                                       int64_t count, bool hidden_if, uint64_t outermost) {
    const float *const *rows = data;
    vector_mask hidden = ~(vector_mask){0};
    vector_mask changed = {0};
    block_sight sight = {0};
    (void)hidden_if;
    for (int32_t r = 0; r < num_rows && (sight.shown & sight.changed & outermost) == 0;) {
        const int32_t end = num_rows - r < ROWS_AT_ONCE ? num_rows : r + ROWS_AT_ONCE;
        for (; r < end; ++r) {
            const float *from = rows[r] + first;
            const vector bias = count == BIASES ? load(from) : load_part(from, count, 0);
            hidden &= bias == -(float)INFINITY;
            changed |= bias != 0;
        }
        sight.shown = bits_of_numbers(~hidden) & lowest_bits(count);
        sight.changed = bits_of_numbers(changed) & lowest_bits(count);
    }
    return sight;
}

INLINE int64_t first_of(uint64_t bits) {
    return __builtin_ctzll(bits);
}

INLINE int64_t past_last_of(uint64_t bits) {
    return 64 - __builtin_clzll(bits);
}

/* Takes in a block on the way up: where what is shown begins, and behind that, what is changed.
 * Tells whether the latter is found. */
INLINE bool see_from_below(attni_mask_sight *sight, int64_t first, block_sight block) {
    uint64_t changed = block.changed;
    if (block.shown != 0 && sight->end == 0) {
        sight->begin = first + first_of(block.shown);
        changed &= ~(uint64_t)0 << first_of(block.shown);
    }
    if (block.shown != 0) {
        sight->end = first + past_last_of(block.shown);
    }
    if (sight->end == 0 || changed == 0) {
        return false;
    }
    sight->changed_begin = first + first_of(changed);
    return true;
}

/* Likewise on the way down: the ends. */
INLINE bool see_from_above(attni_mask_sight *sight, int64_t first, block_sight block) {
    uint64_t changed = block.changed;
    if (block.shown != 0 && sight->end == 0) {
        sight->end = first + past_last_of(block.shown);
        changed &= lowest_bits(past_last_of(block.shown));
    }
    if (sight->end == 0 || changed == 0) {
        return false;
    }
    sight->changed_end = first + past_last_of(changed);
    return true;
}

/* A walk up to the first change, then one down to the last; where nothing is changed, the one up
 * has seen everything. Another thread may write the mask meanwhile: what is found lies among the
 * keys all the same. */
INLINE attni_mask_sight look(const void *rows, int32_t num_rows, int64_t num_keys, bool hidden_if,
                             const int block, block_look look_at) {
    attni_mask_sight sight = {0};
    bool is_found = false;
    int64_t first = 0;
    for (; first < num_keys && !is_found; first += block) {
        const int64_t count = num_keys - first < block ? num_keys - first : block;
        const block_sight seen = look_at(rows, num_rows, first, count, hidden_if, 1);
        is_found = see_from_below(&sight, first, seen);
    }
    if (!is_found) {
        return sight;
    }
    const int64_t lowest = first - block;
    const int64_t end_below = sight.end;
    sight.end = 0;
    is_found = false;
    for (first = (num_keys - 1) / block * block; first >= lowest && !is_found; first -= block) {
        const int64_t count = num_keys - first < block ? num_keys - first : block;
        const uint64_t last = (uint64_t)1 << (count - 1);
        const block_sight seen = look_at(rows, num_rows, first, count, hidden_if, last);
        is_found = see_from_above(&sight, first, seen);
    }
    if (sight.end == 0) {
        sight.end = end_below;
    }
    if (sight.changed_end <= sight.changed_begin) {
        sight.changed_begin = 0;
        sight.changed_end = 0;
    }
    return sight;
}

static attni_mask_sight mask_look_at_flags(const unsigned char *const *rows, int32_t num_rows,
                                           int64_t num_keys, bool hidden_if) {
    return look(rows, num_rows, num_keys, hidden_if, FLAGS, look_at_some_flags);
}

static attni_mask_sight mask_look_at_biases(const float *const *rows, int32_t num_rows,
                                            int64_t num_keys) {
    return look(rows, num_rows, num_keys, false, BIASES, look_at_some_biases);
}

/* ---- one row ---- */

/* Rows are short, and each is entered behind what it shows: the hardware has to be told what comes.
 * The address may lie past the end, and is not read. */
INLINE void ask_ahead(const void *from) {
    enum { BYTES_AHEAD = 2048 };
    __builtin_prefetch((const char *)from + BYTES_AHEAD, 0, 2);
}

INLINE bool hides_flag(const unsigned char *flag, bool hidden_if) {
    return (*flag != 0) == hidden_if;
}

static int64_t mask_first_shown_flag(const unsigned char *row, int64_t stride, int64_t num_keys,
                                     bool hidden_if) {
    int64_t j = 0;
    for (; stride == 1 && j + FLAGS <= num_keys; j += FLAGS) {
        ask_ahead(row + j);
        const byte_vector zeros = (byte_vector)(load_bytes(row + j, FLAGS) == 0);
        const uint64_t shown = bits_of_bytes(hidden_if ? zeros : ~zeros);
        if (shown != 0) {
            return j + first_of(shown);
        }
    }
    while (j < num_keys && hides_flag(row + j * stride, hidden_if)) {
        ++j;
    }
    return j;
}

static int64_t mask_past_shown_flags(const unsigned char *row, int64_t stride, int64_t num_keys,
                                     bool hidden_if) {
    int64_t j = num_keys;
    for (; stride == 1 && j >= FLAGS; j -= FLAGS) {
        const byte_vector zeros = (byte_vector)(load_bytes(row + j - FLAGS, FLAGS) == 0);
        const uint64_t shown = bits_of_bytes(hidden_if ? zeros : ~zeros);
        if (shown != 0) {
            return j - FLAGS + past_last_of(shown);
        }
    }
    while (j > 0 && hides_flag(row + (j - 1) * stride, hidden_if)) {
        --j;
    }
    return j;
}

static int64_t mask_first_shown_bias(const float *row, int64_t stride, int64_t num_keys) {
    int64_t j = 0;
    for (; stride == 1 && j + BIASES <= num_keys; j += BIASES) {
        ask_ahead(row + j);
        const uint64_t shown = bits_of_numbers(~(load(row + j) == -(float)INFINITY));
        if (shown != 0) {
            return j + first_of(shown);
        }
    }
    while (j < num_keys && load_scalar(row + j * stride) == -(float)INFINITY) {
        ++j;
    }
    return j;
}

static int64_t mask_past_shown_biases(const float *row, int64_t stride, int64_t num_keys) {
    int64_t j = num_keys;
    for (; stride == 1 && j >= BIASES; j -= BIASES) {
        const uint64_t shown = bits_of_numbers(~(load(row + j - BIASES) == -(float)INFINITY));
        if (shown != 0) {
            return j - BIASES + past_last_of(shown);
        }
    }
    while (j > 0 && load_scalar(row + (j - 1) * stride) == -(float)INFINITY) {
        --j;
    }
    return j;
}

const attni_mask_kernels TABLE_NAME(mask_kernels) = {
    .look_at_flags = mask_look_at_flags,
    .look_at_biases = mask_look_at_biases,
    .first_shown_flag = mask_first_shown_flag,
    .past_shown_flags = mask_past_shown_flags,
    .first_shown_bias = mask_first_shown_bias,
    .past_shown_biases = mask_past_shown_biases,
};
