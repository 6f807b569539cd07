/* SPDX-License-Identifier: BSD-3-Clause
 *
 * engine_main.c: a small inference engine. Continues several prompts at once by the likeliest
 * tokens, with a model of Llama's shape, its keys and values in pages, as float32 and as int8.
 *
 *     engine [--tokens N] [--cache float32|int8|both] [FOLDER PROMPT...]
 *
 * FOLDER is a checkpoint as transformers saves it, a PROMPT its tokens' numbers: 1,15,7. Without
 * them the weights are made up, so that the program runs anywhere; the text is then nonsense.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <attention/attention.h>

#include "engine_generate.h"
#include "engine_model.h"

enum { MOST_PROMPTS = 64, MOST_PROMPT_TOKENS = 4096, MOST_TOKENS = 4096 };

typedef struct engine_command {
    int64_t num_tokens;
    const char *cache; /* "float32", "int8" or "both" */
    const char *folder;
    engine_prompts prompts;
} engine_command;

static int usage(void) {
    fprintf(stderr, "usage: engine [--tokens N] [--cache float32|int8|both] [FOLDER PROMPT...]\n"
                    "  FOLDER  config.json and .safetensors files of a Llama, Mistral or Qwen\n"
                    "  PROMPT  numbers of tokens: 1,15,7\n");
    return EXIT_FAILURE;
}

/* ---- words of the command line ---- */

/* A whole number from `least` to `most` up to one of `ends`: where it ends, or NULL. */
static const char *read_number(const char *text, long least, long most, const char *ends,
                               int64_t *number) {
    char *end;
    errno = 0;
    const long value = strtol(text, &end, 10);
    if (end == text || errno != 0 || value < least || value > most || strchr(ends, *end) == NULL) {
        return NULL;
    }
    *number = value;
    return end;
}

static int read_prompt(const char *word, engine_prompts *prompts) {
    int32_t *tokens = malloc(MOST_PROMPT_TOKENS * sizeof *tokens);
    int64_t length = 0, token;
    while (tokens != NULL && length < MOST_PROMPT_TOKENS) {
        word = read_number(word, 0, INT32_MAX, ",", &token);
        if (word == NULL) {
            break;
        }
        tokens[length++] = (int32_t)token;
        if (*word++ == '\0') {
            prompts->tokens[prompts->count] = tokens;
            prompts->lengths[prompts->count++] = length;
            return 0;
        }
    }
    free(tokens);
    return -1;
}

/* Three prompts of lengths that no page boundary likes. */
static int make_up_prompts(engine_prompts *prompts, int64_t vocabulary) {
    static const int64_t lengths[] = {5, 33, 18};
    for (int i = 0; i < 3; ++i) {
        int32_t *tokens = malloc((size_t)lengths[i] * sizeof *tokens);
        if (tokens == NULL) {
            return -1;
        }
        for (int64_t token = 0; token < lengths[i]; ++token) {
            tokens[token] = (int32_t)((token * 37 + 11 * i) % vocabulary);
        }
        prompts->tokens[prompts->count] = tokens;
        prompts->lengths[prompts->count++] = lengths[i];
    }
    return 0;
}

static int read_command(int argc, char **argv, engine_command *command) {
    int at = 1;
    for (; at + 1 < argc && argv[at][0] == '-'; at += 2) {
        if (strcmp(argv[at], "--tokens") == 0) {
            if (read_number(argv[at + 1], 1, MOST_TOKENS, "", &command->num_tokens) == NULL) {
                return -1;
            }
        } else if (strcmp(argv[at], "--cache") == 0) {
            command->cache = argv[at + 1];
        } else {
            return -1;
        }
    }
    command->folder = at < argc ? argv[at++] : NULL;
    if (command->folder != NULL &&
        (command->folder[0] == '-' || argc - at > MOST_PROMPTS || argc == at)) {
        return -1;
    }
    for (; at < argc; ++at) {
        if (read_prompt(argv[at], &command->prompts) != 0) {
            return -1;
        }
    }
    return strcmp(command->cache, "float32") == 0 || strcmp(command->cache, "int8") == 0 ||
                   strcmp(command->cache, "both") == 0
               ? 0
               : -1;
}

/* ---- what is printed ---- */

/* On a terminal only, and over itself. */
static void tell_progress(int64_t token, int64_t num_tokens) {
    if (isatty(STDERR_FILENO)) {
        fprintf(stderr, "\r%s %d of %d%s", token == 0 ? "prompts, token" : "token", (int)token + 1,
                (int)num_tokens, token + 1 == num_tokens ? "\r\033[K" : "        ");
    }
}

static void print_times(const char *what, const engine_times *times, int64_t steps) {
    const double all = times->attention + times->products + times->rest;
    if (steps > 0 && all > 0) {
        printf("%s: %.2f ms, attention %.0f %%, products %.0f %%, the rest %.0f %%\n", what,
               1e3 * all / (double)steps, 100 * times->attention / all, 100 * times->products / all,
               100 * times->rest / all);
    }
}

static void print_tokens(const engine_prompts *prompts, int64_t num_tokens, const int32_t *tokens) {
    for (int64_t sequence = 0; sequence < prompts->count; ++sequence) {
        printf("sequence %d, after %d:", (int)sequence, (int)prompts->lengths[sequence]);
        for (int64_t token = 0; token < num_tokens; ++token) {
            printf(" %d", tokens[sequence * num_tokens + token]);
        }
        printf("\n");
    }
}

/* How many tokens come before the first that differs, of all sequences. */
static void print_difference(const engine_prompts *prompts, int64_t num_tokens,
                             const int32_t *exact, const int32_t *rounded) {
    int64_t alike = 0;
    for (int64_t sequence = 0; sequence < prompts->count; ++sequence) {
        int64_t token = 0;
        while (token < num_tokens &&
               exact[sequence * num_tokens + token] == rounded[sequence * num_tokens + token]) {
            ++token;
        }
        alike += token;
    }
    printf("int8 as float32 for %d of %d tokens, counted to each sequence's first difference\n",
           (int)alike, (int)(prompts->count * num_tokens));
}

/* ---- running ---- */

static int run(const engine_command *command, const engine_model *model, const char *cache,
               int32_t dtype, int32_t *tokens) {
    engine_outcome outcome;
    const attn_status status = engine_generate(NULL, model, &command->prompts, command->num_tokens,
                                               dtype, tell_progress, tokens, &outcome);
    if (status != ATTN_OK) {
        fprintf(stderr, "%s: %s\n", attn_status_name(status), attn_last_error());
        return -1;
    }
    printf("%s cache, %.1f KiB\n", cache, (double)outcome.cache_bytes / 1024);
    print_tokens(&command->prompts, command->num_tokens, tokens);
    print_times("the prompts", &outcome.prompts, 1);
    print_times("a step", &outcome.decoding, command->num_tokens - 1);
    return 0;
}

static int run_caches(const engine_command *command, const engine_model *model) {
    const size_t count = (size_t)(command->prompts.count * command->num_tokens);
    int32_t *exact = calloc(count, sizeof *exact);
    int32_t *rounded = calloc(count, sizeof *rounded);
    const int has_exact = strcmp(command->cache, "int8") != 0;
    const int has_rounded = strcmp(command->cache, "float32") != 0;
    int status = exact == NULL || rounded == NULL ? -1 : 0;
    if (status == 0 && has_exact) {
        status = run(command, model, "float32", ATTN_DTYPE_FLOAT32, exact);
    }
    if (status == 0 && has_rounded) {
        status = run(command, model, "int8", ATTN_DTYPE_INT8, rounded);
    }
    if (status == 0 && has_exact && has_rounded) {
        print_difference(&command->prompts, command->num_tokens, exact, rounded);
    }
    free(exact);
    free(rounded);
    return status;
}

static int expect_tokens_of_model(const engine_prompts *prompts, int64_t vocabulary) {
    for (int64_t sequence = 0; sequence < prompts->count; ++sequence) {
        for (int64_t i = 0; i < prompts->lengths[sequence]; ++i) {
            if (prompts->tokens[sequence][i] >= vocabulary) {
                fprintf(stderr, "prompt %d: token %d, of a vocabulary of %d\n", (int)sequence,
                        prompts->tokens[sequence][i], (int)vocabulary);
                return -1;
            }
        }
    }
    return 0;
}

static int load_and_run(engine_command *command) {
    static const engine_config made_up = {.num_layers = 4,
                                          .num_heads = 8,
                                          .num_kv_heads = 2,
                                          .head_dim = 32,
                                          .hidden_size = 256,
                                          .intermediate_size = 688,
                                          .vocabulary_size = 1000,
                                          .norm_epsilon = 1e-5,
                                          .rope_base = 10000,
                                          .ties_head = true};
    engine_model model;
    char error[512] = "out of memory";
    int status = command->folder != NULL
                     ? engine_model_load(&model, command->folder, error, sizeof error)
                     : engine_model_make_up(&model, &made_up);
    if (status != 0) {
        fprintf(stderr, "engine: %s\n", error);
        return -1;
    }
    const int64_t vocabulary = model.config.vocabulary_size;
    status = command->folder != NULL ? 0 : make_up_prompts(&command->prompts, vocabulary);
    if (status == 0) {
        status = expect_tokens_of_model(&command->prompts, vocabulary);
    }
    if (status == 0) {
        status = run_caches(command, &model);
    }
    engine_model_free(&model);
    return status;
}

int main(int argc, char **argv) {
    static int64_t lengths[MOST_PROMPTS];
    static int32_t *tokens[MOST_PROMPTS];
    engine_command command = {
        .num_tokens = 16, .cache = "both", .prompts = {.lengths = lengths, .tokens = tokens}};
    const int is_read = read_command(argc, argv, &command) == 0;
    const int status = is_read ? load_and_run(&command) : usage();
    for (int64_t i = 0; i < command.prompts.count; ++i) {
        free(tokens[i]);
    }
    return status == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
