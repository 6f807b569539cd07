/* SPDX-License-Identifier: BSD-3-Clause
 *
 * printable_text.c: UTF-8 validity by the Unicode standard's table of well-formed byte sequences,
 * and control characters.
 */
#include "printable_text.h"

#include <stdio.h>
#include <string.h>

/* The rows of the table: a range of first bytes, how many bytes follow, and the range of the second
 * byte; the third and fourth are always 80 to BF. */
static const struct {
    unsigned char first_low, first_high, following, second_low, second_high;
} sequences[] = {
    {0x00, 0x7f, 0, 0, 0},       {0xc2, 0xdf, 1, 0x80, 0xbf}, {0xe0, 0xe0, 2, 0xa0, 0xbf},
    {0xe1, 0xec, 2, 0x80, 0xbf}, {0xed, 0xed, 2, 0x80, 0x9f}, {0xee, 0xef, 2, 0x80, 0xbf},
    {0xf0, 0xf0, 3, 0x90, 0xbf}, {0xf1, 0xf3, 3, 0x80, 0xbf}, {0xf4, 0xf4, 3, 0x80, 0x8f},
};

enum { SEQUENCE_COUNT = sizeof sequences / sizeof sequences[0] };

/* The table's row for a first byte, SEQUENCE_COUNT if none. */
static size_t find_sequence(unsigned char first) {
    size_t row = 0;
    while (row < SEQUENCE_COUNT &&
           (first < sequences[row].first_low || first > sequences[row].first_high)) {
        row++;
    }
    return row;
}

size_t utf8_well_formed_bytes(const char *character, size_t available) {
    const unsigned char *text = (const unsigned char *)character;
    size_t row = find_sequence(text[0]);
    if (row == SEQUENCE_COUNT || sequences[row].following >= available) {
        return 0;
    }
    size_t following = sequences[row].following;
    if (following > 0 &&
        (text[1] < sequences[row].second_low || text[1] > sequences[row].second_high)) {
        return 0;
    }
    for (size_t i = 2; i <= following; i++) {
        if (text[i] < 0x80 || text[i] > 0xbf) {
            return 0;
        }
    }
    return following + 1;
}

int utf8_is_valid(const char *text, size_t bytes) {
    const char *end = text + bytes;
    while (text < end) {
        size_t length = utf8_well_formed_bytes(text, (size_t)(end - text));
        if (length == 0) {
            return 0;
        }
        text += length;
    }
    return 1;
}

size_t utf8_character_bytes(char first) {
    unsigned char byte = (unsigned char)first;
    return byte < 0xc0 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

size_t utf8_whole_bytes(const char *text, size_t limit) {
    size_t bytes = 0;
    while (text[bytes] != '\0' && bytes + utf8_character_bytes(text[bytes]) <= limit) {
        bytes += utf8_character_bytes(text[bytes]);
    }
    return bytes;
}

int utf8_is_control(const char *character) {
    unsigned char first = (unsigned char)character[0];
    return first < 0x20 || first == 0x7f || (first == 0xc2 && (unsigned char)character[1] < 0xa0);
}

/* Bytes of what can be printed at text[0, bytes), 0 if there must be a '?' for *skipped bytes. */
static size_t printable_bytes(const char *text, size_t bytes, size_t *skipped) {
    size_t length = utf8_well_formed_bytes(text, bytes);
    *skipped = length == 0 ? 1 : length;
    return length == 0 || utf8_is_control(text) ? 0 : length;
}

void make_printable(char *text) {
    size_t bytes = strlen(text);
    size_t skipped = 0;
    for (; bytes > 0; text += skipped, bytes -= skipped) {
        if (printable_bytes(text, bytes, &skipped) == 0) {
            memset(text, '?', skipped);
        }
    }
}

void print_printable(const char *text) {
    size_t bytes = strlen(text);
    size_t skipped = 0;
    for (; bytes > 0; text += skipped, bytes -= skipped) {
        const char *printed = printable_bytes(text, bytes, &skipped) == 0 ? "??" : text;
        printf("%.*s", (int)skipped, printed);
    }
}
