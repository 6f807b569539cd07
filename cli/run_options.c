/* SPDX-License-Identifier: BSD-3-Clause
 *
 * run_options.c: the option table of "attn run" and what options mean together.
 */
#include "run_options.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "element_types.h"
#include "program_exit.h"

/* What --dtype offers, after auto. */
static const int32_t dtypes[] = {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_FLOAT64, ATTN_DTYPE_BFLOAT16,
                                 ATTN_DTYPE_FLOAT16};
enum { DTYPE_COUNT = sizeof dtypes / sizeof dtypes[0] };

static const char *const polarity_names[] = {"exclude", "include", NULL};
static const char *const normalizer_names[] = {"softmax", "sigmoid", "linear",
                                               NULL}; /* in the order of enum attn_normalizer */
static const char *const weights_names[] = {"none", "average", "heads", NULL};

static int parse_table(int count, char *const *arguments, run_options *o) {
    int dtype = 0; /* 0: auto, else one more than an index in dtypes */
    const char *dtype_names[DTYPE_COUNT + 2] = {"auto"};
    for (int i = 0; i < DTYPE_COUNT; i++) {
        dtype_names[i + 1] = element_type_of(dtypes[i])->title;
    }
    const option_spec specs[] = {
        {"--prefix", OPTION_TEXT, &o->prefix, 0, 0, NULL},
        {"--ignore", OPTION_TEXTS, &o->ignore, 0, 0, NULL},
        {"--num-heads", OPTION_INTEGER, &o->num_heads, 1, INT64_MAX, NULL},
        {"--num-kv-heads", OPTION_INTEGER, &o->num_kv_heads, 1, INT64_MAX, NULL},
        {"--head-dim", OPTION_INTEGER, &o->head_dim, 1, INT64_MAX, NULL},
        {"--value-head-dim", OPTION_INTEGER, &o->value_head_dim, 1, INT64_MAX, NULL},
        {"--add-zero-attn", OPTION_FLAG, &o->add_zero_attn, 0, 0, NULL},
        {"--batch-first", OPTION_FLAG, &o->batch_first, 0, 0, NULL},
        {"--sequence-first", OPTION_FLAG, &o->sequence_first, 0, 0, NULL},
        {"--dtype", OPTION_CHOICE, &dtype, 0, 0, dtype_names},
        {"--query", OPTION_TEXT, &o->query, 0, 0, NULL},
        {"--key", OPTION_TEXT, &o->key, 0, 0, NULL},
        {"--value", OPTION_TEXT, &o->value, 0, 0, NULL},
        {"--key-padding-mask", OPTION_TEXT, &o->key_padding_mask, 0, 0, NULL},
        {"--attn-mask", OPTION_TEXT, &o->attn_mask, 0, 0, NULL},
        {"--bias", OPTION_TEXT, &o->bias, 0, 0, NULL},
        {"--position-bias", OPTION_TEXT, &o->position_bias, 0, 0, NULL},
        {"--alibi", OPTION_TEXT, &o->alibi, 0, 0, NULL},
        {"--sinks", OPTION_TEXT, &o->sinks, 0, 0, NULL},
        {"--block-mask", OPTION_TEXT, &o->block_mask, 0, 0, NULL},
        {"--block-rows", OPTION_INTEGER, &o->block_rows, 1, INT64_MAX, NULL},
        {"--block-columns", OPTION_INTEGER, &o->block_columns, 1, INT64_MAX, NULL},
        {"--rope", OPTION_NUMBER, &o->rope, 0, 0, NULL},
        {"--rope-frequencies", OPTION_TEXT, &o->rope_frequencies, 0, 0, NULL},
        {"--rope-dim", OPTION_INTEGER, &o->rope_dim, 2, INT64_MAX, NULL},
        {"--rope-interleaved", OPTION_FLAG, &o->rope_interleaved, 0, 0, NULL},
        {"--dropout", OPTION_NUMBER, &o->dropout, 0, 0, NULL},
        {"--dropout-seed", OPTION_INTEGER, &o->dropout_seed, 0, INT64_MAX, NULL},
        {"--mask-polarity", OPTION_CHOICE, &o->mask_polarity, 0, 0, polarity_names},
        {"--key-lengths", OPTION_TEXT, &o->key_lengths, 0, 0, NULL},
        {"--query-offset", OPTION_INTEGER, &o->query_offset, INT64_MIN, INT64_MAX, NULL},
        {"--align-end", OPTION_FLAG, &o->align_end, 0, 0, NULL},
        {"--causal", OPTION_FLAG, &o->is_causal, 0, 0, NULL},
        {"--window", OPTION_TEXT, &o->window, 0, 0, NULL},
        {"--scale", OPTION_NUMBER, &o->scale, 0, 0, NULL},
        {"--softcap", OPTION_NUMBER, &o->softcap, 0, 0, NULL},
        {"--normalizer", OPTION_CHOICE, &o->normalizer, 0, 0, normalizer_names},
        {"--weights", OPTION_CHOICE, &o->weights, 0, 0, weights_names},
        {"--output", OPTION_TEXT, &o->output, 0, 0, NULL},
        {"--expect", OPTION_TEXT, &o->expect, 0, 0, NULL},
        {"--tolerance", OPTION_NUMBER, &o->tolerance, 0, 0, NULL},
        {"--time", OPTION_INTEGER, &o->time, 1, 1000000, NULL},
        {"--links", OPTION_COUNT_OR_NOTHING, &o->links, 1, 1000, NULL},
        {"--threads", OPTION_INTEGER, &o->threads, 1, 1024, NULL},
        {"--kernels", OPTION_TEXT, &o->kernels, 0, 0, NULL},
        {"--json", OPTION_FLAG, &o->json, 0, 0, NULL},
    };
    int status = options_parse(specs, (int)(sizeof specs / sizeof specs[0]), count, arguments,
                               "LAYER.safetensors", &o->layer_path);
    o->dtype = dtype == 0 ? ATTN_DTYPE_INVALID : dtypes[dtype - 1];
    return status;
}

static int check_rope(const run_options *options) {
    const int is_rotated = options->rope.given || options->rope_frequencies != NULL;
    if (!is_rotated && (options->rope_dim.given || options->rope_interleaved)) {
        return program_fail(EXIT_USAGE, "%s: needs --rope or --rope-frequencies",
                            options->rope_dim.given ? "--rope-dim" : "--rope-interleaved");
    }
    if (options->rope.given && options->rope_frequencies != NULL) {
        return program_fail(EXIT_USAGE, "--rope and --rope-frequencies contradict each other");
    }
    if (options->rope.given && !(options->rope.value > 0 && isfinite(options->rope.value))) {
        return program_fail(EXIT_USAGE, "--rope: expected a base above 0, got %g",
                            options->rope.value);
    }
    return EXIT_DONE;
}

static int check_blocks(const run_options *options) {
    const int has_rows = options->block_rows.given, has_columns = options->block_columns.given;
    if (options->block_mask != NULL && !(has_rows && has_columns)) {
        return program_fail(EXIT_USAGE, "--block-mask: needs --block-rows and --block-columns");
    }
    if (options->block_mask == NULL && (has_rows || has_columns)) {
        return program_fail(EXIT_USAGE, "%s: needs --block-mask",
                            has_rows ? "--block-rows" : "--block-columns");
    }
    return EXIT_DONE;
}

static int check_combinations(run_options *options) {
    if (options->query == NULL) {
        return program_fail(EXIT_USAGE, "--query: missing: the tensor to run the layer on");
    }
    if (options->value != NULL && options->key == NULL) {
        return program_fail(EXIT_USAGE, "--value: needs --key too");
    }
    if (options->batch_first && options->sequence_first) {
        return program_fail(EXIT_USAGE, "--batch-first and --sequence-first contradict each other");
    }
    if (options->align_end && options->query_offset.given) {
        return program_fail(EXIT_USAGE, "--align-end and --query-offset contradict each other");
    }
    if (options->window != NULL && parse_integers(options->window, 2, options->window_sides) != 0) {
        return program_fail(EXIT_USAGE, "--window: expected LEFT,RIGHT (-1 = unlimited), got '%s'",
                            options->window);
    }
    if (options->links.given && options->weights != RUN_WEIGHTS_HEADS) {
        return program_fail(EXIT_USAGE, "--links: needs --weights heads");
    }
    if (options->tolerance.given && options->expect == NULL) {
        return program_fail(EXIT_USAGE, "--tolerance: needs --expect");
    }
    if (options->dropout_seed.given && !options->dropout.given) {
        return program_fail(EXIT_USAGE, "--dropout-seed: needs --dropout");
    }
    const int exit_code = check_rope(options);
    return exit_code == EXIT_DONE ? check_blocks(options) : exit_code;
}

/*
 * 1e-5 is for numbers of about 1 in float32. Two results no farther apart are stored in 16 bits as
 * the same number or as neighbours, which are 2^(1 - precision) apart from 1 to 2.
 */
static double default_tolerance(int32_t dtype) {
    const element_type *type = element_type_of(dtype);
    return type == NULL ? 1e-5 : fmax(1e-5, ldexp(1, 1 - type->precision));
}

int run_options_parse(int count, char *const *arguments, run_options *options) {
    *options = (run_options){.prefix = ""};
    int status = parse_table(count, arguments, options);
    if (!options->tolerance.given) {
        options->tolerance.value = default_tolerance(options->dtype);
    }
    return status != EXIT_DONE ? status : check_combinations(options);
}
