/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_token_lists.c: words from metadata, and text that is safe to print and draw.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "printable_text.h"
#include "scratch_files.h"
#include "token_lists.h"

static safetensors_file *make_file(void **state, const char *metadata) {
    char path[SCRATCH_PATH_BYTES];
    char header[1000];
    char error[500] = "";
    safetensors_file *file = NULL;
    (void)snprintf(header, sizeof header, "{\"__metadata__\":{%s}}", metadata);
    scratch_write_safetensors(scratch_path(state, "words.safetensors", path), header, 0);
    if (safetensors_open(path, &file, error, sizeof error) != 0) {
        fail_msg("%s", error);
    }
    return file;
}

static void tokens_of_two_sequences_are_read(void **state) {
    char error[300] = "";
    token_table table;
    safetensors_file *file = make_file(
        state,
        "\"tokens.0\":\"[\\\"river\\\",\\\"bank\\\"]\",\"tokens.1\":\"[]\",\"tokens.3\":\"[]\"");
    assert_int_equal(token_table_read(file, "tokens", &table, error, sizeof error), 0);
    assert_int_equal(table.count, 2);
    assert_int_equal(table.lists[0].count, 2);
    assert_string_equal(token_word(&table, 0, 0), "river");
    assert_string_equal(token_word(&table, 0, 1), "bank");
    assert_null(token_word(&table, 0, 2));
    assert_null(token_word(&table, 1, 0));
    assert_null(token_word(&table, 2, 0));
    token_table_free(&table);
    safetensors_close(file);
}

static void tokens_absent_is_an_empty_table(void **state) {
    char error[300] = "";
    token_table table;
    safetensors_file *file = make_file(state, "");
    assert_int_equal(token_table_read(file, "tokens", &table, error, sizeof error), 0);
    assert_int_equal(table.count, 0);
    assert_null(token_word(&table, 0, 0));
    token_table_free(&table);
    safetensors_close(file);
}

static void tokens_that_are_no_list_of_strings_are_refused(void **state) {
    static const char *const broken[] = {"",
                                         "[",
                                         "{}",
                                         "1",
                                         "[1]",
                                         "[]x",
                                         "[\\\"a\\\",]",
                                         "[\\\"a\\\" \\\"b\\\"]",
                                         "[\\\"a\\nb\\\"]",
                                         "[\\\"\\\\u0000\\\"]",
                                         "[\\\"a\\\",null]",
                                         "[\\\"\\\\ud800\\\"]"};
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        char metadata[200];
        char error[300] = "";
        token_table table;
        (void)snprintf(metadata, sizeof metadata, "\"tokens.0\":\"%s\"", broken[i]);
        safetensors_file *file = make_file(state, metadata);
        assert_int_equal(token_table_read(file, "tokens", &table, error, sizeof error), -1);
        assert_string_equal(error, "metadata tokens.0: expected a JSON array of strings");
        token_table_free(&table);
        safetensors_close(file);
    }
}

static void tokens_with_control_characters_become_printable(void **state) {
    char error[300] = "";
    token_table table;
    safetensors_file *file =
        make_file(state, "\"tokens.0\":\"[\\\"a\\\\nb\\\\u001b\\\\u0085\\\"]\"");
    assert_int_equal(token_table_read(file, "tokens", &table, error, sizeof error), 0);
    assert_string_equal(token_word(&table, 0, 0), "a?b???");
    token_table_free(&table);
    safetensors_close(file);
}

static void tokens_that_occur_twice_are_told(void **state) {
    char error[300] = "";
    token_table table;
    safetensors_file *file =
        make_file(state, "\"tokens.0\":\"[\\\"b\\\",\\\"a\\\",\\\"c\\\",\\\"b\\\",\\\"\\\"]\","
                         "\"tokens.1\":\"[\\\"a\\\",\\\"b\\\"]\"");
    assert_int_equal(token_table_read(file, "tokens", &table, error, sizeof error), 0);
    static const int expected[5] = {1, 0, 0, 1, 0};
    for (int i = 0; i < 5; i++) {
        assert_int_equal(token_is_repeated(&table, 0, i), expected[i]);
    }
    assert_int_equal(token_is_repeated(&table, 1, 0), 0);
    assert_int_equal(token_is_repeated(&table, 1, 1), 0);
    token_table_free(&table);
    safetensors_close(file);
}

static void special_marks_are_told_from_words(void **state) {
    (void)state;
    assert_true(token_is_special("[CLS]"));
    assert_true(token_is_special("[SEP]"));
    assert_true(token_is_special("[PAD]"));
    assert_true(token_is_special("</s>"));
    assert_false(token_is_special("cls"));
    assert_false(token_is_special("[UNK]"));
    assert_false(token_is_special(""));
}

static void utf8_well_formed_is_accepted(void **state) {
    static const char *const good[] = {"",
                                       "abc",
                                       "\xc2\x80",
                                       "\xdf\xbf",
                                       "\xe0\xa0\x80",
                                       "\xed\x9f\xbf",
                                       "\xee\x80\x80",
                                       "\xef\xbf\xbf",
                                       "\xf0\x90\x80\x80",
                                       "\xf4\x8f\xbf\xbf"};
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(utf8_is_valid(good[i], strlen(good[i])), 1);
        assert_int_equal(utf8_character_bytes(good[i][0]), i == 0 || i == 1 ? 1 : strlen(good[i]));
    }
}

static void utf8_ill_formed_is_refused(void **state) {
    static const char *const bad[] = {"\x80",
                                      "\xbf",
                                      "\xc0\x80",
                                      "\xc1\xbf",
                                      "\xc2",
                                      "\xc2\x41",
                                      "\xe0\x9f\x80",
                                      "\xe1\x80",
                                      "\xed\xa0\x80",
                                      "\xe1\x80\x41",
                                      "\xf0\x8f\x80\x80",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xff",
                                      "a\xf0\x90\x80"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (utf8_is_valid(bad[i], strlen(bad[i]))) {
            fail_msg("case %zu was accepted", i);
        }
    }
}

static void controls_and_stray_bytes_become_printable(void **state) {
    static const struct {
        const char *text;
        const char *printable;
    } cases[] = {
        {"", ""},
        {"a b~", "a b~"},
        {"\x01\t\n\x1b[31m\x1f", "????[31m?"},
        {"a\x7f\x62", "a?b"},
        {"\xc2\x80\xc2\x85\xc2\x9b\xc2\x9f", "????????"},
        {"\xc2\xa0\xc3\xa9\xe2\x82\xac", "\xc2\xa0\xc3\xa9\xe2\x82\xac"},
        {"\x9b\x33\x31m", "?31m"},
        {"a\xc2", "a?"},
        {"\xe2\x82", "??"},
        {"\xc2\x1b", "??"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[40];
        (void)snprintf(text, sizeof text, "%s", cases[i].text);
        make_printable(text);
        assert_string_equal(text, cases[i].printable);
    }
}

static void utf8_is_cut_between_characters(void **state) {
    (void)state;
    assert_int_equal(utf8_whole_bytes("abc", 2), 2);
    assert_int_equal(utf8_whole_bytes("abc", 9), 3);
    assert_int_equal(utf8_whole_bytes("a\xc3\xa9", 2), 1);
    assert_int_equal(utf8_whole_bytes("a\xc3\xa9", 3), 3);
    assert_int_equal(utf8_whole_bytes("\xf0\x9d\x84\x9e", 3), 0);
}

int main(void) {
#define SCRATCH_TEST(test) cmocka_unit_test_setup_teardown(test, scratch_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        SCRATCH_TEST(tokens_of_two_sequences_are_read),
        SCRATCH_TEST(tokens_absent_is_an_empty_table),
        SCRATCH_TEST(tokens_that_are_no_list_of_strings_are_refused),
        SCRATCH_TEST(tokens_with_control_characters_become_printable),
        SCRATCH_TEST(tokens_that_occur_twice_are_told),
        cmocka_unit_test(special_marks_are_told_from_words),
        cmocka_unit_test(controls_and_stray_bytes_become_printable),
        cmocka_unit_test(utf8_is_cut_between_characters),
        cmocka_unit_test(utf8_well_formed_is_accepted),
        cmocka_unit_test(utf8_ill_formed_is_refused),
    };
    return cmocka_run_group_tests_name("token_lists", tests, NULL, NULL);
}
