/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_safetensors_refuse.c: every kind of broken file is refused, with an error that says why.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <sys/stat.h>

#include "reader_open.h"
#include "safetensors_read.h"
#include "scratch_files.h"

/* A header that must be refused, and what the error must contain. */
typedef struct broken_header {
    const char *header;
    size_t data_bytes;
    const char *error;
} broken_header;

static void assert_all_refused(void **state, const broken_header *cases, size_t count) {
    for (size_t i = 0; i < count; i++) {
        char error[1000] = "";
        safetensors_file *file =
            reader_open_header(state, cases[i].header, cases[i].data_bytes, error, sizeof error);
        if (file != NULL) {
            safetensors_close(file);
            fail_msg("accepted: %s", cases[i].header);
        }
        if (strstr(error, cases[i].error) == NULL) {
            fail_msg("header %s: expected an error with '%s', got '%s'", cases[i].header,
                     cases[i].error, error);
        }
    }
}

#define ASSERT_ALL_REFUSED(state, cases) \
    assert_all_refused(state, cases, sizeof(cases) / sizeof(cases)[0])

static void reader_header_that_is_no_json_object_is_refused(void **state) {
    static const broken_header cases[] = {
        {"", 0, "does not begin with '{'"},
        {"[]", 0, "does not begin with '{'"},
        {" {}", 0, "does not begin with '{'"},
        {"{", 0, "JSON error"},
        {"{\"a\":", 0, "JSON error"},
        {"{\"1\":1,", 0, "JSON error"},
        {"{\"a\"}", 0, "JSON error"},
        {"{\"a\":\"\\ud800\"}", 0, "JSON error"},
        {"{\"a\nb\":1}", 0, "JSON error at byte 3"},
        {"{\"a\x1b[31mb\":1}", 0, "JSON error at byte 3"},
        {"{\"a\\x\":1}", 0, "JSON error at byte 5"},
        {"{'a':1}", 0, "JSON error at byte 1"},
        {"{\"a\":1,}", 0, "JSON error at byte 7"},
        {"{\f}", 0, "JSON error at byte 1"},
        {"{}\v", 0, "text after the JSON object"},
        {"{},", 0, "text after the JSON object"},
        {"\xef\xbb\xbf{}", 0, "does not begin with '{'"},
        {"{}x", 0, "text after the JSON object"},
        {"{}{}", 0, "text after the JSON object"},
        {"{\"\xff\":1}", 0, "not valid UTF-8"},
        {"{\"\xc0\x80\":1}", 0, "not valid UTF-8"},
        {"{\"a\\u0000b\":1}", 0, "contains a zero byte"},
    };
    ASSERT_ALL_REFUSED(state, cases);
}

static void reader_zero_byte_in_header_is_refused(void **state) {
    char path[SCRATCH_PATH_BYTES];
    char error[1000] = "";
    scratch_write(scratch_path(state, "zero.safetensors", path), "\x04\0\0\0\0\0\0\0{}\0 ", 12);
    assert_null(reader_open(path, error, sizeof error));
    assert_non_null(strstr(error, "contains a zero byte"));
}

static void reader_tensor_of_wrong_form_is_refused(void **state) {
    static const broken_header cases[] = {
        {"{\"x\":1}", 0, "x: expected an object"},
        {"{\"x\":{}}", 0, "x: dtype: expected a string"},
        {"{\"x\":{\"dtype\":1,\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
         "x: dtype: expected a string"},
        {"{\"x\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, "x: shape: expected an array"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":1,\"data_offsets\":[0,1]}}", 1,
         "x: shape: expected an array"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[\"1\"],\"data_offsets\":[0,1]}}", 1,
         "x: shape: axis 0 is not an integer"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1,1.5],\"data_offsets\":[0,1]}}", 1,
         "x: shape: axis 1 is not an integer"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[0,1]}}", 1,
         "x: shape: axis 0 is not an integer"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1e400],\"data_offsets\":[0,1]}}", 1,
         "x: shape: axis 0 is not an integer"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[9007199254740994],\"data_offsets\":[0,1]}}", 1,
         "x: shape: axis 0 is not an integer"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "x: data_offsets: expected two integers"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1,
         "x: data_offsets: expected two integers"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]}}", 1,
         "x: data_offsets: expected two integers"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,0.5]}}", 1,
         "x: data_offsets: expected two integers"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":{\"a\":0,\"b\":1}}}", 1,
         "x: data_offsets: expected two integers"},
    };
    ASSERT_ALL_REFUSED(state, cases);
}

static void reader_key_twice_in_a_tensor_is_refused(void **state) {
    static const broken_header cases[] = {
        {"{\"x\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
         "x: dtype: the key occurs twice"},
        {"{\"x\":{\"dtype\":\"U8\",\"d\\u0074ype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
         1, "x: dtype: the key occurs twice"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
         "x: shape: the key occurs twice"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,9],\"data_offsets\":[0,1]}}",
         1, "x: data_offsets: the key occurs twice"},
    };
    ASSERT_ALL_REFUSED(state, cases);
}

static void reader_number_that_is_no_json_integer_is_refused(void **state) {
    static const broken_header cases[] = {
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1.0],\"data_offsets\":[0,1]}}", 1,
         "x: shape: axis 0 is not an integer"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1e0],\"data_offsets\":[0,1]}}", 1,
         "x: shape: axis 0 is not an integer"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[-0],\"data_offsets\":[0,1]}}", 1,
         "x: shape: axis 0 is not an integer"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[true],\"data_offsets\":[0,1]}}", 1,
         "x: shape: axis 0 is not an integer"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[[1]],\"data_offsets\":[0,1]}}", 1,
         "x: shape: axis 0 is not an integer"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1,null],\"data_offsets\":[0,1]}}", 1,
         "x: shape: axis 1 is not an integer"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":{\"0\":1},\"data_offsets\":[0,1]}}", 1,
         "x: shape: expected an array"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":null,\"data_offsets\":[0,1]}}", 1,
         "x: shape: expected an array"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[01],\"data_offsets\":[0,1]}}", 1,
         "JSON error at byte 29"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1.],\"data_offsets\":[0,1]}}", 1,
         "JSON error at byte 30"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[+1],\"data_offsets\":[0,1]}}", 1,
         "JSON error at byte 28"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1,],\"data_offsets\":[0,1]}}", 1,
         "JSON error at byte 30"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[0x1],\"data_offsets\":[0,1]}}", 1,
         "JSON error at byte 29"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[\v1],\"data_offsets\":[0,1]}}", 1,
         "JSON error at byte 28"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0.0,1]}}", 1,
         "x: data_offsets: expected two integers"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1.0]}}", 1,
         "x: data_offsets: expected two integers"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1e0]}}", 1,
         "x: data_offsets: expected two integers"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[-0,1]}}", 1,
         "x: data_offsets: expected two integers"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[-1,1]}}", 1,
         "x: data_offsets: expected two integers"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[\"0\",1]}}", 1,
         "x: data_offsets: expected two integers"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,[1]]}}", 1,
         "x: data_offsets: expected two integers"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[]}}", 1,
         "x: data_offsets: expected two integers"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":\"0,1\"}}", 1,
         "x: data_offsets: expected two integers"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":null}}", 1,
         "x: data_offsets: expected two integers"},
    };
    ASSERT_ALL_REFUSED(state, cases);
}

static void reader_dtype_the_format_does_not_have_is_refused(void **state) {
    static const broken_header cases[] = {
        {"{\"x\":{\"dtype\":\"u8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
         "x: dtype: the format has none named 'u8'"},
        {"{\"x\":{\"dtype\":\"\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
         "x: dtype: the format has none named ''"},
        {"{\"x\":{\"dtype\":\"Q3_K\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
         "x: dtype: the format has none named 'Q3_K'"},
        {"{\"x\":{\"dtype\":null,\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
         "x: dtype: expected a string"},
        {"{\"x\":{\"dtype\":[\"U8\"],\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
         "x: dtype: expected a string"},
        {"{\"x\":[\"U8\",[1],[0,1]]}", 1, "x: expected an object"},
        {"{\"x\":null}", 0, "x: expected an object"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"y\":[1,}}", 1,
         "JSON error"},
    };
    ASSERT_ALL_REFUSED(state, cases);
}

static void reader_offsets_outside_the_file_are_refused(void **state) {
    static const broken_header cases[] = {
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 1,
         "x: data_offsets [0, 2] lie outside the file's 1 data bytes"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,1]}}", 2,
         "x: data_offsets [2, 1] lie outside"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[5,5]}}", 2,
         "x: data_offsets [5, 5] lie outside"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[9007199254740991,"
         "9007199254740992]}}",
         1, "lie outside"},
    };
    ASSERT_ALL_REFUSED(state, cases);
}

static void reader_offsets_that_disagree_with_the_shape_are_refused(void **state) {
    static const broken_header cases[] = {
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4,
         "cover 4 bytes, but shape and dtype F32 need 8"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,1]}}", 1,
         "cover 1 bytes, but shape and dtype U8 need 0"},
        {"{\"x\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2, "need 2"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
         "the number of elements overflows"},
        {"{\"x\":{\"dtype\":\"F64\",\"shape\":[9007199254740992,256],\"data_offsets\":[0,0]}}", 0,
         "the number of bytes overflows"},
    };
    ASSERT_ALL_REFUSED(state, cases);
}

static void reader_gaps_overlaps_and_leftovers_are_refused(void **state) {
    static const broken_header cases[] = {
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"U8\","
         "\"shape\":[2],\"data_offsets\":[1,3]}}",
         3, "b: data_offsets begin at 1, inside the tensor that ends at 2"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"U8\","
         "\"shape\":[2],\"data_offsets\":[0,2]}}",
         2, "inside the tensor that ends at 2"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"b\":{\"dtype\":\"U8\","
         "\"shape\":[1],\"data_offsets\":[2,3]}}",
         3, "b: data_offsets begin at 2, leaving a gap after 1"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", 2,
         "leaving a gap after 0"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 2,
         "1 bytes follow the last tensor"},
        {"{}", 5, "5 bytes follow the last tensor"},
    };
    ASSERT_ALL_REFUSED(state, cases);
}

static void reader_duplicate_names_are_refused(void **state) {
    static const broken_header cases[] = {
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},\"a\":{\"dtype\":\"U8\","
         "\"shape\":[0],\"data_offsets\":[0,0]}}",
         0, "a: the name occurs twice"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},"
         "\"\\u0061\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
         0, "a: the name occurs twice"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "__metadata__: the name occurs twice"},
        {"{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0, "k: the name occurs twice"},
    };
    ASSERT_ALL_REFUSED(state, cases);
}

static void reader_metadata_of_wrong_form_is_refused(void **state) {
    static const broken_header cases[] = {
        {"{\"__metadata__\":1}", 0, "__metadata__: expected an object"},
        {"{\"__metadata__\":[\"a\"]}", 0, "__metadata__: expected an object"},
        {"{\"__metadata__\":null}", 0, "__metadata__: expected an object"},
        {"{\"__metadata__\":{\"k\":1}}", 0, "__metadata__: k: expected a string"},
        {"{\"__metadata__\":{\"k\":null}}", 0, "__metadata__: k: expected a string"},
        {"{\"__metadata__\":{\"k\":{\"l\":\"m\"}}}", 0, "__metadata__: k: expected a string"},
    };
    ASSERT_ALL_REFUSED(state, cases);
}

static void reader_control_characters_in_names_do_not_reach_the_error(void **state) {
    char error[1000] = "";
    assert_null(reader_open_header(state, "{\"a\\n\\u001b[31mb\":1}", 0, error, sizeof error));
    assert_non_null(strstr(error, "a??[31mb: expected an object"));
}

static void reader_header_length_beyond_the_file_is_refused(void **state) {
    char path[SCRATCH_PATH_BYTES];
    char error[1000] = "";
    scratch_write(scratch_path(state, "long.safetensors", path), "\x03\0\0\0\0\0\0\0{}", 10);
    assert_null(reader_open(path, error, sizeof error));
    assert_non_null(strstr(error, "header: 3 bytes announced, but only 2 follow"));
    scratch_write(path, "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10);
    assert_null(reader_open(path, error, sizeof error));
    assert_non_null(strstr(error, "exceed the format's limit"));
}

static void reader_short_missing_and_irregular_files_are_refused(void **state) {
    char path[SCRATCH_PATH_BYTES];
    char error[1000] = "";
    scratch_write(scratch_path(state, "short.safetensors", path), "\x02\0\0\0\0\0\0", 7);
    assert_null(reader_open(path, error, sizeof error));
    assert_non_null(strstr(error, "7 bytes are too few"));
    scratch_write(path, "", 0);
    assert_null(reader_open(path, error, sizeof error));
    assert_null(reader_open(scratch_path(state, "absent.safetensors", path), error, sizeof error));
    assert_string_equal(error, "No such file or directory");
    assert_null(reader_open(*state, error, sizeof error));
    assert_string_equal(error, "not a regular file");
    assert_int_equal(mkfifo(scratch_path(state, "fifo", path), 0600), 0);
    assert_null(reader_open(path, error, sizeof error));
    assert_string_equal(error, "not a regular file");
}

static void reader_error_is_cut_to_the_buffer(void **state) {
    char path[SCRATCH_PATH_BYTES];
    char error[12];
    safetensors_file *file = NULL;
    memset(error, 'x', sizeof error);
    scratch_path(state, "absent.safetensors", path);
    assert_int_not_equal(safetensors_open(path, &file, error, 10), 0);
    assert_int_equal(strlen(error), 9);
    assert_int_equal(error[10], 'x');
    assert_int_not_equal(safetensors_open(path, &file, error, 0), 0);
    assert_int_equal(strlen(error), 9);
}

int main(void) {
#define SCRATCH_TEST(test) cmocka_unit_test_setup_teardown(test, scratch_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        SCRATCH_TEST(reader_header_that_is_no_json_object_is_refused),
        SCRATCH_TEST(reader_zero_byte_in_header_is_refused),
        SCRATCH_TEST(reader_tensor_of_wrong_form_is_refused),
        SCRATCH_TEST(reader_key_twice_in_a_tensor_is_refused),
        SCRATCH_TEST(reader_number_that_is_no_json_integer_is_refused),
        SCRATCH_TEST(reader_dtype_the_format_does_not_have_is_refused),
        SCRATCH_TEST(reader_offsets_outside_the_file_are_refused),
        SCRATCH_TEST(reader_offsets_that_disagree_with_the_shape_are_refused),
        SCRATCH_TEST(reader_gaps_overlaps_and_leftovers_are_refused),
        SCRATCH_TEST(reader_duplicate_names_are_refused),
        SCRATCH_TEST(reader_metadata_of_wrong_form_is_refused),
        SCRATCH_TEST(reader_control_characters_in_names_do_not_reach_the_error),
        SCRATCH_TEST(reader_header_length_beyond_the_file_is_refused),
        SCRATCH_TEST(reader_short_missing_and_irregular_files_are_refused),
        SCRATCH_TEST(reader_error_is_cut_to_the_buffer),
    };
    return cmocka_run_group_tests_name("safetensors_refuse", tests, NULL, NULL);
}
