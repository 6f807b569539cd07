/* SPDX-License-Identifier: BSD-3-Clause
 *
 * json_text.h: JSON text read from its begin to its end, without making a tree of it: time grows
 * with the text's length, and memory not at all. Strings are decoded where they stand.
 *
 * The text is checked by json_text_skip first; the other functions rely on its being JSON:
 *
 *     json_text text = {bytes};
 *     if (json_text_peek(&text) == '[') {
 *         while (json_text_next(&text)) { ... one value, all of it ... }
 *     }
 */
#ifndef ATTN_CLI_JSON_TEXT_H
#define ATTN_CLI_JSON_TEXT_H

#include <stdint.h>

/* Where the reading stands. A zero byte ends the text. */
typedef struct json_text {
    char *position;
} json_text;

/*
 * Steps over one value, whatever it holds, and checks it by RFC 8259: no control characters in
 * strings, no half of a surrogate pair, no \u0000 (a string would end there), brackets at most 128
 * deep. 0, or -1 with the position at the fault. UTF-8 is not checked.
 */
int json_text_skip(json_text *text);

/* The byte after the white space here. */
char json_text_peek(json_text *text);

/* If that byte is `mark`: steps over it and returns 1, else 0. */
int json_text_take(json_text *text, char mark);

/* To an array's or object's next item: 1 and the item is next, or 0 and the reading stands behind
 * the closing bracket. Called at the opening bracket, and behind each item. */
int json_text_next(json_text *text);

/* Reads a string. 0, or -1 if here is something else. *string lies in the text and ends with a
 * zero. */
int json_text_string(json_text *text, char **string);

/* Reads a string and the colon behind it: an object's item without its value. */
char *json_text_name(json_text *text);

/* Reads an integer from 0 to 2^53 written with digits alone. 0, or -1 if here is something else. */
int json_text_integer(json_text *text, uint64_t *value);

#endif
