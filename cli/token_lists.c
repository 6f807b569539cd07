/* SPDX-License-Identifier: BSD-3-Clause
 *
 * token_lists.c: metadata to words.
 */
#include "token_lists.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_text.h"
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
    free(list->text);
    free(list->words);
    free(list->is_repeated);
}

/* Copies the text and makes room for every string it can hold: they stand between quotes. */
static int allocate_list(const char *text, token_list *list) {
    size_t quotes = 0;
    for (const char *quote = strchr(text, '"'); quote != NULL; quote = strchr(quote + 1, '"')) {
        quotes++;
    }
    list->text = strdup(text);
    list->words = calloc(quotes / 2 + 1, sizeof *list->words);
    list->is_repeated = calloc(quotes / 2 + 1, 1);
    return list->text == NULL || list->words == NULL || list->is_repeated == NULL ? -1 : 0;
}

/* The text is a JSON array, of strings alone. */
static int check_list(char *text) {
    json_text json = {text};
    return json_text_peek(&json) == '[' && json_text_skip(&json) == 0 &&
                   json_text_peek(&json) == '\0'
               ? 0
               : -1;
}

static int read_words(token_list *list) {
    json_text json = {list->text};
    json_text_peek(&json);
    while (json_text_next(&json)) {
        char *word = NULL;
        if (json_text_string(&json, &word) != 0) {
            return -1;
        }
        make_printable(word);
        list->words[list->count++] = word;
    }
    return 0;
}

static int compare_words(const void *left, const void *right) {
    return strcmp(**(char **const *)left, **(char **const *)right);
}

/* Marks the words that equal a neighbour in the order of the alphabet. */
static int mark_repeated(token_list *list) {
    size_t count = (size_t)list->count;
    char ***sorted = calloc(count + 1, sizeof *sorted); /* where each word stands in the list */
    if (sorted == NULL) {
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        sorted[i] = &list->words[i];
    }
    qsort(sorted, count, sizeof *sorted, compare_words);
    for (size_t i = 1; i < count; i++) {
        if (strcmp(*sorted[i - 1], *sorted[i]) == 0) {
            list->is_repeated[sorted[i - 1] - list->words] = 1;
            list->is_repeated[sorted[i] - list->words] = 1;
        }
    }
    free(sorted);
    return 0;
}

static int parse_list(const char *text, token_list *list) {
    return allocate_list(text, list) != 0 || check_list(list->text) != 0 || read_words(list) != 0 ||
                   mark_repeated(list) != 0
               ? -1
               : 0;
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

int token_is_repeated(const token_table *table, int64_t sequence, int64_t position) {
    return table->lists[sequence].is_repeated[position];
}
