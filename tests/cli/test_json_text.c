/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_json_text.c: JSON as RFC 8259 has it, no more and no less; strings decoded where they stand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "json_text.h"

static int is_json(const char *source, int64_t *fault) {
    char *copy = strdup(source);
    assert_non_null(copy);
    json_text text = {copy};
    int result = json_text_skip(&text) == 0 && json_text_peek(&text) == '\0';
    *fault = text.position - copy;
    free(copy);
    return result;
}

static void json_well_formed_is_accepted(void **state) {
    static const char *const good[] = {"{}",
                                       "[]",
                                       " [ ] \t\r\n",
                                       "[[],{},[[]]]",
                                       "{\"a\":{\"b\":[1,{\"c\":null}]},\"d\":[]}",
                                       "0",
                                       "-0",
                                       "10",
                                       "-1.50e+07",
                                       "1E-9",
                                       "0.0",
                                       "true",
                                       "false",
                                       "null",
                                       "\"\"",
                                       "\"\x7f \xc2\x80\"",
                                       "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0001\\uFFff\"",
                                       "\"\\ud834\\udd1e\""};
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        int64_t fault = 0;
        if (!is_json(good[i], &fault)) {
            fail_msg("refused at byte %d: %s", (int)fault, good[i]);
        }
    }
}

static void json_ill_formed_is_refused_at_its_fault(void **state) {
    static const struct {
        const char *text;
        int64_t fault;
    } bad[] = {
        {"", 0},
        {"{", 1},
        {"[1", 2},
        {"[1,]", 3},
        {"[,1]", 1},
        {"[1 2]", 3},
        {"[1}", 2},
        {"{\"a\":1]", 6},
        {"{\"a\":1,}", 7},
        {"{\"a\"}", 4},
        {"{\"a\" 1}", 5},
        {"{a:1}", 1},
        {"{1:1}", 1},
        {"01", 1},
        {"-", 1},
        {"+1", 0},
        {".5", 0},
        {"1.", 2},
        {"1e", 2},
        {"1e+", 3},
        {"0x10", 1},
        {"NaN", 0},
        {"True", 0},
        {"nul", 0},
        {"\v1", 0},
        {"[1,\f2]", 3},
        {"\x01", 0},
        {"\"a", 2},
        {"\"a\nb\"", 2},
        {"\"a\tb\"", 2},
        {"\"\\x\"", 3},
        {"\"\\", 2},
        {"\"\\u12g4\"", 5},
        {"\"\\u0000\"", 7},
        {"\"\\ud800\"", 7},
        {"\"\\ud800\\n\"", 7},
        {"\"\\ud800\\u0041\"", 13},
        {"\"\\udc00\"", 7},
        {"{} {}", 3},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int64_t fault = 0;
        if (is_json(bad[i].text, &fault)) {
            fail_msg("accepted: %s", bad[i].text);
        }
        if (fault != bad[i].fault) {
            fail_msg("%s: expected the fault at byte %d, got %d", bad[i].text, (int)bad[i].fault,
                     (int)fault);
        }
    }
}

static void json_depth_is_bounded(void **state) {
    char nested[300];
    int64_t fault = 0;
    (void)state;
    memset(nested, '[', 128);
    memset(nested + 128, ']', 128);
    nested[256] = '\0';
    assert_true(is_json(nested, &fault));
    memset(nested, '[', 129);
    memset(nested + 129, ']', 129);
    nested[258] = '\0';
    assert_false(is_json(nested, &fault));
    assert_int_equal(fault, 128);
}

static void json_strings_are_decoded_where_they_stand(void **state) {
    char source[] =
        "[ \"\", \"\\\"\\\\\\/\\b\\f\\n\\r\\t\" , \"A\\u0042\\u00e9\\u20ac\\ud834\\udd1e\\u007F\"]";
    static const char *const expected[] = {"", "\"\\/\b\f\n\r\t",
                                           "AB\xc3\xa9\xe2\x82\xac\xf0\x9d\x84\x9e\x7f"};
    char *strings[3];
    int count = 0;
    json_text text = {source};
    (void)state;
    while (json_text_next(&text)) {
        assert_true(count < 3);
        assert_int_equal(json_text_string(&text, &strings[count++]), 0);
    }
    assert_int_equal(count, 3);
    assert_int_equal(json_text_peek(&text), '\0');
    for (int i = 0; i < count; i++) {
        assert_string_equal(strings[i], expected[i]);
    }
}

static void json_objects_give_names_and_values(void **state) {
    char source[] = "{ \"first\" : 12 , \"second\":[[],[3]], \"third\":{} }";
    char *string = NULL;
    uint64_t number = 0;
    json_text text = {source};
    (void)state;
    assert_true(json_text_next(&text));
    assert_string_equal(json_text_name(&text), "first");
    assert_int_equal(json_text_string(&text, &string), -1);
    assert_int_equal(json_text_integer(&text, &number), 0);
    assert_int_equal(number, 12);
    assert_true(json_text_next(&text));
    assert_string_equal(json_text_name(&text), "second");
    assert_int_equal(json_text_integer(&text, &number), -1);
    assert_true(json_text_next(&text));
    assert_false(json_text_next(&text));
    assert_true(json_text_next(&text));
    assert_int_equal(json_text_skip(&text), 0);
    assert_false(json_text_next(&text));
    assert_true(json_text_next(&text));
    assert_string_equal(json_text_name(&text), "third");
    assert_false(json_text_next(&text));
    assert_false(json_text_next(&text));
    assert_int_equal(json_text_peek(&text), '\0');
}

static void json_integers_are_whole_and_bounded(void **state) {
    static const struct {
        const char *text;
        int result;
        uint64_t value;
    } cases[] = {{"0", 0, 0},
                 {" 7,", 0, 7},
                 {"9007199254740992]", 0, 9007199254740992},
                 {"9007199254740993", -1, 0},
                 {"99999999999999999999999999", -1, 0},
                 {"-1", -1, 0},
                 {"-0", -1, 0},
                 {"1.0", -1, 0},
                 {"1e0", -1, 0},
                 {"1E0", -1, 0},
                 {"\"1\"", -1, 0},
                 {"[1]", -1, 0},
                 {"null", -1, 0}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char source[40];
        uint64_t value = 0;
        (void)snprintf(source, sizeof source, "%s", cases[i].text);
        json_text text = {source};
        assert_int_equal(json_text_integer(&text, &value), cases[i].result);
        assert_true(cases[i].result != 0 || value == cases[i].value);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_well_formed_is_accepted),
        cmocka_unit_test(json_ill_formed_is_refused_at_its_fault),
        cmocka_unit_test(json_depth_is_bounded),
        cmocka_unit_test(json_strings_are_decoded_where_they_stand),
        cmocka_unit_test(json_objects_give_names_and_values),
        cmocka_unit_test(json_integers_are_whole_and_bounded),
    };
    return cmocka_run_group_tests_name("json_text", tests, NULL, NULL);
}
