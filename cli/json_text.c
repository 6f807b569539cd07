/* SPDX-License-Identifier: BSD-3-Clause
 *
 * json_text.c: see json_text.h.
 */
#include "json_text.h"

#include <stddef.h>
#include <string.h>

enum { MAX_DEPTH = 128 };

static const uint64_t max_integer = 9007199254740992;

char json_text_peek(json_text *text) {
    text->position += strspn(text->position, " \t\r\n");
    return *text->position;
}

int json_text_take(json_text *text, char mark) {
    if (json_text_peek(text) != mark) {
        return 0;
    }
    text->position++;
    return 1;
}

/* ---- strings ---- */

/* Four hexadecimal digits, which are stepped over. 0, or -1. */
static int read_hex(json_text *text, uint32_t *value) {
    *value = 0;
    for (int i = 0; i < 4; i++) {
        char digit = *text->position;
        int is_letter = (digit >= 'a' && digit <= 'f') || (digit >= 'A' && digit <= 'F');
        if (!is_letter && (digit < '0' || digit > '9')) {
            return -1;
        }
        *value = *value << 4 | (uint32_t)(is_letter ? (digit & 0xf) + 9 : digit - '0');
        text->position++;
    }
    return 0;
}

/* Behind "\u": a character, in one or, above U+FFFF, two groups of digits. */
static int read_hex_escape(json_text *text, uint32_t *character) {
    uint32_t low = 0;
    if (read_hex(text, character) != 0 || *character == 0 ||
        (*character >= 0xdc00 && *character <= 0xdfff)) {
        return -1;
    }
    if (*character < 0xd800 || *character > 0xdbff) {
        return 0;
    }
    if (strncmp(text->position, "\\u", 2) != 0) {
        return -1;
    }
    text->position += 2;
    if (read_hex(text, &low) != 0 || low < 0xdc00 || low > 0xdfff) {
        return -1;
    }
    *character = 0x10000 + ((*character - 0xd800) << 10) + (low - 0xdc00);
    return 0;
}

/* Behind a backslash: the character meant, which is stepped over. 0, or -1. */
static int read_escape(json_text *text, uint32_t *character) {
    static const char letters[] = "\"\\/bfnrt";
    static const char meant[] = "\"\\/\b\f\n\r\t";
    char letter = *text->position;
    if (letter == '\0') {
        return -1;
    }
    text->position++;
    if (letter == 'u') {
        return read_hex_escape(text, character);
    }
    const char *found = strchr(letters, letter);
    if (found == NULL) {
        return -1;
    }
    *character = (uint32_t)meant[found - letters];
    return 0;
}

static int skip_string(json_text *text) {
    uint32_t character = 0;
    if (!json_text_take(text, '"')) {
        return -1;
    }
    while (*text->position != '"') {
        if ((unsigned char)*text->position < 0x20) {
            return -1;
        }
        if (*text->position++ == '\\' && read_escape(text, &character) != 0) {
            return -1;
        }
    }
    text->position++;
    return 0;
}

/* Writes a character as UTF-8 and returns the end: fewer bytes than its escape has. */
static char *write_utf8(char *end, uint32_t character) {
    static const unsigned char first[] = {0, 0, 0xc0, 0xe0, 0xf0};
    int bytes = character < 0x80 ? 1 : character < 0x800 ? 2 : character < 0x10000 ? 3 : 4;
    for (int i = bytes - 1; i > 0; i--) {
        end[i] = (char)(0x80 | (character & 0x3f));
        character >>= 6;
    }
    end[0] = (char)(first[bytes] | character);
    return end + bytes;
}

int json_text_string(json_text *text, char **string) {
    if (!json_text_take(text, '"')) {
        return -1;
    }
    char *end = text->position;
    *string = end;
    while (*text->position != '"') {
        uint32_t character = 0;
        if (*text->position != '\\') {
            *end++ = *text->position++;
            continue;
        }
        text->position++;
        if (read_escape(text, &character) != 0) {
            return -1;
        }
        end = write_utf8(end, character);
    }
    text->position++;
    *end = '\0';
    return 0;
}

char *json_text_name(json_text *text) {
    char *name = NULL;
    (void)json_text_string(text, &name);
    (void)json_text_take(text, ':');
    return name;
}

/* ---- numbers ---- */

/* The number of digits stepped over. */
static size_t skip_digits(json_text *text) {
    size_t count = strspn(text->position, "0123456789");
    text->position += count;
    return count;
}

static int skip_number(json_text *text) {
    text->position += *text->position == '-';
    if (*text->position == '0') {
        text->position++;
    } else if (skip_digits(text) == 0) {
        return -1;
    }
    if (*text->position == '.') {
        text->position++;
        if (skip_digits(text) == 0) {
            return -1;
        }
    }
    if (*text->position == 'e' || *text->position == 'E') {
        text->position++;
        text->position += *text->position == '+' || *text->position == '-';
        return skip_digits(text) == 0 ? -1 : 0;
    }
    return 0;
}

int json_text_integer(json_text *text, uint64_t *value) {
    *value = 0;
    if (json_text_peek(text) < '0' || *text->position > '9') {
        return -1;
    }
    while (*text->position >= '0' && *text->position <= '9') {
        *value = *value * 10 + (uint64_t)(*text->position++ - '0');
        if (*value > max_integer) {
            return -1;
        }
    }
    return strchr(".eE", *text->position) == NULL || *text->position == '\0' ? 0 : -1;
}

/* ---- values ---- */

static int skip_scalar(json_text *text) {
    static const char *const words[] = {"true", "false", "null"};
    if (json_text_peek(text) == '"') {
        return skip_string(text);
    }
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        size_t length = strlen(words[i]);
        if (strncmp(text->position, words[i], length) == 0) {
            text->position += length;
            return 0;
        }
    }
    return skip_number(text);
}

/* What stands before a value: in an object its name. */
static int skip_name(json_text *text, char closing) {
    return closing == ']' || (skip_string(text) == 0 && json_text_take(text, ':')) ? 0 : -1;
}

int json_text_skip(json_text *text) {
    char closing[MAX_DEPTH];
    int depth = 0;
    do {
        char first = json_text_peek(text);
        int is_open = first == '{' || first == '[';
        if (is_open && depth == MAX_DEPTH) {
            return -1;
        }
        if (is_open) {
            text->position++;
            closing[depth++] = first == '{' ? '}' : ']';
        }
        int has_items = is_open && json_text_peek(text) != closing[depth - 1];
        if (!is_open && skip_scalar(text) != 0) {
            return -1;
        }
        /* Unless it has just begun, a value ends here, and with it all that close behind it. */
        while (!has_items && depth > 0 && json_text_take(text, closing[depth - 1])) {
            depth--;
        }
        int is_next_due = depth > 0 && !has_items;
        if ((is_next_due && !json_text_take(text, ',')) ||
            (depth > 0 && skip_name(text, closing[depth - 1]) != 0)) {
            return -1;
        }
    } while (depth > 0);
    return 0;
}

int json_text_next(json_text *text) {
    char mark = json_text_peek(text);
    int is_end = mark == ']' || mark == '}';
    text->position++;
    if (!is_end && mark != ',') {
        is_end = json_text_take(text, mark == '{' ? '}' : ']');
    }
    return !is_end;
}
