/* SPDX-License-Identifier: BSD-3-Clause
 *
 * token_lists.c: metadata to words.
 */
#include "token_lists.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "printable_text.h"

int token_is_special(const char *word) {
    static const char *const special[] = {"[CLS]", "[SEP]",         "[PAD]",        "[MASK]",
                                          "<s>",   "</s>",          "<pad>",        "<bos>",
                                          "<eos>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    for (size_t i = 0; i < sizeof special / sizeof special[0]; i++) {
        if (strcmp(word, special[i]) == 0) {
            return 1;
        }
    }
    return 0;
}

static void free_list(token_list *list) {
    for (int64_t i = 0; i < list->count; i++) {
        free(list->words[i]);
    }
    free(list->words);
}

/* array: a JSON array. Fails at the first item that is no string, and when memory runs out. */
static int copy_words(const cJSON *array, token_list *list) {
    list->words = calloc((size_t)cJSON_GetArraySize(array) + 1, sizeof *list->words);
    if (list->words == NULL) {
        return -1;
    }
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, array) {
        char *word = cJSON_IsString(item) ? strdup(item->valuestring) : NULL;
        if (word == NULL) {
            return -1;
        }
        make_printable(word);
        list->words[list->count++] = word;
    }
    return 0;
}

static int parse_list(const char *text, token_list *list) {
    cJSON *array = cJSON_Parse(text);
    int result = cJSON_IsArray(array) ? copy_words(array, list) : -1;
    cJSON_Delete(array);
    return result;
}

static const char *list_text(const safetensors_file *file, const char *key, int64_t sequence) {
    char full_key[64];
    (void)snprintf(full_key, sizeof full_key, "%s.%lld", key, (long long)sequence);
    return safetensors_metadata(file, full_key);
}

int token_table_read(const safetensors_file *file, const char *key, token_table *table, char *error,
                     size_t error_bytes) {
    int64_t count = 0;
    while (list_text(file, key, count) != NULL) {
        count++;
    }
    *table = (token_table){.lists = calloc((size_t)count + 1, sizeof *table->lists)};
    if (table->lists == NULL) {
        (void)snprintf(error, error_bytes, "out of memory");
        return -1;
    }
    table->count = count;
    for (int64_t sequence = 0; sequence < count; sequence++) {
        if (parse_list(list_text(file, key, sequence), &table->lists[sequence]) != 0) {
            (void)snprintf(error, error_bytes, "metadata %s.%lld: expected a JSON array of strings",
                           key, (long long)sequence);
            return -1;
        }
    }
    return 0;
}

void token_table_free(token_table *table) {
    for (int64_t sequence = 0; sequence < table->count; sequence++) {
        free_list(&table->lists[sequence]);
    }
    free(table->lists);
    *table = (token_table){0};
}

const char *token_word(const token_table *table, int64_t sequence, int64_t position) {
    int exists = sequence < table->count && position < table->lists[sequence].count;
    return exists ? table->lists[sequence].words[position] : NULL;
}
