/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_dropout.c: what attn_sdpa and its queries say of attn_dropout. Probabilities are
 * where they are accepted so small that nothing is dropped, and what is kept stays as it is.
 */
#include <math.h>
#include <string.h>

#include "sdpa_refusal.h"

#define SIZE .struct_size = sizeof(attn_dropout)
#define SMALL .probability = 0x1p-40

static const sdpa_refusal wrong_probabilities[] = {
    {.name = "probability_of_1_is_refused",
     .params = {.dropout = &(const attn_dropout){SIZE, .probability = 1}},
     .status = ATTN_ERROR_VALUE,
     .line = "dropout.probability: expected 0 to below 1, got 1"},
    {.name = "probability_above_1_is_refused",
     .params = {.dropout = &(const attn_dropout){SIZE, .probability = INFINITY}},
     .status = ATTN_ERROR_VALUE,
     .line = "dropout.probability: expected 0 to below 1, got inf"},
    {.name = "probability_negative_is_refused",
     .params = {.dropout = &(const attn_dropout){SIZE, .probability = -0.5}},
     .status = ATTN_ERROR_VALUE,
     .line = "dropout.probability: expected 0 to below 1, got -0.5"},
    {.name = "probability_nan_is_refused",
     .params = {.dropout = &(const attn_dropout){SIZE, .probability = NAN}},
     .status = ATTN_ERROR_VALUE,
     .line = "dropout.probability: expected 0 to below 1, got nan"},
};

static const sdpa_refusal wrong_places[] = {
    {.name = "batch_negative_is_refused",
     .params = {.dropout = &(const attn_dropout){SIZE, SMALL, .batch = -1}},
     .status = ATTN_ERROR_VALUE,
     .line = "dropout.batch: expected 0 and up, got -1"},
    {.name = "head_negative_is_refused",
     .params = {.dropout = &(const attn_dropout){SIZE, SMALL, .head = -2}},
     .status = ATTN_ERROR_VALUE,
     .line = "dropout.head: expected 0 and up, got -2"},
    {.name = "row_negative_is_refused",
     .params = {.dropout = &(const attn_dropout){SIZE, SMALL, .row = INT64_MIN}},
     .status = ATTN_ERROR_VALUE,
     .line = "dropout.row: expected 0 and up, got -9223372036854775808"},
    {.name = "column_negative_is_refused_where_nothing_is_dropped_too",
     .params = {.dropout = &(const attn_dropout){SIZE, .column = -1}},
     .status = ATTN_ERROR_VALUE,
     .line = "dropout.column: expected 0 and up, got -1"},
    {.name = "batch_beyond_48_bits_is_refused",
     .params = {.dropout =
                    &(const attn_dropout){SIZE, SMALL, .batch = (INT64_C(1) << 48) - SDPA_N + 1}},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "dropout.batch: expected places below 2^48, got 281474976710655 and 2 from there on"},
    {.name = "head_beyond_16_bits_is_refused",
     .params = {.dropout = &(const attn_dropout){SIZE, SMALL, .head = (1 << 16) - SDPA_H + 1}},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "dropout.head: expected places below 2^16, got 65533 and 4 from there on"},
    {.name = "row_beyond_32_bits_is_refused",
     .params = {.dropout =
                    &(const attn_dropout){SIZE, SMALL, .row = (INT64_C(1) << 32) - SDPA_L + 1}},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "dropout.row: expected places below 2^32, got 4294967294 and 3 from there on"},
    {.name = "column_beyond_34_bits_is_refused",
     .params = {.dropout =
                    &(const attn_dropout){SIZE, SMALL, .column = (INT64_C(1) << 34) - SDPA_S + 1}},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "dropout.column: expected places below 2^34, got 17179869179 and 6 from there on"},
    {.name = "column_whose_end_is_no_int64_is_refused",
     .params = {.dropout = &(const attn_dropout){SIZE, .column = INT64_MAX}},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "dropout.column: expected places below 2^34, got 9223372036854775807 and 6 from there "
             "on"},
};

static const sdpa_refusal accepted[] = {
    {.name = "probability_0_is_accepted",
     .params = {.dropout = &(const attn_dropout){SIZE, .seed = 1, .offset = 2}}},
    {.name = "probability_minus_0_is_accepted",
     .params = {.dropout = &(const attn_dropout){SIZE, .probability = -0.0}}},
    {.name = "last_places_are_accepted",
     .params = {.dropout =
                    &(const attn_dropout){SIZE, SMALL, .seed = UINT64_MAX, .offset = UINT64_MAX,
                                          .batch = (INT64_C(1) << 48) - SDPA_N,
                                          .head = (1 << 16) - SDPA_H,
                                          .row = (INT64_C(1) << 32) - SDPA_L,
                                          .column = (INT64_C(1) << 34) - SDPA_S}}},
};

/* The largest number below 1 drops all but what has the highest of 2^32 words. */
static void probability_just_below_1_drops_everything(void **state) {
    (void)state;
    const attn_dropout dropout = {SIZE, .probability = nextafter(1, 0)};
    sdpa_fixture fixture;
    sdpa_fixture_prepare(&fixture, sdpa_refusal_context);
    fixture.options.dropout = &dropout;
    refusal_assert_ok("attn_sdpa", sdpa_fixture_run(&fixture));
    for (size_t i = 0; i < sizeof fixture.memory.output / sizeof fixture.memory.output[0]; ++i) {
        assert_true(fixture.memory.output[i] == 0);
    }
}

/* A dropout of `bytes` bytes, of which the last is not 0 where the library does not know it. */
static attn_status run_with_size(sdpa_fixture *fixture, uint64_t bytes) {
    union {
        attn_dropout known;
        unsigned char bytes[sizeof(attn_dropout) + 8];
    } given;
    memset(&given, 0, sizeof given);
    given.known.struct_size = bytes;
    if (bytes > sizeof given.known) {
        given.bytes[bytes - 1] = 1;
    }
    sdpa_fixture_prepare(fixture, sdpa_refusal_context);
    fixture->options.dropout = &given.known;
    return sdpa_fixture_run(fixture);
}

static void struct_size_other_than_known_is_refused(void **state) {
    (void)state;
    enum { KNOWN = sizeof(attn_dropout) };
    sdpa_fixture fixture;
    refusal_assert("attn_sdpa", run_with_size(&fixture, 0), ATTN_ERROR_VALUE,
                   refusal_size_line("dropout", KNOWN, 0));
    refusal_assert_untouched("output", fixture.memory.output, sizeof fixture.memory.output);
    refusal_assert("attn_sdpa", run_with_size(&fixture, KNOWN - 1), ATTN_ERROR_VALUE,
                   refusal_size_line("dropout", KNOWN, KNOWN - 1));
    refusal_assert("attn_sdpa", run_with_size(&fixture, KNOWN + 8), ATTN_ERROR_UNSUPPORTED,
                   refusal_newer_line("dropout", KNOWN, KNOWN + 7));
    refusal_assert_untouched("output", fixture.memory.output, sizeof fixture.memory.output);
    sdpa_refusal_assert_usable();
}

/* A gradient is refused what its call was refused. */
static void backward_refuses_it_too(void **state) {
    (void)state;
    const attn_dropout dropout = {SIZE, .probability = 2};
    float wanted[SDPA_N * SDPA_H * SDPA_L * SDPA_E];
    const int64_t shape[] = {SDPA_N, SDPA_H, SDPA_L, SDPA_E};
    const attn_tensor query = refusal_view(wanted, ATTN_DTYPE_FLOAT32, 4, shape);
    sdpa_fixture fixture;
    sdpa_fixture_prepare(&fixture, sdpa_refusal_context);
    sdpa_fixture_link(&fixture, SDPA_LSE);
    fixture.options.dropout = &dropout;
    const attn_sdpa_gradients gradients = {
        .struct_size = sizeof gradients, .output = fixture.arguments[SDPA_OUTPUT], .query = &query};
    refusal_fill(wanted, sizeof wanted);
    refusal_assert("attn_sdpa_backward",
                   attn_sdpa_backward(fixture.context, fixture.arguments[SDPA_QUERY],
                                      fixture.arguments[SDPA_KEY], fixture.arguments[SDPA_VALUE],
                                      &fixture.options, fixture.arguments[SDPA_OUTPUT], &gradients,
                                      NULL, 0),
                   ATTN_ERROR_VALUE, "dropout.probability: expected 0 to below 1, got 2");
    refusal_assert_untouched("the gradient of query", wanted, sizeof wanted);
}

static const struct CMUnitTest single_tests[] = {
    cmocka_unit_test(probability_just_below_1_drops_everything),
    cmocka_unit_test(struct_size_other_than_known_is_refused),
    cmocka_unit_test(backward_refuses_it_too),
};

int main(void) {
    static refusal_suite suite;
#define ADD(table) sdpa_refusal_add(&suite, table, sizeof table / sizeof table[0])
    ADD(wrong_probabilities);
    ADD(wrong_places);
    ADD(accepted);
#undef ADD
    for (size_t i = 0; i < sizeof single_tests / sizeof single_tests[0]; ++i) {
        refusal_suite_add(&suite, single_tests[i].name, single_tests[i].test_func, NULL);
    }
    return sdpa_refusal_main(&suite, "errors of dropout");
}
