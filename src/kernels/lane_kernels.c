/* SPDX-License-Identifier: BSD-3-Clause
 *
 * lane_kernels.c: rows to lanes and back, by transposing squares of LANES x LANES elements in
 * registers: LANES rows are read, or written, a vector at a time.
 */
#include "kernels/lane_kernels.h"

#include <math.h>

#include "kernels/kernel_tables.h"
#include "kernels/philox.h"
#include "kernels/transpose.h"

/* The square of elements [j, j + LANES) of LANES rows, so that square[i] has element j + i of each;
 * of the last elements of a row only `count` exist. */
INLINE void load_square(vector square[LANES], const float *const *rows, int64_t j, int64_t count) {
    UNROLL
    for (int i = 0; i < LANES; ++i) {
        square[i] = count >= LANES ? load(rows[i] + j) : load_part(rows[i] + j, count, 0);
    }
    transpose(square);
}

/* ---- positions ---- */

INLINE vector_mask load_integers(const int32_t *from) {
    vector_mask x;
    memcpy(&x, from, sizeof x);
    return x;
}

static void lane_clip(float *tile, int32_t vectors, int64_t num_keys, const int32_t *begin,
                      const int32_t *end, float excluded) {
    const int64_t width = (int64_t)vectors * LANES;
    for (int64_t first = 0; first < width; first += LANES) {
        const vector_mask begins = load_integers(begin + first);
        const vector_mask ends = load_integers(end + first);
        for (int64_t j = 0; j < num_keys; ++j) {
            float *scores = tile + j * width + first;
            const vector_mask key = (int32_t)j - (vector_mask){0};
            store(scores,
                  choose((key >= begins) & (key < ends), load(scores), broadcast(excluded)));
        }
    }
}

static void lane_alibi(float *tile, int32_t vectors, int64_t first, int64_t num_keys,
                       const float *slopes, const float *distances) {
    const int64_t width = (int64_t)vectors * LANES;
    for (int64_t lane = 0; lane < width; lane += LANES) {
        const vector slope = load(slopes + lane);
        const vector distance = load(distances + lane);
        for (int64_t j = 0; j < num_keys; ++j) {
            float *scores = tile + j * width + lane;
            store(scores, load(scores) - slope * absolute(distance - (float)(first + j)));
        }
    }
}

/* ---- dropout ---- */

INLINE word_vector load_words(const uint32_t *from) {
    word_vector x;
    memcpy(&x, from, sizeof x);
    return x;
}

/* 4 keys at a time have a counter in common. */
static void lane_drop(float *tile, int32_t vectors, int64_t first, int64_t num_keys,
                      const uint32_t *numbers, const uint32_t *heads,
                      const attni_dropout_stream *stream) {
    const int64_t width = (int64_t)vectors * LANES;
    for (int64_t j = -(first % 4); j < num_keys; j += 4) {
        for (int64_t lane = 0; lane < width; lane += LANES) {
            word_vector counter[4] = {
                (uint32_t)((first + j) / 4) - (word_vector){0},
                load_words(numbers + lane),
                load_words(heads + lane),
                stream->batch - (word_vector){0},
            };
            philox(counter, stream->key);
            for (int word = 0; word < 4; ++word) {
                if (j + word >= 0 && j + word < num_keys) {
                    float *weights = tile + (j + word) * width + lane;
                    const vector_mask is_kept = (vector_mask)(counter[word] >= stream->threshold);
                    store(weights, load(weights) * choose(is_kept, broadcast((float)stream->scale),
                                                          broadcast(0)));
                }
            }
        }
    }
}

/* ---- masks ---- */

INLINE vector biased(vector score, vector bias, bool is_added, float excluded) {
    return choose(bias == -(float)INFINITY, broadcast(excluded),
                  is_added ? finite_sum(score, bias) : score);
}

/* Asks for what is two squares ahead: so many rows are not fetched ahead by the hardware. */
INLINE void bias_square(float *scores, int64_t width, const float *const *rows, int64_t j,
                        int64_t count, bool is_added, float excluded) {
    vector bias[LANES];
    UNROLL
    for (int i = 0; i < LANES; ++i) {
        __builtin_prefetch(rows[i] + j + 2 * LANES, 0, 2);
    }
    load_square(bias, rows, j, count);
    UNROLL
    for (int i = 0; i < LANES; ++i) {
        if (i < count) {
            store(scores + i * width,
                  biased(load(scores + i * width), bias[i], is_added, excluded));
        }
    }
}

static void lane_add_bias(float *tile, int32_t vectors, int64_t num_keys, const float *const *rows,
                          bool is_added, float excluded) {
    const int64_t width = (int64_t)vectors * LANES;
    for (int64_t first = 0; first < width; first += LANES) {
        int64_t j = 0;
        for (; j + LANES <= num_keys; j += LANES) {
            bias_square(tile + j * width + first, width, rows + first, j, LANES, is_added,
                        excluded);
        }
        if (j < num_keys) {
            bias_square(tile + j * width + first, width, rows + first, j, num_keys - j, is_added,
                        excluded);
        }
    }
}

/* LANES bytes as integers. Compilers convert them one by one. */
INLINE vector_mask widen(const unsigned char *bytes) {
#if VECTOR_BYTES == 64 && defined(__AVX512F__)
    return (vector_mask)_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)bytes));
#elif VECTOR_BYTES == 32
    return (vector_mask)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)bytes));
#elif VECTOR_BYTES == 16 && defined(__SSE2__)
    int32_t four;
    memcpy(&four, bytes, sizeof four);
    const __m128i zero = _mm_setzero_si128();
    const __m128i words = _mm_unpacklo_epi8(_mm_cvtsi32_si128(four), zero);
    return (vector_mask)_mm_unpacklo_epi16(words, zero);
#else
    vector_mask x = {0};
    UNROLL
    for (int i = 0; i < LANES; ++i) {
        x[i] = bytes[i];
    }
    return x;
#endif
}

/* LANES flags as numbers; of the last of a row only `count` exist. */
INLINE vector load_flags(const unsigned char *flags, int64_t count) {
    if (count >= LANES) {
        return (vector)widen(flags);
    }
    unsigned char last[LANES] = {0};
    memcpy(last, flags, (size_t)count);
    return (vector)widen(last);
}

/* A square of keys and lanes; hidden_if is a constant where this is inlined, and so is count where
 * the square is whole. */
INLINE void hide_square(float *scores, int64_t width, const unsigned char *const *rows, int64_t j,
                        int64_t count, const bool hidden_if, float excluded) {
    vector square[LANES];
    UNROLL
    for (int i = 0; i < LANES; ++i) {
        square[i] = load_flags(rows[i] + j, count);
    }
    transpose(square);
    UNROLL
    for (int i = 0; i < LANES; ++i) {
        if (i < count) {
            const vector_mask is_zero = (vector_mask)square[i] == 0;
            const vector score = load(scores + i * width);
            store(scores + i * width, hidden_if ? choose(is_zero, score, broadcast(excluded))
                                                : choose(is_zero, broadcast(excluded), score));
        }
    }
}

INLINE void hide_vector(float *tile, int64_t width, int64_t num_keys,
                        const unsigned char *const *rows, const bool hidden_if, float excluded) {
    int64_t j = 0;
    for (; j + LANES <= num_keys; j += LANES) {
        hide_square(tile + j * width, width, rows, j, LANES, hidden_if, excluded);
    }
    if (j < num_keys) {
        hide_square(tile + j * width, width, rows, j, num_keys - j, hidden_if, excluded);
    }
}

static void lane_hide(float *tile, int32_t vectors, int64_t num_keys,
                      const unsigned char *const *rows, bool hidden_if, float excluded) {
    const int64_t width = (int64_t)vectors * LANES;
    for (int64_t first = 0; first < width; first += LANES) {
        if (hidden_if) {
            hide_vector(tile + first, width, num_keys, rows + first, true, excluded);
        } else {
            hide_vector(tile + first, width, num_keys, rows + first, false, excluded);
        }
    }
}

INLINE void fill_key(float *scores, int64_t width, float excluded) {
    for (int64_t lane = 0; lane < width; lane += LANES) {
        store(scores + lane, broadcast(excluded));
    }
}

static void lane_add_key_bias(float *tile, int32_t vectors, int64_t num_keys, const float *bias,
                              int64_t stride, bool is_added, float excluded) {
    const int64_t width = (int64_t)vectors * LANES;
    for (int64_t j = 0; j < num_keys; ++j) {
        const float added = load_scalar(bias + j * stride);
        float *scores = tile + j * width;
        if (added == -(float)INFINITY) {
            fill_key(scores, width, excluded);
            continue;
        }
        for (int64_t lane = 0; is_added && lane < width; lane += LANES) {
            store(scores + lane, finite_sum(load(scores + lane), broadcast(added)));
        }
    }
}

static void lane_hide_keys(float *tile, int32_t vectors, int64_t num_keys,
                           const unsigned char *flags, int64_t stride, bool hidden_if,
                           float excluded) {
    const int64_t width = (int64_t)vectors * LANES;
    for (int64_t j = 0; j < num_keys; ++j) {
        if ((flags[j * stride] != 0) == hidden_if) {
            fill_key(tile + j * width, width, excluded);
        }
    }
}

/* ---- weights ---- */

INLINE void store_row(float *row, vector weights, int64_t count, bool is_added) {
    if (count >= LANES) {
        store(row, is_added ? load(row) + weights : weights);
    } else {
        store_part(row, is_added ? load_part(row, count, 0) + weights : weights, count);
    }
}

static void lane_store_weights(float *const *rows, const float *tile, int32_t vectors,
                               int32_t num_rows, int64_t num_keys, const float *factor,
                               bool is_added) {
    const int64_t width = (int64_t)vectors * LANES;
    for (int64_t first = 0; first < num_rows; first += LANES) {
        const vector factors = load(factor + first);
        const int64_t count = num_rows - first < LANES ? num_rows - first : LANES;
        for (int64_t j = 0; j < num_keys; j += LANES) {
            const int64_t keys = num_keys - j < LANES ? num_keys - j : LANES;
            vector square[LANES];
            for (int64_t i = 0; i < LANES; ++i) {
                square[i] = i < keys ? load(tile + (j + i) * width + first) * factors : (vector){0};
            }
            transpose(square);
            for (int64_t lane = 0; lane < count; ++lane) {
                store_row(rows[first + lane] + j, square[lane], keys, is_added);
            }
        }
    }
}

const attni_lane_kernels TABLE_NAME(lane_kernels) = {
    .clip = lane_clip,
    .alibi = lane_alibi,
    .add_bias = lane_add_bias,
    .hide = lane_hide,
    .add_key_bias = lane_add_key_bias,
    .hide_keys = lane_hide_keys,
    .drop = lane_drop,
    .store_weights = lane_store_weights,
};
