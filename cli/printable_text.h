/* SPDX-License-Identifier: BSD-3-Clause
 *
 * printable_text.h: text out of files, made safe to print and to draw.
 */
#ifndef ATTN_CLI_PRINTABLE_TEXT_H
#define ATTN_CLI_PRINTABLE_TEXT_H

#include <stddef.h>

/* 1 if text[0, bytes) is UTF-8 without overlong forms, surrogates or values above U+10FFFF, else 0.
 */
int utf8_is_valid(const char *text, size_t bytes);

/* Bytes of the character that begins with this byte of valid UTF-8: 1 to 4. */
size_t utf8_character_bytes(char first);

/* Bytes of the well-formed character at text[0, bytes), bytes > 0; 0 if there is none. */
size_t utf8_well_formed_bytes(const char *text, size_t bytes);

/* The most bytes of valid UTF-8, at most `limit`, that end with a whole character. */
size_t utf8_whole_bytes(const char *text, size_t limit);

/* 1 if a well-formed character is a control character, with which a file could move the terminal's
 * cursor or begin a new line: U+0000 to U+001F, U+007F, U+0080 to U+009F. */
int utf8_is_control(const char *character);

/* Replaces every byte of control characters, and those that are no UTF-8, by '?'. */
void make_printable(char *text);

/* Prints a text on standard output, as make_printable would leave it. */
void print_printable(const char *text);

#endif
