/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_safetensors_read.c: the reader on good files, and on damaged ones by the thousand. Run with
 * the address sanitizer it also shows that nothing outside the file is touched.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "reader_open.h"
#include "safetensors_read.h"
#include "scratch_files.h"

static safetensors_file *open_good(void **state, const char *header, size_t data_bytes) {
    char error[1000] = "";
    safetensors_file *file = reader_open_header(state, header, data_bytes, error, sizeof error);
    if (file == NULL) {
        fail_msg("refused: %s", error);
    }
    return file;
}

/* ---- good files ---- */

static void reader_two_tensors_and_metadata_gives_all_fields(void **state) {
    safetensors_file *file =
        open_good(state,
                  "{\"__metadata__\":{\"num_heads\":\"12\",\"empty\":\"\"},"
                  "\"b\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[4,28]},"
                  "\"a\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]}}",
                  28);
    assert_int_equal(safetensors_count(file), 2);
    const safetensors_entry *first = safetensors_at(file, 0);
    const safetensors_entry *second = safetensors_at(file, 1);
    assert_string_equal(first->name, "a");
    assert_string_equal(first->dtype, "F16");
    assert_int_equal(first->rank, 1);
    assert_int_equal(first->shape[0], 2);
    assert_int_equal(first->data_bytes, 4);
    assert_string_equal(second->name, "b");
    assert_int_equal(second->rank, 2);
    assert_int_equal(second->shape[1], 3);
    assert_int_equal(second->data_bytes, 24);
    assert_int_equal(((const unsigned char *)second->data)[0], 4);
    assert_int_equal(((const unsigned char *)second->data)[23], 27);
    assert_ptr_equal(safetensors_find(file, "a"), first);
    assert_ptr_equal(safetensors_find(file, "b"), second);
    assert_null(safetensors_find(file, "c"));
    assert_null(safetensors_find(file, "__metadata__"));
    assert_null(safetensors_at(file, -1));
    assert_null(safetensors_at(file, 2));
    assert_string_equal(safetensors_metadata(file, "num_heads"), "12");
    assert_string_equal(safetensors_metadata(file, "empty"), "");
    assert_null(safetensors_metadata(file, "num_Heads"));
    safetensors_close(file);
}

static void reader_no_tensors_is_accepted(void **state) {
    safetensors_file *file = open_good(state, "{}", 0);
    assert_int_equal(safetensors_count(file), 0);
    assert_null(safetensors_at(file, 0));
    assert_null(safetensors_find(file, "a"));
    assert_null(safetensors_metadata(file, "a"));
    safetensors_close(file);
}

static void reader_rank_zero_and_empty_tensors_are_accepted(void **state) {
    safetensors_file *file =
        open_good(state,
                  "{\"scalar\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[0,8]},"
                  "\"empty\":{\"dtype\":\"F32\",\"shape\":[3,0,2],\"data_offsets\":[8,8]},"
                  "\"none\":{\"dtype\":\"I64\",\"shape\":[0],\"data_offsets\":[0,0]}}  \n ",
                  8);
    assert_int_equal(safetensors_find(file, "scalar")->rank, 0);
    assert_int_equal(safetensors_find(file, "scalar")->data_bytes, 8);
    assert_int_equal(safetensors_find(file, "empty")->data_bytes, 0);
    assert_int_equal(safetensors_find(file, "empty")->shape[1], 0);
    assert_int_equal(safetensors_find(file, "none")->data_bytes, 0);
    safetensors_close(file);
}

static void reader_every_dtype_has_its_size(void **state) {
    static const struct {
        const char *dtype;
        size_t bytes_of_eight;
    } cases[] = {{"BOOL", 8},        {"U8", 8},         {"I8", 8},      {"F8_E4M3", 8},
                 {"F8_E5M2", 8},     {"F8_E8M0", 8},    {"F16", 16},    {"BF16", 16},
                 {"I16", 16},        {"U16", 16},       {"I32", 32},    {"U32", 32},
                 {"F32", 32},        {"F64", 64},       {"I64", 64},    {"U64", 64},
                 {"C64", 64},        {"F4", 4},         {"F6_E2M3", 6}, {"F6_E3M2", 6},
                 {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char header[200];
        char error[1000] = "";
        (void)snprintf(header, sizeof header,
                       "{\"x\":{\"dtype\":\"%s\",\"shape\":[8],\"data_offsets\":[0,%zu]}}",
                       cases[i].dtype, cases[i].bytes_of_eight);
        safetensors_close(open_good(state, header, cases[i].bytes_of_eight));
        (void)snprintf(header, sizeof header,
                       "{\"x\":{\"dtype\":\"%s\",\"shape\":[8],\"data_offsets\":[0,%zu]}}",
                       cases[i].dtype, cases[i].bytes_of_eight + 1);
        assert_null(
            reader_open_header(state, header, cases[i].bytes_of_eight + 1, error, sizeof error));
    }
}

/* As the format's own reader does. */
static void reader_unknown_keys_of_a_tensor_are_stepped_over(void **state) {
    safetensors_file *file = open_good(
        state,
        "{\"t\":{\"new\":{\"dtype\":[1.5,{\"shape\":null}]},\"dtype\":\"U8\",\"x\":\"]}\","
        "\"shape\":[2],\"data_offsets\":[0,2],\"y\":-1e3}}",
        2);
    assert_int_equal(safetensors_count(file), 1);
    assert_string_equal(safetensors_find(file, "t")->dtype, "U8");
    assert_int_equal(safetensors_find(file, "t")->data_bytes, 2);
    safetensors_close(file);
}

static void reader_names_and_metadata_are_decoded(void **state) {
    safetensors_file *file =
        open_good(state,
                  "{\"__metadata__\":{\"b\":\"2\",\"a\\n\":\"\\u00e9\\ud834\\udd1e\",\"c\":\"3\"},"
                  "\"\\u0061/\\/\\\"\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
                  1);
    assert_non_null(safetensors_find(file, "a//\""));
    assert_string_equal(safetensors_metadata(file, "a\n"), "\xc3\xa9\xf0\x9d\x84\x9e");
    assert_string_equal(safetensors_metadata(file, "b"), "2");
    assert_string_equal(safetensors_metadata(file, "c"), "3");
    assert_null(safetensors_metadata(file, "a"));
    safetensors_close(file);
}

static void reader_rank_nine_is_marked_and_others_are_usable(void **state) {
    safetensors_file *file = open_good(
        state,
        "{\"nine\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,2]},"
        "\"eight\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,2],\"data_offsets\":[2,4]}}",
        4);
    assert_int_equal(safetensors_find(file, "nine")->rank, SAFETENSORS_RANK_TOO_HIGH);
    assert_int_equal(safetensors_find(file, "eight")->rank, 8);
    assert_int_equal(safetensors_find(file, "eight")->shape[7], 2);
    safetensors_close(file);
}

static void reader_many_tensors_are_all_found(void **state) {
    enum { COUNT = 500 };
    char *header = calloc(COUNT, 100);
    size_t used = 1;
    assert_non_null(header);
    header[0] = '{';
    for (int i = 0; i < COUNT; i++) {
        used += (size_t)sprintf(
            header + used, "%s\"t%d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
            i == 0 ? "" : ",", (i * 7) % COUNT, i, i + 1);
    }
    header[used] = '}';
    safetensors_file *file = open_good(state, header, COUNT);
    for (int i = 0; i < COUNT; i++) {
        char name[20];
        (void)snprintf(name, sizeof name, "t%d", (i * 7) % COUNT);
        assert_non_null(safetensors_find(file, name));
        assert_int_equal(((const unsigned char *)safetensors_find(file, name)->data)[0], i & 0xff);
    }
    safetensors_close(file);
    free(header);
}

static void reader_escaped_backslash_before_u0000_is_text(void **state) {
    safetensors_file *file = open_good(state, "{\"__metadata__\":{\"k\":\"\\\\u0000\"}}", 0);
    assert_string_equal(safetensors_metadata(file, "k"), "\\u0000");
    safetensors_close(file);
}

/* ---- damaged files ---- */

static const char whole_header[] =
    "{\"__metadata__\":{\"tokens.0\":\"[\\\"a\\\",\\\"b\\\"]\"},"
    "\"in_proj_weight\":{\"dtype\":\"F32\",\"shape\":[3,1],\"data_offsets\":[0,12]},"
    "\"mask\":{\"dtype\":\"BOOL\",\"shape\":[2,2],\"data_offsets\":[12,16]}}";

/* Reads every byte the file hands out, so that a sanitizer sees what lies outside. */
static unsigned touch_everything(const safetensors_file *file) {
    unsigned sum = 0;
    for (int64_t i = 0; i < safetensors_count(file); i++) {
        const safetensors_entry *entry = safetensors_at(file, i);
        assert_ptr_equal(safetensors_find(file, entry->name), entry);
        for (size_t byte = 0; byte < entry->data_bytes; byte++) {
            sum += ((const unsigned char *)entry->data)[byte];
        }
        sum += (unsigned)strlen(entry->dtype);
    }
    return sum + (safetensors_metadata(file, "tokens.0") != NULL);
}

static void reader_file_cut_at_every_byte_is_refused(void **state) {
    char path[SCRATCH_PATH_BYTES];
    char error[1000];
    size_t bytes = 0;
    scratch_write_safetensors(scratch_path(state, "whole.safetensors", path), whole_header, 16);
    char *whole = scratch_read(path, &bytes);
    scratch_path(state, "cut.safetensors", path);
    for (size_t length = 0; length < bytes; length++) {
        scratch_write(path, whole, length);
        safetensors_file *file = reader_open(path, error, sizeof error);
        if (file != NULL) {
            safetensors_close(file);
            fail_msg("accepted after %zu of %zu bytes", length, bytes);
        }
    }
    scratch_write(path, whole, bytes);
    safetensors_file *file = reader_open(path, error, sizeof error);
    assert_non_null(file);
    assert_int_equal(touch_everything(file), 120 + 3 + 4 + 1);
    safetensors_close(file);
    free(whole);
}

/* A multiplicative generator, the same on every machine. */
static uint32_t next_random(uint32_t *state) {
    *state = (uint32_t)((uint64_t)*state * 48271 % 2147483647);
    return *state;
}

static void reader_damaged_files_are_refused_or_consistent(void **state) {
    char path[SCRATCH_PATH_BYTES];
    char error[1000];
    size_t bytes = 0;
    uint32_t random = 2026;
    int accepted = 0;
    scratch_write_safetensors(scratch_path(state, "whole.safetensors", path), whole_header, 16);
    char *whole = scratch_read(path, &bytes);
    char *damaged = malloc(bytes);
    assert_non_null(damaged);
    scratch_path(state, "damaged.safetensors", path);
    for (int round = 0; round < 10000; round++) {
        memcpy(damaged, whole, bytes);
        for (uint32_t change = next_random(&random) % 3 + 1; change > 0; change--) {
            static const char likely[] = "0123456789{}[]\",:\\-.eu \0\xff";
            damaged[next_random(&random) % bytes] =
                likely[next_random(&random) % (sizeof likely - 1)];
        }
        scratch_write(path, damaged, bytes);
        safetensors_file *file = reader_open(path, error, sizeof error);
        if (file != NULL) {
            (void)touch_everything(file);
            accepted++;
        }
        safetensors_close(file);
    }
    /* Damage to data, to a name or to metadata goes unnoticed, so some are accepted; most are not.
     */
    assert_in_range(accepted, 1, 5000);
    free(damaged);
    free(whole);
}

int main(void) {
#define SCRATCH_TEST(test) cmocka_unit_test_setup_teardown(test, scratch_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        SCRATCH_TEST(reader_two_tensors_and_metadata_gives_all_fields),
        SCRATCH_TEST(reader_no_tensors_is_accepted),
        SCRATCH_TEST(reader_rank_zero_and_empty_tensors_are_accepted),
        SCRATCH_TEST(reader_every_dtype_has_its_size),
        SCRATCH_TEST(reader_unknown_keys_of_a_tensor_are_stepped_over),
        SCRATCH_TEST(reader_names_and_metadata_are_decoded),
        SCRATCH_TEST(reader_rank_nine_is_marked_and_others_are_usable),
        SCRATCH_TEST(reader_many_tensors_are_all_found),
        SCRATCH_TEST(reader_escaped_backslash_before_u0000_is_text),
        SCRATCH_TEST(reader_file_cut_at_every_byte_is_refused),
        SCRATCH_TEST(reader_damaged_files_are_refused_or_consistent),
    };
    return cmocka_run_group_tests_name("safetensors_read", tests, NULL, NULL);
}
