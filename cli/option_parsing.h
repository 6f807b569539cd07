/* SPDX-License-Identifier: BSD-3-Clause
 *
 * option_parsing.h: command lines by table: each command lists its options and where their values
 * go.
 *
 * "--name value" and "--name=value" are the same. An option given twice is an error unless it
 * collects texts. Every error names the option, what it expects and what it got.
 */
#ifndef ATTN_CLI_OPTION_PARSING_H
#define ATTN_CLI_OPTION_PARSING_H

#include <stdint.h>

enum option_kind {
    OPTION_FLAG,             /* target int: set to 1 */
    OPTION_TEXT,             /* target const char * */
    OPTION_TEXTS,            /* target option_texts; may be repeated */
    OPTION_INTEGER,          /* target option_integer; minimum to maximum */
    OPTION_COUNT_OR_NOTHING, /* target option_integer; without a value it is minimum */
    OPTION_NUMBER,           /* target option_number; finite or infinite, not NaN */
    OPTION_CHOICE            /* target int: index in choices */
};

enum { OPTION_TEXTS_MAX = 16, OPTIONS_MAX = 48 };

typedef struct option_texts {
    int count;
    const char *items[OPTION_TEXTS_MAX];
} option_texts;

typedef struct option_integer {
    int given;
    int64_t value;
} option_integer;

typedef struct option_number {
    int given;
    double value;
} option_number;

typedef struct option_spec {
    const char *name; /* "--num-heads" */
    int kind;         /* enum option_kind */
    void *target;
    int64_t minimum;
    int64_t maximum;
    const char *const *choices; /* NULL-terminated */
} option_spec;

/*
 * Parses arguments[0, count) into the targets of specs[0, spec_count), spec_count <= OPTIONS_MAX.
 * The one positional argument, called positional_name in errors, goes to *positional; it is an
 * error if it is missing or there are two; positional NULL: none is allowed. Returns EXIT_DONE, or
 * EXIT_USAGE after an error line.
 */
int options_parse(const option_spec *specs, int spec_count, int count, char *const *arguments,
                  const char *positional_name, const char **positional);

/* 1 if --help or -h is among the arguments. */
int options_ask_for_help(int count, char *const *arguments);

/* Reads a decimal integer that takes up all of `text`, up to `end` (NULL: to its terminating zero).
 * 0, or -1 if it is none. */
int parse_integer(const char *text, const char *end, int64_t *value);

/* Reads exactly `count` integers separated by commas. 0, or -1 if `text` is anything else. */
int parse_integers(const char *text, int64_t count, int64_t *values);

#endif
