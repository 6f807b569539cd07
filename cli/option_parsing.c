/* SPDX-License-Identifier: BSD-3-Clause
 *
 * option_parsing.c: the command line parser.
 */
#include "option_parsing.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program_exit.h"

int parse_integer(const char *text, const char *end, int64_t *value) {
    if (end == NULL) {
        end = text + strlen(text);
    }
    int has_sign = *text == '-';
    if (text[has_sign] < '0' || text[has_sign] > '9') {
        return -1;
    }
    char *stop = NULL;
    errno = 0;
    *value = strtoll(text, &stop, 10);
    return errno == 0 && stop == end ? 0 : -1;
}

int parse_integers(const char *text, int64_t count, int64_t *values) {
    for (int64_t i = 0; i < count; i++) {
        const char *comma = strchr(text, ',');
        int is_last = i == count - 1;
        if ((comma == NULL) != is_last || parse_integer(text, comma, &values[i]) != 0) {
            return -1;
        }
        text = is_last ? text : comma + 1;
    }
    return 0;
}

static int parse_number(const char *text, double *value) {
    char *stop = NULL;
    *value = strtod(text, &stop);
    return stop != text && *stop == '\0' && !isnan(*value) ? 0 : -1;
}

static int store_integer(const option_spec *spec, const char *value) {
    option_integer *target = spec->target;
    if (parse_integer(value, NULL, &target->value) != 0 || target->value < spec->minimum ||
        target->value > spec->maximum) {
        if (spec->maximum == INT64_MAX) {
            return program_fail(EXIT_USAGE, "%s: expected an integer of at least %lld, got '%s'",
                                spec->name, (long long)spec->minimum, value);
        }
        return program_fail(EXIT_USAGE, "%s: expected an integer from %lld to %lld, got '%s'",
                            spec->name, (long long)spec->minimum, (long long)spec->maximum, value);
    }
    target->given = 1;
    return EXIT_DONE;
}

static int store_number(const option_spec *spec, const char *value) {
    option_number *target = spec->target;
    if (parse_number(value, &target->value) != 0) {
        return program_fail(EXIT_USAGE, "%s: expected a number, got '%s'", spec->name, value);
    }
    target->given = 1;
    return EXIT_DONE;
}

static int store_choice(const option_spec *spec, const char *value) {
    char list[200] = "";
    for (int i = 0; spec->choices[i] != NULL; i++) {
        if (strcmp(spec->choices[i], value) == 0) {
            *(int *)spec->target = i;
            return EXIT_DONE;
        }
        size_t used = strlen(list);
        (void)snprintf(list + used, sizeof list - used, "%s%s", i == 0 ? "" : ", ",
                       spec->choices[i]);
    }
    return program_fail(EXIT_USAGE, "%s: expected one of %s, got '%s'", spec->name, list, value);
}

static int store_texts(const option_spec *spec, const char *value) {
    option_texts *target = spec->target;
    if (target->count == OPTION_TEXTS_MAX) {
        return program_fail(EXIT_USAGE, "%s: given more than %d times", spec->name,
                            OPTION_TEXTS_MAX);
    }
    target->items[target->count++] = value;
    return EXIT_DONE;
}

static int store_value(const option_spec *spec, const char *value) {
    switch (spec->kind) {
    case OPTION_TEXT:
        *(const char **)spec->target = value;
        return EXIT_DONE;
    case OPTION_TEXTS:
        return store_texts(spec, value);
    case OPTION_NUMBER:
        return store_number(spec, value);
    case OPTION_CHOICE:
        return store_choice(spec, value);
    default:
        return store_integer(spec, value);
    }
}

/* The spec of an argument "--name" or "--name=value", NULL if there is none. *value: after the '=',
 * or NULL. */
static const option_spec *find_spec(const option_spec *specs, int spec_count, const char *argument,
                                    const char **value) {
    const char *equals = strchr(argument, '=');
    size_t length = equals == NULL ? strlen(argument) : (size_t)(equals - argument);
    *value = equals == NULL ? NULL : equals + 1;
    for (int i = 0; i < spec_count; i++) {
        if (strlen(specs[i].name) == length && strncmp(specs[i].name, argument, length) == 0) {
            return &specs[i];
        }
    }
    return NULL;
}

static int is_option(const char *argument) {
    return argument[0] == '-' && argument[1] != '\0';
}

/* Handles one option. *used: how many of the `count` arguments it took. */
static int parse_option(const option_spec *spec, const char *value, int count,
                        char *const *arguments, int *used) {
    int64_t optional = 0;
    *used = 1;
    if (spec->kind == OPTION_FLAG) {
        if (value != NULL) {
            return program_fail(EXIT_USAGE, "%s: takes no value, got '%s'", spec->name, value);
        }
        *(int *)spec->target = 1;
        return EXIT_DONE;
    }
    if (spec->kind == OPTION_COUNT_OR_NOTHING && value == NULL &&
        (count < 2 || parse_integer(arguments[1], NULL, &optional) != 0)) {
        *(option_integer *)spec->target = (option_integer){1, spec->minimum};
        return EXIT_DONE;
    }
    if (value == NULL) {
        if (count < 2) {
            return program_fail(EXIT_USAGE, "%s: expected a value", spec->name);
        }
        value = arguments[1];
        *used = 2;
    }
    return store_value(spec, value);
}

int options_parse(const option_spec *specs, int spec_count, int count, char *const *arguments,
                  const char *positional_name, const char **positional) {
    char seen[OPTIONS_MAX] = {0};
    int used = 1;
    for (int i = 0; i < count; i += used) {
        used = 1;
        if (!is_option(arguments[i])) {
            if (positional == NULL || *positional != NULL) {
                return program_fail(EXIT_USAGE, "unexpected argument '%s'", arguments[i]);
            }
            *positional = arguments[i];
            continue;
        }
        const char *value = NULL;
        const option_spec *spec = find_spec(specs, spec_count, arguments[i], &value);
        if (spec == NULL) {
            return program_fail(EXIT_USAGE, "unknown option '%s'; --help lists the options",
                                arguments[i]);
        }
        if (seen[spec - specs]++ != 0 && spec->kind != OPTION_TEXTS) {
            return program_fail(EXIT_USAGE, "%s: given twice", spec->name);
        }
        if (parse_option(spec, value, count - i, arguments + i, &used) != EXIT_DONE) {
            return EXIT_USAGE;
        }
    }
    if (positional != NULL && *positional == NULL) {
        return program_fail(EXIT_USAGE, "%s: missing; --help shows how to call", positional_name);
    }
    return EXIT_DONE;
}

int options_ask_for_help(int count, char *const *arguments) {
    for (int i = 0; i < count; i++) {
        if (strcmp(arguments[i], "--help") == 0 || strcmp(arguments[i], "-h") == 0) {
            return 1;
        }
    }
    return 0;
}
