/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_selftest_finds.c: attn_selftest beside a BLAS and kernels with one fault each. Linked so
 * that the library's product by BLAS, what it believes of that BLAS, and the kernels of a context
 * come from this file.
 */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <sched.h>
#include <stdatomic.h>

#include <attention/attention.h>

#include "blas_library/blas_library.h"
#include "context/context.h"
#include "gemm/gemm.h"
#include "selftest/planted_faults.h"
#include "tensor/element.h"

/* ---- a BLAS with a fault ---- */

/* Those of large products have more than 64 rows, as attention here has not: memory that attention
 * never wrote may not be read. */
enum blas_fault {
    BLAS_RIGHT,
    BLAS_CONFUSES_TRANSPOSED_B, /* NT only: one element is another */
    BLAS_ADDS_WITH_BETA_0,      /* large: what C held, here NaN, comes through */
    BLAS_FORGETS_C,             /* beta = 1 */
    BLAS_STRAYS_IN_C,           /* large: one element behind a row is written */
    BLAS_READS_PAST_A,          /* large: one element behind a row is read */
    BLAS_LOSES_LAST_ROW,        /* large */
    BLAS_SHARES_A_BUFFER        /* right for one caller only */
};

static enum blas_fault blas_fault;
static const char *blas_problem;
static atomic_int blas_calls;
static pthread_t main_thread;

bool __wrap_attni_blas_present(void);
bool __wrap_attni_blas_present(void) {
    return true;
}

bool __wrap_attni_blas_can_be_called(void);
bool __wrap_attni_blas_can_be_called(void) {
    return true;
}

bool __wrap_attni_gemm_blas_is_usable(void);
bool __wrap_attni_gemm_blas_is_usable(void) {
    return true;
}

int __wrap_attni_blas_max_callers(void);
int __wrap_attni_blas_max_callers(void) {
    return 64;
}

bool __wrap_attni_blas_may_stray_in_float32(void);
bool __wrap_attni_blas_may_stray_in_float32(void) {
    return false;
}

const char *__wrap_attni_blas_problem(void);
const char *__wrap_attni_blas_problem(void) {
    return blas_problem;
}

static char *address_of(const attni_matrix *matrix, int64_t row, int64_t col, int32_t dtype) {
    return matrix->data + (row * matrix->row_stride + col * matrix->col_stride) *
                              (int64_t)attn_dtype_size_bytes(dtype);
}

static double read(const attni_matrix *matrix, int64_t row, int64_t col, int32_t dtype) {
    return attni_read_real(address_of(matrix, row, col, dtype), 0, dtype);
}

static bool is_large(const attni_gemm_call *call) {
    return call->rows > 64;
}

/* Whether rows lie so far apart that something lies between them. */
static bool has_margin(const attni_matrix *matrix, int64_t cols) {
    return matrix->col_stride == 1 && matrix->row_stride > cols;
}

static double sum_of(const attni_gemm_call *call, int64_t row, int64_t col) {
    const bool reads_past =
        blas_fault == BLAS_READS_PAST_A && is_large(call) && has_margin(&call->a, call->inner);
    const int64_t inner = call->inner + (reads_past && row == 0);
    double sum = 0;
    for (int64_t i = 0; i < inner; ++i) {
        const int64_t k = i < call->inner ? i : 0;
        sum += read(&call->a, row, i, call->dtype) * read(&call->b, k, col, call->dtype);
    }
    return sum;
}

static double element_of(const attni_gemm_call *call, int64_t row, int64_t col) {
    const bool transposed_b = call->b.row_stride == 1 && call->b.col_stride != 1;
    if (blas_fault == BLAS_LOSES_LAST_ROW && is_large(call) && row == call->rows - 1) {
        return 0;
    }
    if (blas_fault == BLAS_CONFUSES_TRANSPOSED_B && transposed_b && call->cols > 2 && col == 2) {
        col = 1;
    }
    double old = read(&call->c, row, col, call->dtype);
    if (blas_fault == BLAS_ADDS_WITH_BETA_0 && is_large(call)) {
        old *= call->beta;
    } else {
        old = call->beta == 0 || blas_fault == BLAS_FORGETS_C ? 0 : old;
    }
    return call->alpha * sum_of(call, row, col) + old;
}

/* What a BLAS that was built for one caller does: every caller's sums in one place. Threads of the
 * self-test wait there for another's, so that it does not hang on the system whether they meet. */
static double through_shared_buffer(double number) {
    enum { MOST_YIELDS = 10000 };
    static _Atomic double buffer;
    static atomic_int num_stored;
    static atomic_bool have_met;
    atomic_store(&buffer, number);
    const int stored = atomic_fetch_add(&num_stored, 1) + 1;
    for (int i = 0; i < MOST_YIELDS && !pthread_equal(pthread_self(), main_thread) &&
                    !atomic_load(&have_met) && atomic_load(&num_stored) == stored;
         ++i) {
        sched_yield();
    }
    const double found = atomic_load(&buffer);
    if (found != number && !isnan(number)) {
        atomic_store(&have_met, true);
    }
    return found;
}

void __wrap_attni_gemm_blas(const attni_gemm_call *call);
void __wrap_attni_gemm_blas(const attni_gemm_call *call) {
    atomic_fetch_add(&blas_calls, 1);
    for (int64_t row = 0; row < call->rows; ++row) {
        for (int64_t col = 0; col < call->cols; ++col) {
            double number = element_of(call, row, col);
            if (blas_fault == BLAS_SHARES_A_BUFFER && col == 0) {
                number = through_shared_buffer(number);
            }
            attni_write_real(address_of(&call->c, row, col, call->dtype), 0, call->dtype, number);
        }
    }
    if (blas_fault == BLAS_STRAYS_IN_C && is_large(call) && has_margin(&call->c, call->cols)) {
        attni_write_real(address_of(&call->c, 0, call->cols, call->dtype), 0, call->dtype, 0);
    }
}

/* ---- kernels with a fault ---- */

/* The kernels of the right set; a fault is a copy of one table with one member from below, which
 * does what the right one does and then spoils a number, or leaves it out. */
static const attni_kernel_set *right;

static void product_float32(const attni_product_block *block) {
    right->products[ATTNI_STORED_FLOAT32]->multiply(block);
    *(float *)block->y += 1;
}

static void product_float64(const attni_product_block *block) {
    right->product_float64->multiply(block);
    *(double *)block->y += 1;
}

static void tile_score(float *tile, int32_t vectors, const float *panel, int64_t head_dim,
                       const float *keys, int64_t key_stride, int64_t num_keys, float *max,
                       attni_ahead *ahead) {
    right->tiles->score(tile, vectors, panel, head_dim, keys, key_stride, num_keys, max, ahead);
    tile[0] += 1;
}

static void tile_exponentiate(float *tile, int32_t vectors, int64_t num_keys,
                              attni_panel_state *state) {
    right->tiles->exponentiate(tile, vectors, num_keys, state);
    tile[0] += 1;
}

static void tile_weigh_values(const attni_value_tile *tile) {
    attni_value_tile fewer = *tile;
    fewer.value_dim -= fewer.value_dim > right->tiles->value_columns;
    right->tiles->weigh_values(&fewer);
}

static void lane_clip(float *tile, int32_t vectors, int64_t num_keys, const int32_t *begin,
                      const int32_t *end, float excluded) {
    (void)tile, (void)vectors, (void)num_keys, (void)begin, (void)end, (void)excluded;
}

static void lane_hide(float *tile, int32_t vectors, int64_t num_keys,
                      const unsigned char *const *rows, bool hidden_if, float excluded) {
    right->lanes->hide(tile, vectors, num_keys, rows, !hidden_if, excluded);
}

/* Takes some keys for hidden. */
static attni_mask_sight look_at_flags(const unsigned char *const *rows, int32_t num_rows,
                                      int64_t num_keys, bool hidden_if) {
    attni_mask_sight sight = right->masks->look_at_flags(rows, num_rows, num_keys, hidden_if);
    sight.begin += sight.end > 8 ? 4 : 0;
    return sight;
}

static void stream_score(float *tile, int64_t tile_stride, int32_t num_rows, const float *queries,
                         int64_t head_dim, const attni_stream_rows *keys, int64_t num_keys) {
    right->streams[ATTNI_STORED_FLOAT32]->score(tile, tile_stride, num_rows, queries, head_dim,
                                                keys, num_keys);
    tile[num_keys - 1] += 1;
}

static void stream_exponentiate(float *tile, int64_t tile_stride, int32_t num_rows,
                                int64_t num_keys, attni_panel_state *state) {
    right->streams[ATTNI_STORED_FLOAT32]->exponentiate(tile, tile_stride, num_rows, num_keys,
                                                       state);
    tile[0] += 1;
}

static void stream_weigh(float *sums, int64_t sum_stride, const float *rescale, const float *tile,
                         int64_t tile_stride, int32_t num_rows, const attni_stream_rows *values,
                         int64_t num_keys, int64_t value_dim) {
    right->streams[ATTNI_STORED_FLOAT32]->weigh(sums, sum_stride, rescale, tile, tile_stride,
                                                num_rows, values, num_keys, value_dim);
    sums[value_dim - 1] += 1;
}

static double row_exp_sum_float32(void *row, int64_t n, double max) {
    const double sum = right->float32->exp_sum(row, n, max);
    if (n > 0) {
        *(float *)row *= 1.01f;
    }
    return sum;
}

static double row_exp_sum_float64(void *row, int64_t n, double max) {
    const double sum = right->float64->exp_sum(row, n, max);
    if (n > 0) {
        *(double *)row *= 1.00001;
    }
    return sum;
}

static void row_hide(void *row, int64_t n, const unsigned char *flags, int64_t stride,
                     bool hidden_if, double excluded) {
    (void)row, (void)n, (void)flags, (void)stride, (void)hidden_if, (void)excluded;
}

static attni_kernel_set kernels;
static attni_row_kernels rows_float32;
static attni_row_kernels rows_float64;
static attni_product_kernels products_float32;
static attni_product_kernels products_float64;
static attni_tile_kernels tiles;
static attni_lane_kernels lanes;
static attni_mask_kernels masks;
static attni_stream_kernels streams;

static void make_kernels_right(void) {
    right = attni_kernel_set_find(NULL);
    rows_float32 = *right->float32;
    rows_float64 = *right->float64;
    products_float32 = *right->products[ATTNI_STORED_FLOAT32];
    products_float64 = *right->product_float64;
    tiles = *right->tiles;
    lanes = *right->lanes;
    masks = *right->masks;
    streams = *right->streams[ATTNI_STORED_FLOAT32];
    kernels = *right;
    kernels.float32 = &rows_float32;
    kernels.float64 = &rows_float64;
    kernels.products[ATTNI_STORED_FLOAT32] = &products_float32;
    kernels.product_float64 = &products_float64;
    kernels.tiles = &tiles;
    kernels.lanes = &lanes;
    kernels.masks = &masks;
    kernels.streams[ATTNI_STORED_FLOAT32] = &streams;
}

const attni_kernel_set *__wrap_attni_context_kernels(const attn_context *context);
const attni_kernel_set *__wrap_attni_context_kernels(const attn_context *context) {
    (void)context;
    return &kernels;
}

/* ---- what is found ---- */

/* The first check that failed. */
typedef struct first_failure {
    const char *check;
    attn_status status;
    char detail[512];
} first_failure;

static void note_first(void *state, const char *check, attn_status status, const char *detail) {
    first_failure *first = state;
    if (status != ATTN_OK && first->check == NULL) {
        first->check = check;
        first->status = status;
        (void)snprintf(first->detail, sizeof first->detail, "%s", detail);
    }
}

static attn_status run_noting(attn_context *context, first_failure *first) {
    const attn_selftest_params params = {
        .struct_size = sizeof params, .visit = note_first, .visit_state = first};
    return attn_selftest(context, &params);
}

static void assert_finds(int32_t gemm, const char *check, const char *text) {
    const attn_context_config params = {
        .struct_size = sizeof params, .num_threads = 2, .gemm = gemm};
    attn_context *context;
    first_failure first = {0};
    assert_int_equal(attn_context_create(&params, &context), ATTN_OK);
    const attn_status status = run_noting(context, &first);
    if (check == NULL && status != ATTN_OK) {
        fail_msg("nothing is wrong, and %s found: %s", first.check, first.detail);
    }
    if (check != NULL && status == ATTN_OK) {
        fail_msg("nothing was found, expected: %s: %s", check, text);
    }
    if (check != NULL) {
        assert_int_equal(status, ATTN_ERROR_SELFTEST);
        assert_string_equal(first.check, check);
        assert_string_equal(first.detail, attn_last_error());
        if (strstr(first.detail, text) == NULL) {
            fail_msg("expected \"%s\" in: %s", text, first.detail);
        }
    }
    attn_context_destroy(context);
}

static void faults_of_a_blas_are_found(void **state) {
    (void)state;
    static const struct {
        enum blas_fault fault;
        const char *check;
        const char *text;
    } cases[] = {
        {BLAS_RIGHT, NULL, NULL},
        {BLAS_CONFUSES_TRANSPOSED_B, "BLAS products, float32", ", B transposed"},
        {BLAS_ADDS_WITH_BETA_0, "BLAS products, float32", ", C overwritten: expected"},
        {BLAS_FORGETS_C, "BLAS products, float32", ", added to C: expected"},
        {BLAS_STRAYS_IN_C, "BLAS products, float32", " outside C, got 0"},
        {BLAS_READS_PAST_A, "BLAS products, float32", ", got nan"},
        {BLAS_LOSES_LAST_ROW, "BLAS products, float32",
         "float32 product by BLAS, 6 x 96 x 8, C transposed"},
        {BLAS_SHARES_A_BUFFER, "concurrent callers", ": expected "},
    };
    make_kernels_right();
    main_thread = pthread_self();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        if (fault_is_tried(cases[i].check)) {
            blas_fault = cases[i].fault;
            assert_finds(ATTN_GEMM_BLAS, cases[i].check, cases[i].text);
        }
    }
    blas_fault = BLAS_RIGHT;
}

static void blas_that_cannot_be_used_is_told_and_not_called(void **state) {
    (void)state;
    static const char *const names[] = {"BLAS products, float64", "BLAS products, float32"};
    for (int32_t gemm = ATTN_GEMM_AUTO; gemm <= ATTN_GEMM_BLAS; ++gemm) {
        const attn_context_config params = {
            .struct_size = sizeof params, .num_threads = 1, .gemm = gemm};
        attn_context *context;
        first_failure first = {0};
        make_kernels_right();
        assert_int_equal(attn_context_create(&params, &context), ATTN_OK);
        blas_problem = "it is made up";
        atomic_store(&blas_calls, 0);
        assert_int_equal(run_noting(context, &first), ATTN_ERROR_BLAS);
        blas_problem = NULL;
        assert_int_equal(atomic_load(&blas_calls), 0);
        assert_string_equal(first.check, names[gemm]);
        assert_non_null(strstr(first.detail, "it is made up"));
        attn_context_destroy(context);
    }
}

/* Whoever has no visit still learns of a wrong result, whatever could not be run before it. */
static void wrong_result_comes_before_what_could_not_be_run(void **state) {
    (void)state;
    const attn_context_config params = {.struct_size = sizeof params, .num_threads = 1};
    attn_context *context;
    make_kernels_right();
    products_float32.multiply = product_float32;
    assert_int_equal(attn_context_create(&params, &context), ATTN_OK);
    blas_problem = "it is made up";
    assert_int_equal(attn_selftest(context, NULL), ATTN_ERROR_SELFTEST);
    blas_problem = NULL;
    assert_non_null(strstr(attn_last_error(), "float32 product by the library"));
    attn_context_destroy(context);
}

static void faults_of_kernels_are_found(void **state) {
    (void)state;
    static const char attention[] = "attention, float32";
    static const char weights[] = "weights, float32";
#define FAULT(member, function, check, text)             \
    do {                                                 \
        if (fault_is_tried(check)) {                     \
            make_kernels_right();                        \
            (member) = (function);                       \
            assert_finds(ATTN_GEMM_NATIVE, check, text); \
        }                                                \
    } while (0)
    FAULT(products_float32.multiply, product_float32, "products, float32", " by the library, ");
    FAULT(products_float64.multiply, product_float64, "products, float64", " by the library, ");
    FAULT(tiles.score, tile_score, attention, "rows in blocks, float32: expected");
    FAULT(tiles.weigh_values, tile_weigh_values, attention, "rows in blocks");
    FAULT(lanes.clip, lane_clip, attention, "rows in blocks with options, float32");
    FAULT(lanes.hide, lane_hide, attention, "rows in blocks with options, float32");
    FAULT(masks.look_at_flags, look_at_flags, attention, "rows in blocks with options, float32");
    FAULT(streams.score, stream_score, attention, "decoding, float32");
    FAULT(streams.weigh, stream_weigh, attention, "decoding, float32");
    FAULT(tiles.exponentiate, tile_exponentiate, weights, "attention with softmax, float32");
    FAULT(streams.exponentiate, stream_exponentiate, weights, "attention with softmax, float32");
    FAULT(rows_float32.exp_sum, row_exp_sum_float32, weights, "softmax, float32");
    FAULT(rows_float64.exp_sum, row_exp_sum_float64, "weights, float64", "softmax, float64");
    FAULT(rows_float64.hide, row_hide, "attention, float64", "rows in blocks with options");
#undef FAULT
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(faults_of_a_blas_are_found),
        cmocka_unit_test(blas_that_cannot_be_used_is_told_and_not_called),
        cmocka_unit_test(wrong_result_comes_before_what_could_not_be_run),
        cmocka_unit_test(faults_of_kernels_are_found),
    };
    return cmocka_run_group_tests_name("faults that the self-test finds", tests, NULL, NULL);
}
