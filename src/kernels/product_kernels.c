/* SPDX-License-Identifier: BSD-3-Clause
 *
 * product_kernels.c: products by tiles of y that stay in registers from the first k to the last: a
 * few rows of x, an element of each at a time, times a few vectors of columns.
 */
#include "kernels/product_kernels.h"

#include "kernels/kernel_tables.h"
#include "kernels/storage.h"
#if defined(ATTNI_REAL_IS_float)
#include "kernels/transpose.h"
#endif
#include "kernels/vectors.h"

/* A tile's sums, with 16 registers 12 of them, with 32 registers 24, leave room for what they are
 * made of. */
#if VECTOR_BYTES == 64
enum { ROWS = 12, TILE_VECTORS = 2 };
#elif defined(__aarch64__)
enum { ROWS = 6, TILE_VECTORS = 4 };
#else
enum { ROWS = 6, TILE_VECTORS = 2 };
#endif

/* Very few rows are a matter of reading w fast: more columns at a time keep more reads going. */
enum { FEW_ROWS = 2, WIDE_VECTORS = 2 * TILE_VECTORS };

/* Tiles with fewer rows than ROWS: this one, and below it any. */
enum { SMALL_ROWS = 6, SPREAD_ROWS = 4 };

/* So many columns times SMALL_ROWS rows are as many sums as those of a tile of ROWS, made of fewer
 * loads: faster where the registers are wide enough for both and the strips of so few k stay in the
 * first level cache. */
#if VECTOR_BYTES == 64 && defined(STORED_IS_REAL)
enum { MOST_WIDE_DEPTH = 128 };
#else
enum { MOST_WIDE_DEPTH = 0 };
#endif

/* How far ahead of its own reads a tile of fewer rows asks for its strips. */
enum { PREFETCH_STEPS = 128 };

/* Bytes of a strip at one k; those of 16 bits are half a cache line, those of int8 a quarter. */
enum {
    STRIP_COLS = ATTNI_STRIP_BYTES / sizeof(real),
    STEP_BYTES = STRIP_COLS * sizeof(stored),
    MOST_COLS = WIDE_VECTORS * LANES
};

/* Columns [col, col + vectors * LANES) of a block, and where their sums come from and go to: y, or
 * a buffer where y has no room for whole vectors. */
typedef struct tile_columns {
    const attni_product_block *block;
    const stored *strip; /* of the first column */
    int64_t col;
    int64_t cols;   /* that y has */
    bool is_direct; /* whole vectors of y can be read and written */

    /* The strips of the next columns, and how many bytes of each a step of a tile of ROWS rows asks
     * for, so that all such tiles have asked for all. Without next columns: these again. */
    const char *next;
    int64_t next_step;
    _Alignas(ATTNI_STRIP_BYTES) real start[MOST_COLS];
} tile_columns;

/* Which elements of x are neighbours: those of a row, those at one k, or none. */
typedef enum x_order { X_BY_ROW, X_BY_TERM, X_SPREAD } x_order;

/* What is rarely run is not repeated in every tile's code. */
#define NOT_INLINE static __attribute__((noinline))

INLINE real *y_at(const attni_product_block *block, int64_t row, int64_t col) {
    return (real *)block->y + row * block->y_row_stride + col * block->y_col_stride;
}

/* Rows of x are reached from every third one, so that few registers hold where they are. */
enum { ROWS_APART = 3, ROW_GROUPS = ROWS / ROWS_APART };

/* to = factor * (from + x w) for `rows` rows of x and `vectors` vectors of columns; these two and
 * the order of x are constants where this is inlined. `next` is where the tile's share of the next
 * strips begins. */
INLINE void multiply_tile(const tile_columns *columns, const real *x, const int rows,
                          const int vectors, const x_order order, const char *next,
                          const real *from, int64_t from_stride, real *to, int64_t to_stride) {
    const int64_t depth = columns->block->depth;
    const int64_t strip_stride = columns->block->strip_stride;
    const int64_t strip_step = columns->block->strip_step;
    const int64_t row_stride = order == X_BY_TERM ? 1 : columns->block->x_row_stride;
    const int64_t col_stride = order == X_BY_ROW ? 1 : columns->block->x_col_stride;
    const int64_t strip_bytes = strip_stride * (int64_t)sizeof(stored);
    const real factor = (real)columns->block->factor;
    const stored *strip = columns->strip;
    const int64_t next_step = columns->next_step;
    const int groups = (rows + ROWS_APART - 1) / ROWS_APART;
    const bool is_wide = rows == SMALL_ROWS && vectors == WIDE_VECTORS; /* its strips are near */
    const real *group[ROW_GROUPS];
    vector sums[ROWS][WIDE_VECTORS];
    UNROLL
    for (int g = 0; g < groups; ++g) {
        group[g] = x + g * ROWS_APART * row_stride;
    }
    UNROLL
    for (int r = 0; r < rows; ++r) {
        UNROLL
        for (int v = 0; v < vectors; ++v) {
            sums[r][v] = load(from + r * from_stride + v * LANES);
        }
    }
    for (int64_t k = 0; k < depth; ++k) {
        vector w[WIDE_VECTORS];
        UNROLL
        for (int v = 0; v < vectors; ++v) {
            const stored *part =
                strip + v * LANES / STRIP_COLS * strip_stride + v * LANES % STRIP_COLS;
            w[v] = load_stored(part);
            if (v * LANES % STRIP_COLS != 0 || is_wide) {
                continue;
            }
            if (rows < ROWS) {
                __builtin_prefetch(part + PREFETCH_STEPS * strip_step);
            } else {
                __builtin_prefetch(next + v * LANES / STRIP_COLS * strip_bytes);
            }
        }
        UNROLL
        for (int r = 0; r < rows; ++r) {
            const real element = load_scalar(group[r / ROWS_APART] + r % ROWS_APART * row_stride);
            UNROLL
            for (int v = 0; v < vectors; ++v) {
                sums[r][v] += element * w[v];
            }
        }
        UNROLL
        for (int g = 0; g < groups; ++g) {
            group[g] += col_stride;
        }
        strip += strip_step;
        next += next_step;
    }
    UNROLL
    for (int r = 0; r < rows; ++r) {
        UNROLL
        for (int v = 0; v < vectors; ++v) {
            store(to + r * to_stride + v * LANES, sums[r][v] * factor);
        }
    }
}

/* Between y and rows of a buffer; columns past y's last are 0. */
NOT_INLINE void read_edge(const tile_columns *columns, int64_t row, int64_t rows, real *buffer) {
    const attni_product_block *block = columns->block;
    memset(buffer, 0, (size_t)(rows * MOST_COLS) * sizeof(real));
    for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < columns->cols; ++c) {
            buffer[r * MOST_COLS + c] = load_scalar(y_at(block, row + r, columns->col + c));
        }
    }
}

NOT_INLINE void write_edge(const tile_columns *columns, int64_t row, int64_t rows,
                           const real *buffer) {
    const attni_product_block *block = columns->block;
    for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < columns->cols; ++c) {
            *(real_in_memory *)y_at(block, row + r, columns->col + c) = buffer[r * MOST_COLS + c];
        }
    }
}

/* Rows [row, row + rows) of the columns. */
INLINE void multiply_rows(const tile_columns *columns, int64_t row, const int rows,
                          const int vectors, const x_order order) {
    const attni_product_block *block = columns->block;
    const real *x = (const real *)block->x + row * block->x_row_stride;
    real buffer[ROWS * MOST_COLS];
    real *to = buffer;
    int64_t to_stride = MOST_COLS;
    if (columns->is_direct) {
        to = y_at(block, row, columns->col);
        to_stride = block->y_row_stride;
    } else if (block->is_added) {
        read_edge(columns, row, rows, buffer);
    }
    const char *next = columns->next + row / ROWS * block->depth * columns->next_step;
    multiply_tile(columns, x, rows, vectors, order, next, block->is_added ? to : columns->start,
                  block->is_added ? to_stride : 0, to, to_stride);
    if (!columns->is_direct) {
        write_edge(columns, row, rows, buffer);
    }
}

/* How many of the rows that are left make the next tile: a tile of less than 4 rows takes as long
 * as one of 4, so none is left over. */
static int choose_rows(int64_t left) {
    if (left >= ROWS && (left == ROWS || left >= ROWS + 4)) {
        return ROWS;
    }
    if (left == SMALL_ROWS || left >= SMALL_ROWS + 4) {
        return SMALL_ROWS;
    }
    return left < SMALL_ROWS ? (int)left : 4;
}

INLINE void multiply_columns(const tile_columns *columns, const int vectors) {
    const int64_t num_rows = columns->block->rows;
    for (int64_t row = 0; row < num_rows;) {
        const int rows = choose_rows(num_rows - row);
        if (rows == ROWS) {
            multiply_rows(columns, row, ROWS, vectors, X_BY_ROW);
        } else if (rows == SMALL_ROWS) {
            multiply_rows(columns, row, SMALL_ROWS, vectors, X_BY_ROW);
        } else if (rows == 5) {
            multiply_rows(columns, row, 5, vectors, X_BY_ROW);
        } else if (rows == 4) {
            multiply_rows(columns, row, 4, vectors, X_BY_ROW);
        } else if (rows == 3) {
            multiply_rows(columns, row, 3, vectors, X_BY_ROW);
        } else if (rows == 2) {
            multiply_rows(columns, row, 2, vectors, X_BY_ROW);
        } else {
            multiply_rows(columns, row, 1, vectors, X_BY_ROW);
        }
        row += rows;
    }
}

static void multiply_tile_columns(const tile_columns *columns) {
    multiply_columns(columns, TILE_VECTORS);
}

static void multiply_vector_columns(const tile_columns *columns) {
    multiply_columns(columns, 1);
}

/* Elements of x that are not neighbours along k need fewer shapes of tiles: `most` rows, `fewer`
 * and 1; the numbers are constants where this is inlined. */
INLINE void multiply_in_tiles(const tile_columns *columns, const int most, const int fewer,
                              const int vectors, const x_order order) {
    const int64_t rows = columns->block->rows;
    int64_t row = 0;
    for (; rows - row >= most; row += most) {
        multiply_rows(columns, row, most, vectors, order);
    }
    for (; rows - row >= fewer; row += fewer) {
        multiply_rows(columns, row, fewer, vectors, order);
    }
    for (; row < rows; ++row) {
        multiply_rows(columns, row, 1, vectors, order);
    }
}

static void multiply_spread_tile_columns(const tile_columns *columns) {
    multiply_in_tiles(columns, ROWS, SPREAD_ROWS, TILE_VECTORS, X_SPREAD);
}

static void multiply_spread_vector_columns(const tile_columns *columns) {
    multiply_in_tiles(columns, ROWS, SPREAD_ROWS, 1, X_SPREAD);
}

static void multiply_tile_columns_by_term(const tile_columns *columns) {
    multiply_in_tiles(columns, ROWS, SPREAD_ROWS, TILE_VECTORS, X_BY_TERM);
}

static void multiply_wide_columns(const tile_columns *columns) {
    multiply_in_tiles(columns, SMALL_ROWS, FEW_ROWS, WIDE_VECTORS, X_BY_ROW);
}

static void multiply_wide_columns_by_term(const tile_columns *columns) {
    multiply_in_tiles(columns, SMALL_ROWS, FEW_ROWS, WIDE_VECTORS, X_BY_TERM);
}

typedef void multiply_function(const tile_columns *columns);

/* For 1, TILE_VECTORS and WIDE_VECTORS vectors of columns; what is spread is never as wide. */
static multiply_function *const functions_of[][3] = {
    [X_BY_ROW] = {multiply_vector_columns, multiply_tile_columns, multiply_wide_columns},
    [X_BY_TERM] = {multiply_spread_vector_columns, multiply_tile_columns_by_term,
                   multiply_wide_columns_by_term},
    [X_SPREAD] = {multiply_spread_vector_columns, multiply_spread_tile_columns,
                  multiply_spread_tile_columns},
};

static x_order order_of(const attni_product_block *block) {
    if (block->x_col_stride == 1 || block->depth <= 1) {
        return X_BY_ROW;
    }
    return block->x_row_stride == 1 ? X_BY_TERM : X_SPREAD;
}

/* How many vectors of columns are taken at a time; whole vectors past y's last column may lie past
 * the last strip, too. */
static int choose_vectors(const attni_product_block *block, x_order order, int64_t left) {
    const bool is_shallow = block->rows >= SMALL_ROWS && block->depth <= MOST_WIDE_DEPTH;
    const bool can_be_wide = order == X_BY_ROW ? is_shallow || block->rows <= FEW_ROWS
                                               : order == X_BY_TERM && is_shallow;
    if (can_be_wide && left > (WIDE_VECTORS - 1) * LANES) {
        return WIDE_VECTORS;
    }
    return left > (TILE_VECTORS - 1) * LANES ? TILE_VECTORS : 1;
}

/* The sums' first values, where they are not y's. */
static void start_columns(tile_columns *columns, int64_t cols) {
    const attni_product_block *block = columns->block;
    const real *bias = block->bias;
    for (int64_t c = 0; c < cols; ++c) {
        const int64_t offset = (columns->col + c) * block->bias_stride;
        columns->start[c] = bias != NULL && c < columns->cols ? load_scalar(bias + offset) : 0;
    }
}

static void product_multiply(const attni_product_block *block) {
    const x_order order = order_of(block);
    const int64_t tiles = block->rows / ROWS;
    tile_columns columns = {
        .block = block,
        .next_step = tiles > 0 ? (STEP_BYTES + tiles - 1) / tiles : 0,
    };
    for (int64_t col = 0; col < block->cols && block->rows > 0;) {
        const int64_t left = block->cols - col;
        const int vectors = choose_vectors(block, order, left);
        const int64_t width = vectors * LANES;
        columns.strip = (const stored *)block->strips + col / STRIP_COLS * block->strip_stride +
                        col % STRIP_COLS;
        columns.col = col;
        columns.cols = left < width ? left : width;
        columns.next = (const char *)columns.strip;
        if (left > 2 * width - LANES) {
            columns.next = (const char *)((const stored *)block->strips +
                                          (col + width) / STRIP_COLS * block->strip_stride);
        }
        columns.is_direct = block->y_col_stride == 1 && left >= width;
        if (!block->is_added) {
            start_columns(&columns, width);
        }
        const int which = vectors == WIDE_VECTORS ? 2 : vectors == TILE_VECTORS;
        functions_of[order][which](&columns);
        col += width;
    }
}

/* ---- strips ---- */

#if defined(STORED_IS_REAL)

/* Squares of 16 bytes' side, where no larger ones are left, are transposed in registers of that
 * size, which every instruction set has. */
typedef real short_vector __attribute__((vector_size(16)));
typedef real short_in_memory __attribute__((vector_size(16), aligned(1), may_alias));

enum { SIDE = 16 / sizeof(real) };

INLINE void transpose_square(short_vector *rows) {
#if defined(ATTNI_REAL_IS_float)
    const short_vector a = __builtin_shufflevector(rows[0], rows[1], 0, 4, 1, 5);
    const short_vector b = __builtin_shufflevector(rows[0], rows[1], 2, 6, 3, 7);
    const short_vector c = __builtin_shufflevector(rows[2], rows[3], 0, 4, 1, 5);
    const short_vector d = __builtin_shufflevector(rows[2], rows[3], 2, 6, 3, 7);
    rows[0] = __builtin_shufflevector(a, c, 0, 1, 4, 5);
    rows[1] = __builtin_shufflevector(a, c, 2, 3, 6, 7);
    rows[2] = __builtin_shufflevector(b, d, 0, 1, 4, 5);
    rows[3] = __builtin_shufflevector(b, d, 2, 3, 6, 7);
#else
    const short_vector a = rows[0];
    rows[0] = __builtin_shufflevector(a, rows[1], 0, 2);
    rows[1] = __builtin_shufflevector(a, rows[1], 1, 3);
#endif
}

/* Squares of float32 as wide as a vector; returns the first k that is left to do. */
static int64_t pack_squares(real *strip, const real *w, int64_t col_stride, int64_t depth) {
    int64_t k = 0;
#if defined(ATTNI_REAL_IS_float)
    for (; k + LANES <= depth; k += LANES) {
        for (int c = 0; c < STRIP_COLS; c += LANES) {
            vector square[LANES];
            UNROLL
            for (int i = 0; i < LANES; ++i) {
                square[i] = load(w + (c + i) * col_stride + k);
            }
            transpose(square);
            UNROLL
            for (int i = 0; i < LANES; ++i) {
                store(strip + (k + i) * STRIP_COLS + c, square[i]);
            }
        }
    }
#else
    (void)strip, (void)w, (void)col_stride, (void)depth;
#endif
    return k;
}

/* A whole strip of columns that are dense along k; returns the first k that is left to do. */
static int64_t pack_columns(real *strip, const real *w, int64_t col_stride, int64_t depth) {
    int64_t k = pack_squares(strip, w, col_stride, depth);
    for (; k + SIDE <= depth; k += SIDE) {
        for (int c = 0; c < STRIP_COLS; c += SIDE) {
            short_vector square[SIDE];
            UNROLL
            for (int i = 0; i < SIDE; ++i) {
                square[i] = *(const short_in_memory *)(w + (c + i) * col_stride + k);
            }
            transpose_square(square);
            UNROLL
            for (int i = 0; i < SIDE; ++i) {
                *(short_in_memory *)(strip + (k + i) * STRIP_COLS + c) = square[i];
            }
        }
    }
    return k;
}

#else

/* Narrow elements are moved one by one; a copied weight is put in order once. */
static int64_t pack_columns(stored *strip, const stored *w, int64_t col_stride, int64_t depth) {
    for (int64_t k = 0; k < depth; ++k) {
        UNROLL
        for (int c = 0; c < STRIP_COLS; ++c) {
            strip[k * STRIP_COLS + c] = stored_at(w + c * col_stride + k);
        }
    }
    return depth;
}

#endif

static void product_pack(void *to, const void *from, int64_t k_stride, int64_t col_stride,
                         int64_t depth, int64_t cols) {
    stored *strip = to;
    const stored *w = from;
    int64_t k = 0;
    if (k_stride == 1 && cols == STRIP_COLS) {
        k = pack_columns(strip, w, col_stride, depth);
    }
    for (; k < depth; ++k) {
        const stored *row = w + k * k_stride;
        if (col_stride == 1 && cols == STRIP_COLS) {
            memcpy(strip + k * STRIP_COLS, row, STEP_BYTES);
            continue;
        }
        memset(strip + k * STRIP_COLS, 0, STEP_BYTES);
        for (int64_t c = 0; c < cols; ++c) {
            strip[k * STRIP_COLS + c] = stored_at(row + c * col_stride);
        }
    }
}

/* ---- scales of columns ---- */

INLINE void scale_row(real *y, int64_t stride, const real *scales, const real *shifts, int64_t n) {
    int64_t c = 0;
    for (; stride == 1 && c + LANES <= n; c += LANES) {
        store(y + c, load(y + c) * load(scales + c) + load(shifts + c));
    }
    for (; c < n; ++c) {
        real_in_memory *at = (real_in_memory *)(y + c * stride);
        *at = *at * load_scalar(scales + c) + load_scalar(shifts + c);
    }
}

static void product_scale(const attni_product_block *block, const void *scales) {
    tile_columns columns = {.block = block};
    for (; columns.col < block->cols; columns.col += MOST_COLS) {
        const int64_t left = block->cols - columns.col;
        columns.cols = left < MOST_COLS ? left : MOST_COLS;
        start_columns(&columns, columns.cols);
        for (int64_t r = 0; r < block->rows; ++r) {
            scale_row(y_at(block, r, columns.col), block->y_col_stride,
                      (const real *)scales + columns.col, columns.start, columns.cols);
        }
    }
}

const attni_product_kernels STORED_TABLE_NAME(product_kernels) = {
    .multiply = product_multiply,
    .pack = product_pack,
    .scale = product_scale,
};
