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

/* Replaces control characters, with which a file could move the terminal's cursor or begin a new
 * line, by '?'. */
void make_printable(char *text);

#endif
