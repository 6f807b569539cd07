/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bench_options_check.c: what options mean together: sizes derived from others, lists, and
 * contradictions.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attention/context.h>
#include <attention/sdpa.h>

#include "bench_block_mask.h"
#include "bench_options.h"
#include "program_exit.h"

static void derive(option_integer *size, int64_t value) {
    if (!size->given) {
        size->value = value;
    }
}

/* As the library derives them: head_dim of a layer from its embed_dim. */
static int derive_sizes(bench_options *o) {
    derive(&o->kv_heads, o->heads.value);
    derive(&o->keys, o->queries.value);
    if (o->heads.value % o->kv_heads.value != 0) {
        return program_fail(EXIT_USAGE, "--kv-heads: expected a divisor of --heads %lld, got %lld",
                            (long long)o->heads.value, (long long)o->kv_heads.value);
    }
    if (o->function == BENCH_MHA && !o->head_dim.given) {
        if (o->embed_dim.value % o->heads.value != 0) {
            return program_fail(EXIT_USAGE,
                                "--embed-dim: expected a multiple of --heads %lld, or --head-dim, "
                                "got %lld",
                                (long long)o->heads.value, (long long)o->embed_dim.value);
        }
        o->head_dim.value = o->embed_dim.value / o->heads.value;
    }
    derive(&o->value_dim, o->head_dim.value);
    return EXIT_DONE;
}

static int read_window(bench_options *o) {
    if (o->window_text == NULL) {
        return EXIT_DONE;
    }
    if (parse_integers(o->window_text, 2, o->window) != 0 || o->window[0] < -1 ||
        o->window[1] < -1 || o->window[0] > BENCH_AXIS_MAX || o->window[1] > BENCH_AXIS_MAX) {
        return program_fail(EXIT_USAGE,
                            "--window: expected LEFT,RIGHT, each from -1 (unlimited) to %d, got "
                            "'%s'",
                            BENCH_AXIS_MAX, o->window_text);
    }
    return EXIT_DONE;
}

/* Reads text[0, end) as a number of keys, or with a point as a share of them. */
static int read_key_length(const char *text, const char *end, int64_t keys, int64_t *length) {
    if (memchr(text, '.', (size_t)(end - text)) == NULL) {
        return parse_integer(text, end, length) == 0 && *length >= 0 && *length <= keys ? 0 : -1;
    }
    char *stop = NULL;
    const double share = strtod(text, &stop);
    *length = share >= 0.0 && share <= 1.0 ? llround(share * (double)keys) : -1;
    return stop == end ? (*length >= 0 ? 0 : -1) : -1;
}

/* Splits list->text at commas; `read` returns 0 for an item it likes. */
static int read_list(bench_list *list, int64_t limit,
                     int (*read)(const char *text, const char *end, int64_t limit,
                                 int64_t *value)) {
    const char *text = list->text;
    for (list->count = 0; list->count < BENCH_LISTED_MAX;) {
        const char *comma = strchr(text, ',');
        const char *end = comma == NULL ? text + strlen(text) : comma;
        if (read(text, end, limit, &list->items[list->count]) != 0) {
            return -1;
        }
        list->count++;
        if (comma == NULL) {
            return 0;
        }
        text = comma + 1;
    }
    return -1;
}

static int read_key_lengths(bench_options *o) {
    if (o->key_lengths.text == NULL ||
        read_list(&o->key_lengths, o->keys.value, read_key_length) == 0) {
        return EXIT_DONE;
    }
    return program_fail(EXIT_USAGE,
                        "--key-lengths: expected integers from 0 to %lld or fractions from 0.0 to "
                        "1.0, at most %d with commas between them, got '%s'",
                        (long long)o->keys.value, BENCH_LISTED_MAX, o->key_lengths.text);
}

/* Reads text[0, end) as a number of query rows. */
static int read_rows(const char *text, const char *end, int64_t limit, int64_t *rows) {
    return parse_integer(text, end, rows) == 0 && *rows >= 0 && *rows <= limit ? 0 : -1;
}

static int read_query_lengths(bench_options *o) {
    if (o->query_lengths.text == NULL ||
        read_list(&o->query_lengths, BENCH_AXIS_MAX, read_rows) == 0) {
        return EXIT_DONE;
    }
    return program_fail(EXIT_USAGE,
                        "--query-lengths: expected integers from 0 to %d, at most %d with commas "
                        "between them, got '%s'",
                        BENCH_AXIS_MAX, BENCH_LISTED_MAX, o->query_lengths.text);
}

static int read_axis(const char *text, const char *end, int64_t limit, int64_t *value) {
    return parse_integer(text, end, value) == 0 && *value >= 1 && *value <= limit ? 0 : -1;
}

int bench_options_read_lengths(bench_options *options) {
    if (options->lengths.text == NULL) {
        return program_fail(EXIT_USAGE, "--lengths: missing; --help shows how to call");
    }
    if (read_list(&options->lengths, BENCH_AXIS_MAX, read_axis) != 0) {
        return program_fail(EXIT_USAGE,
                            "--lengths: expected integers from 1 to %d, at most %d with commas "
                            "between them, got '%s'",
                            BENCH_AXIS_MAX, BENCH_LISTED_MAX, options->lengths.text);
    }
    return EXIT_DONE;
}

static int check_kernels(const char *kernels) {
    char list[200] = "";
    const char *name = NULL;
    for (int32_t i = 0; (name = attn_kernels_name(i)) != NULL; i++) {
        if (kernels == NULL || strcmp(kernels, name) == 0) {
            return EXIT_DONE;
        }
        const size_t used = strlen(list);
        (void)snprintf(list + used, sizeof list - used, "%s%s", i == 0 ? "" : ", ", name);
    }
    return program_fail(EXIT_USAGE, "--kernels: expected one of %s, got '%s'", list, kernels);
}

static int check_numbers(const bench_options *o) {
    if (!isfinite(o->seconds.value) || o->seconds.value < 0.0) {
        return program_fail(EXIT_USAGE, "--seconds: expected a number of at least 0, got %g",
                            o->seconds.value);
    }
    if (o->softcap.given && (!isfinite(o->softcap.value) || o->softcap.value <= 0.0)) {
        return program_fail(EXIT_USAGE, "--softcap: expected a number above 0, got %g",
                            o->softcap.value);
    }
    return EXIT_DONE;
}

static int check_places(const bench_options *o) {
    const int has_rows = o->mask != BENCH_MASK_NONE || o->bias != BENCH_BIAS_NONE ||
                         o->weights != BENCH_WEIGHTS_NONE || o->has_lse || o->is_backward;
    if (o->page.given && o->keys.value % o->page.value != 0) {
        return program_fail(EXIT_USAGE, "--page: expected a divisor of --keys %lld, got %lld",
                            (long long)o->keys.value, (long long)o->page.value);
    }
    if (o->query_lengths.text != NULL && has_rows) {
        return program_fail(EXIT_USAGE,
                            "--query-lengths: expected no --mask, --bias, --weights, --lse or "
                            "--backward");
    }
    return EXIT_DONE;
}

static int check_together(const bench_options *o) {
    if (o->normalizer != ATTN_NORMALIZER_SOFTMAX && (o->has_sinks || o->has_lse)) {
        return program_fail(EXIT_USAGE, "%s: expected --normalizer softmax, got %s",
                            o->has_sinks ? "--sinks" : "--lse", bench_normalizers[o->normalizer]);
    }
    if (o->align_end && o->query_offset.given) {
        return program_fail(EXIT_USAGE, "--align-end and --query-offset contradict each other");
    }
    if (o->mask == BENCH_MASK_NONE && o->mask_shape != BENCH_MASK_FULL) {
        return program_fail(EXIT_USAGE, "--mask-shape: expected --mask bool or additive with it");
    }
    return EXIT_DONE;
}

int bench_options_complete(bench_options *options) {
    int exit_code = derive_sizes(options);
    exit_code = exit_code == EXIT_DONE ? read_window(options) : exit_code;
    exit_code = exit_code == EXIT_DONE ? read_key_lengths(options) : exit_code;
    exit_code = exit_code == EXIT_DONE ? read_query_lengths(options) : exit_code;
    exit_code = exit_code == EXIT_DONE ? bench_block_mask_read(options) : exit_code;
    exit_code = exit_code == EXIT_DONE ? check_places(options) : exit_code;
    exit_code = exit_code == EXIT_DONE ? check_kernels(options->kernels) : exit_code;
    exit_code = exit_code == EXIT_DONE ? check_numbers(options) : exit_code;
    return exit_code == EXIT_DONE ? check_together(options) : exit_code;
}

int64_t bench_query_rows(const bench_options *o, int64_t sequence) {
    return o->query_lengths.text == NULL
               ? o->queries.value
               : o->query_lengths.items[sequence % o->query_lengths.count];
}

int64_t bench_all_query_rows(const bench_options *o) {
    int64_t rows = 0;
    for (int64_t sequence = 0; sequence < o->batch.value; sequence++) {
        rows += bench_query_rows(o, sequence);
    }
    return rows;
}
