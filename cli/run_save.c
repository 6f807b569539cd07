/* SPDX-License-Identifier: BSD-3-Clause
 *
 * run_save.c: the output file of "attn run": the results, and in its metadata what a reader of the
 * weights needs to know.
 *
 *     tokens.N, key_tokens.N   words of the rows, and of the columns where key is another tensor
 *     attn_weights_axes        NHLT, NLT, HLT or LT
 *     add_bias_kv, add_zero_attn, self_attention, num_heads, batch_first   0, 1 or a number
 *
 * The tensor key_padding_mask, bool (N, S), true = padding, is there if the call had one or key
 * lengths.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attention_run.h"
#include "element_types.h"
#include "program_exit.h"
#include "safetensors_write.h"

enum { FIXED_TEXTS = 6, KEY_BYTES = 40, NUMBER_BYTES = 24 };

/* The metadata under construction, with the memory of what is not text of the inputs. */
typedef struct output_metadata {
    safetensors_text *texts;
    char (*keys)[KEY_BYTES];
    char numbers[FIXED_TEXTS][NUMBER_BYTES];
    int64_t count;
} output_metadata;

static void add_number(output_metadata *metadata, const char *key, int64_t number) {
    char *text = metadata->numbers[metadata->count];
    (void)snprintf(text, NUMBER_BYTES, "%lld", (long long)number);
    metadata->texts[metadata->count++] = (safetensors_text){key, text};
}

/* Copies the lists of words "tokens.N" of a file under another key. */
static void add_words(output_metadata *metadata, const safetensors_file *file, int64_t count,
                      const char *key) {
    for (int64_t sequence = 0; sequence < count; sequence++) {
        char source[KEY_BYTES];
        char *name = metadata->keys[metadata->count];
        (void)snprintf(source, sizeof source, "tokens.%lld", (long long)sequence);
        (void)snprintf(name, KEY_BYTES, "%s.%lld", key, (long long)sequence);
        metadata->texts[metadata->count++] =
            (safetensors_text){name, safetensors_metadata(file, source)};
    }
}

static int fill_metadata(const attention_run *run, output_metadata *metadata) {
    const attn_mha_config *config = &run->layer.config;
    size_t most = (size_t)(FIXED_TEXTS + run->query_words.count + run->key_words.count);
    metadata->texts = calloc(most, sizeof *metadata->texts);
    metadata->keys = calloc(most, sizeof *metadata->keys);
    if (metadata->texts == NULL || metadata->keys == NULL) {
        return program_fail(EXIT_COMPUTATION, "%s: out of memory", run->options->output);
    }
    add_number(metadata, "num_heads", config->num_heads);
    add_number(metadata, "batch_first", config->batch_first);
    add_number(metadata, "add_bias_kv", config->add_bias_kv);
    add_number(metadata, "add_zero_attn", config->add_zero_attn);
    add_number(metadata, "self_attention", run_is_self_attention(run));
    metadata->texts[metadata->count++] =
        (safetensors_text){"attn_weights_axes", run_weights_axes(run)};
    add_words(metadata, run->query.file, run->query_words.count, "tokens");
    if (!run_is_self_attention(run)) {
        add_words(metadata, run->key.file, run->key_words.count, "key_tokens");
    }
    return EXIT_DONE;
}

/* The tensor's memory is there, so the number of its bytes is one. */
static safetensors_entry describe(const char *name, const owned_tensor *tensor) {
    safetensors_entry entry = {.name = name, .rank = tensor->view.rank, .data = tensor->memory};
    for (int32_t axis = 0; axis < entry.rank; axis++) {
        entry.shape[axis] = tensor->view.shape[axis];
    }
    entry.dtype = element_type_of(tensor->view.dtype)->file_name;
    entry.data_bytes = tensor->memory_bytes;
    return entry;
}

int run_save(const attention_run *run) {
    char error[1000];
    safetensors_entry tensors[3];
    int64_t count = 0;
    output_metadata metadata = {.count = 0};
    if (run->options->output == NULL) {
        return EXIT_DONE;
    }
    tensors[count++] = describe("attn_output", &run->output);
    if (run->weights.memory != NULL) {
        tensors[count++] = describe("attn_weights", &run->weights);
    }
    if (run->is_padding.memory != NULL) {
        tensors[count++] = describe("key_padding_mask", &run->is_padding);
    }
    int exit_code = fill_metadata(run, &metadata);
    if (exit_code == EXIT_DONE &&
        safetensors_save(run->options->output, tensors, count, metadata.texts, metadata.count,
                         error, sizeof error) != 0) {
        exit_code = program_fail(EXIT_COMPUTATION, "%s", error);
    }
    free(metadata.texts);
    free(metadata.keys);
    return exit_code;
}
