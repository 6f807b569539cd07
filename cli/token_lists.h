/* SPDX-License-Identifier: BSD-3-Clause
 *
 * token_lists.h: the words of each sequence, kept in a file's metadata as "tokens.0", "tokens.1",
 * ...: JSON arrays of strings.
 */
#ifndef ATTN_CLI_TOKEN_LISTS_H
#define ATTN_CLI_TOKEN_LISTS_H

#include <stddef.h>
#include <stdint.h>

#include "safetensors_read.h"

/* The words of one sequence, printable UTF-8. */
typedef struct token_list {
    char *text; /* holds the words */
    char **words;
    char *is_repeated; /* per word, 1 if the list has it more than once */
    int64_t count;
} token_list;

/* Those of sequences 0 to count - 1. All zero: none. */
typedef struct token_table {
    token_list *lists;
    int64_t count;
} token_table;

/*
 * Reads the lists "<key>.0", "<key>.1", ... up to the first one the file does not have; that there
 * is none at all is no error. 0, or -1 with one line in `error` that names the key.
 * token_table_free is due in both cases.
 */
int token_table_read(const safetensors_file *file, const char *key, token_table *table, char *error,
                     size_t error_bytes);

/* Frees the words and empties the table. */
void token_table_free(token_table *table);

/* The word at a position of a sequence, NULL if the table has none there. */
const char *token_word(const token_table *table, int64_t sequence, int64_t position);

/* 1 if the sequence has the word at this position, which exists, more than once. */
int token_is_repeated(const token_table *table, int64_t sequence, int64_t position);

/* 1 if a word is one of the marks models put around sentences ([CLS] [SEP] [PAD] <s> </s> ...),
 * which are no words. */
int token_is_special(const char *word);

#endif
