/* SPDX-License-Identifier: BSD-3-Clause
 *
 * run_inputs.c: the tensors named on the command line of "attn run", and the sizes they give.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "attention_run.h"
#include "element_types.h"
#include "program_exit.h"

/* ---- FILE[:TENSOR] ---- */

/*
 * Splits a reference into a copy of its file, to be freed, and its tensor, NULL if it names none.
 * Both parts may contain colons: the longest file that exists is taken, and if none does, all
 * before the last colon.
 */
static char *split_reference(const char *reference, const char **tensor) {
    char *path = strdup(reference);
    *tensor = NULL;
    if (path == NULL || access(path, F_OK) == 0) {
        return path;
    }
    const char *last = strrchr(reference, ':');
    char *colon = strrchr(path, ':');
    while (colon != NULL) {
        *colon = '\0';
        if (access(path, F_OK) == 0) {
            *tensor = reference + (colon - path) + 1;
            return path;
        }
        colon = strrchr(path, ':');
    }
    if (last != NULL) {
        (void)snprintf(path, strlen(reference) + 1, "%.*s", (int)(last - reference), reference);
        *tensor = last + 1;
    }
    return path;
}

/* The names an input is looked for under when the command line says none. */
typedef struct input_role {
    const char *name;
    const char *fallback; /* or NULL */
} input_role;

/* The tensor of that name; without a name the one named by the role, else the file's only one. */
static const safetensors_entry *choose_entry(const safetensors_file *file, const char *name,
                                             input_role role) {
    if (name != NULL) {
        return safetensors_find(file, name);
    }
    const safetensors_entry *entry = safetensors_find(file, role.name);
    if (entry == NULL && role.fallback != NULL) {
        entry = safetensors_find(file, role.fallback);
    }
    return entry == NULL && safetensors_count(file) == 1 ? safetensors_at(file, 0) : entry;
}

static int fail_no_tensor(const char *path, const char *name, input_role role) {
    if (name != NULL) {
        return program_fail(EXIT_BAD_FILE, "%s: has no tensor %s", path, name);
    }
    return program_fail(EXIT_BAD_FILE, "%s: has no tensor %s%s%s; name one as %s:TENSOR", path,
                        role.name, role.fallback != NULL ? " or " : "",
                        role.fallback != NULL ? role.fallback : "", path);
}

static int open_input(const char *reference, input_role role, run_input *input) {
    char error[1000];
    const char *name = NULL;
    input->path = split_reference(reference, &name);
    if (input->path == NULL) {
        return program_fail(EXIT_COMPUTATION, "out of memory");
    }
    if (safetensors_open(input->path, &input->file, error, sizeof error) != 0) {
        return program_fail(EXIT_BAD_FILE, "%s", error);
    }
    input->entry = choose_entry(input->file, name, role);
    return input->entry != NULL ? EXIT_DONE : fail_no_tensor(input->path, name, role);
}

static int load_values(int32_t dtype, run_input *input) {
    char error[1000];
    if (tensor_load_values(input->entry, dtype, &input->tensor, error, sizeof error) != 0) {
        return program_fail(EXIT_BAD_FILE, "%s: %s", input->path, error);
    }
    return EXIT_DONE;
}

/* ---- query, key, value ---- */

static int load_activation(attention_run *run, const char *reference, const char *role,
                           run_input *input, const attn_tensor **view) {
    if (reference == NULL) {
        return EXIT_DONE;
    }
    int exit_code = open_input(reference, (input_role){role, "hidden_states"}, input);
    if (exit_code == EXIT_DONE) {
        exit_code = load_values(run->layer.config.dtype, input);
    }
    int32_t rank = input->tensor.view.rank;
    if (exit_code == EXIT_DONE && rank != 2 && rank != 3) {
        exit_code =
            program_fail(EXIT_BAD_FILE, "%s: %s: expected 3 axes, or 2 for one sequence, got %d",
                         input->path, input->entry->name, (int)rank);
    }
    *view = &input->tensor.view;
    return exit_code;
}

static void find_lengths(attention_run *run) {
    int sequence_axis = run->layer.config.batch_first ? 1 : 0;
    run->is_batched = run->query_view->rank == 3;
    run->num_sequences = run->is_batched ? run->query_view->shape[1 - sequence_axis] : 1;
    run->query_length = run->query_view->shape[run->is_batched ? sequence_axis : 0];
    run->key_length = run->key_view->shape[run->key_view->rank == 3 ? sequence_axis : 0];
    run->num_columns =
        run->key_length + run->layer.config.add_bias_kv + run->layer.config.add_zero_attn;
}

/* Before anything is allocated for the lengths: a tensor without elements may claim any. */
static int check_activations(const attention_run *run) {
    attn_mha_outputs outputs = {.struct_size = sizeof outputs};
    attn_status status = attn_mha_describe_outputs(run->layer.layer, run->query_view, run->key_view,
                                                   run->value_view, NULL, &outputs);
    return status == ATTN_OK ? EXIT_DONE : program_fail_library("forward", status);
}

/* ---- masks, what is added to scores, and lengths ---- */

/* What is added to scores keeps their type: in 16 bits -1e30 may be -inf, and a bias is rounded. */
static int32_t score_dtype(const attention_run *run) {
    return run->layer.config.dtype == ATTN_DTYPE_FLOAT64 ? ATTN_DTYPE_FLOAT64 : ATTN_DTYPE_FLOAT32;
}

static int load_mask(attention_run *run, const char *reference, const char *role,
                     run_input *input) {
    if (reference == NULL) {
        return EXIT_DONE;
    }
    int exit_code = open_input(reference, (input_role){role, NULL}, input);
    if (exit_code != EXIT_DONE) {
        return exit_code;
    }
    int is_bool = strcmp(input->entry->dtype, "BOOL") == 0;
    if (!is_bool && !entry_is_floating(input->entry)) {
        return program_fail(EXIT_BAD_FILE, "%s: %s: a mask is BOOL or floating, got %s",
                            input->path, input->entry->name, input->entry->dtype);
    }
    return load_values(is_bool ? ATTN_DTYPE_BOOL : score_dtype(run), input);
}

/* Numbers that are no mask; `what` says in an error what they are. */
static int load_numbers(attention_run *run, const char *reference, const char *role,
                        const char *what, run_input *input) {
    if (reference == NULL) {
        return EXIT_DONE;
    }
    int exit_code = open_input(reference, (input_role){role, NULL}, input);
    if (exit_code == EXIT_DONE && !entry_is_floating(input->entry)) {
        exit_code = program_fail(EXIT_BAD_FILE, "%s: %s: %s floating, got %s", input->path,
                                 input->entry->name, what, input->entry->dtype);
    }
    return exit_code == EXIT_DONE ? load_values(score_dtype(run), input) : exit_code;
}

static int load_all_numbers(attention_run *run) {
    const run_options *o = run->options;
    const struct {
        const char *reference;
        const char *role;
        const char *what;
        run_input *input;
    } all[] = {
        {o->bias, "bias", "a bias is", &run->bias},
        {o->position_bias, "position_bias", "a bias is", &run->position_bias},
        {o->alibi, "alibi_slopes", "slopes are", &run->alibi},
        {o->sinks, "sinks", "sinks are", &run->sinks},
        {o->rope_frequencies, "inv_freq", "frequencies are", &run->rope_frequencies},
    };
    int exit_code = EXIT_DONE;
    for (size_t i = 0; i < sizeof all / sizeof all[0] && exit_code == EXIT_DONE; i++) {
        exit_code = load_numbers(run, all[i].reference, all[i].role, all[i].what, all[i].input);
    }
    return exit_code;
}

/* True where a block is seen, and asks the dense mask, if there is one. */
static int load_block_mask(attention_run *run) {
    run_input *input = &run->block_mask;
    if (run->options->block_mask == NULL) {
        return EXIT_DONE;
    }
    int exit_code = open_input(run->options->block_mask, (input_role){"block_mask", NULL}, input);
    exit_code = exit_code == EXIT_DONE ? load_values(ATTN_DTYPE_BOOL, input) : exit_code;
    unsigned char *blocks = input->tensor.memory;
    for (size_t i = 0; exit_code == EXIT_DONE && i < input->tensor.memory_bytes; i++) {
        blocks[i] = blocks[i] != 0 ? ATTN_BLOCK_MASKED : ATTN_BLOCK_HIDDEN;
    }
    input->tensor.view.dtype = ATTN_DTYPE_UINT8;
    return exit_code;
}

static int fail_key_lengths(const attention_run *run) {
    return program_fail(
        EXIT_USAGE,
        "--key-lengths: expected %lld integers separated by commas, one per sequence, got '%s'",
        (long long)run->num_sequences, run->options->key_lengths);
}

static int64_t count_commas(const char *text) {
    int64_t count = 0;
    for (; *text != '\0'; text++) {
        count += *text == ',';
    }
    return count;
}

static int parse_key_lengths(attention_run *run) {
    char error[400];
    const char *text = run->options->key_lengths;
    if (text == NULL) {
        return EXIT_DONE;
    }
    if (count_commas(text) + 1 != run->num_sequences) {
        return fail_key_lengths(run);
    }
    /* One sequence without a batch axis has one length without an axis. */
    if (owned_tensor_allocate(&run->key_lengths, ATTN_DTYPE_INT64, run->is_batched,
                              &run->num_sequences, error, sizeof error) != 0) {
        return program_fail(EXIT_COMPUTATION, "--key-lengths: %s", error);
    }
    int64_t *lengths = run->key_lengths.memory;
    if (parse_integers(text, run->num_sequences, lengths) != 0) {
        return fail_key_lengths(run);
    }
    for (int64_t n = 0; n < run->num_sequences; n++) {
        if (lengths[n] < 0 || lengths[n] > run->key_length) {
            return program_fail(EXIT_USAGE,
                                "--key-lengths: expected lengths from 0 to %lld, got %lld",
                                (long long)run->key_length, (long long)lengths[n]);
        }
    }
    return EXIT_DONE;
}

/* Does the padding mask exclude this one of its N * S elements? Models also write the lowest finite
 * number of the mask's type where they mean -inf: of float16 it is -65504. */
static int mask_excludes(const attention_run *run, int64_t element) {
    const attn_tensor *mask = &run->key_padding_mask.tensor.view;
    if (mask->dtype == ATTN_DTYPE_BOOL) {
        return (element_at(mask, element) != 0) ==
               (run->options->mask_polarity == RUN_POLARITY_EXCLUDE);
    }
    const element_type *stored = element_type_in_file(run->key_padding_mask.entry->dtype);
    return element_at(mask, element) <= -fmin(1e30, stored->largest);
}

static int find_padding(attention_run *run) {
    char error[400];
    int64_t count = run->num_sequences * run->key_length;
    int64_t mask_count = 0;
    int has_mask = run->key_padding_mask.entry != NULL;
    if (!has_mask && run->key_lengths.memory == NULL) {
        return EXIT_DONE;
    }
    if (has_mask &&
        (attn_tensor_count(&run->key_padding_mask.tensor.view, &mask_count) != ATTN_OK ||
         mask_count != count)) {
        return EXIT_DONE; /* the forward call says what is wrong with the mask's shape */
    }
    const int64_t shape[2] = {run->num_sequences, run->key_length};
    if (owned_tensor_allocate(&run->is_padding, ATTN_DTYPE_BOOL, 2, shape, error, sizeof error) !=
        0) {
        return program_fail(EXIT_COMPUTATION, "%s", error);
    }
    const int64_t *lengths = run->key_lengths.memory;
    uint8_t *is_padding = run->is_padding.memory;
    for (int64_t element = 0; element < count; element++) {
        int64_t sequence = element / run->key_length;
        int64_t position = element % run->key_length;
        is_padding[element] = (has_mask && mask_excludes(run, element)) ||
                              (lengths != NULL && position >= lengths[sequence]);
    }
    return EXIT_DONE;
}

int run_is_padding(const attention_run *run, int64_t sequence, int64_t key) {
    const uint8_t *is_padding = run->is_padding.memory;
    return is_padding != NULL && is_padding[sequence * run->key_length + key] != 0;
}

int run_is_self_attention(const attention_run *run) {
    return run->options->key == NULL;
}

/* ---- words ---- */

int run_load_words(attention_run *run) {
    char error[400];
    const run_input *key = run_is_self_attention(run) ? &run->query : &run->key;
    if (token_table_read(run->query.file, "tokens", &run->query_words, error, sizeof error) != 0) {
        return program_fail(EXIT_BAD_FILE, "%s: %s", run->query.path, error);
    }
    if (token_table_read(key->file, "tokens", &run->key_words, error, sizeof error) != 0) {
        return program_fail(EXIT_BAD_FILE, "%s: %s", key->path, error);
    }
    return EXIT_DONE;
}

/* ---- all ---- */

int run_load_inputs(attention_run *run) {
    const run_options *options = run->options;
    int exit_code = load_activation(run, options->query, "query", &run->query, &run->query_view);
    run->key_view = run->query_view;
    exit_code = exit_code != EXIT_DONE
                    ? exit_code
                    : load_activation(run, options->key, "key", &run->key, &run->key_view);
    run->value_view = run->key_view;
    exit_code = exit_code != EXIT_DONE
                    ? exit_code
                    : load_activation(run, options->value, "value", &run->value, &run->value_view);
    if (exit_code != EXIT_DONE) {
        return exit_code;
    }
    find_lengths(run);
    exit_code = check_activations(run);
    if (exit_code != EXIT_DONE) {
        return exit_code;
    }
    exit_code =
        load_mask(run, options->key_padding_mask, "key_padding_mask", &run->key_padding_mask);
    exit_code = exit_code != EXIT_DONE
                    ? exit_code
                    : load_mask(run, options->attn_mask, "attn_mask", &run->attn_mask);
    exit_code = exit_code != EXIT_DONE ? exit_code : load_all_numbers(run);
    exit_code = exit_code != EXIT_DONE ? exit_code : load_block_mask(run);
    exit_code = exit_code != EXIT_DONE ? exit_code : parse_key_lengths(run);
    return exit_code != EXIT_DONE ? exit_code : find_padding(run);
}
