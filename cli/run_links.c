/* SPDX-License-Identifier: BSD-3-Clause
 *
 * run_links.c: the strongest word-to-word links of every head: for people, the meaning of the
 * weights.
 */
#include <stdlib.h>

#include "attention_run.h"
#include "element_types.h"
#include "program_exit.h"

/* Is the word at a position one people want to read about? Padding never is; marks like [CLS] are
 * not unless asked for. */
static int is_wanted(const attention_run *run, const token_table *words, int64_t sequence,
                     int64_t position, int has_padding, int with_special) {
    if (has_padding && run_is_padding(run, sequence, position)) {
        return 0;
    }
    const char *word = token_word(words, sequence, position);
    return word == NULL || with_special || !token_is_special(word);
}

static double weight_at(const attention_run *run, const word_link *link) {
    int64_t row = (link->sequence * run->layer.config.num_heads + link->head) * run->query_length +
                  link->query;
    int64_t index = row * run->num_columns + link->key;
    return element_at(&run->weights.view, index);
}

/* Keeps best[0, *count) sorted by falling weight and at most `limit` long. */
static void insert_link(word_link *best, int64_t *count, int64_t limit, const word_link *link) {
    int64_t place = *count;
    while (place > 0 && !(best[place - 1].weight >= link->weight)) {
        place--;
    }
    if (place == limit) {
        return;
    }
    *count += *count < limit;
    for (int64_t i = *count - 1; i > place; i--) {
        best[i] = best[i - 1];
    }
    best[place] = *link;
}

static void search_row(const attention_run *run, word_link link, int with_special, word_link *best,
                       int64_t *count) {
    for (link.key = 0; link.key < run->key_length; link.key++) {
        link.weight = weight_at(run, &link);
        if (link.weight > 0 &&
            is_wanted(run, &run->key_words, link.sequence, link.key, 1, with_special)) {
            insert_link(best, count, run->options->links.value, &link);
        }
    }
}

/* The links of one head of one sequence, into best. Returns how many. */
static int64_t search_head(const attention_run *run, int64_t sequence, int64_t head,
                           int with_special, word_link *best) {
    int64_t count = 0;
    word_link link = {.sequence = sequence, .head = head};
    for (link.query = 0; link.query < run->query_length; link.query++) {
        if (is_wanted(run, &run->query_words, sequence, link.query, run_is_self_attention(run),
                      with_special)) {
            search_row(run, link, with_special, best, &count);
        }
    }
    return count;
}

int run_find_links(attention_run *run) {
    int64_t num_heads = run->layer.config.num_heads;
    int64_t per_head = run->options->links.value;
    int64_t most = run->query_length * run->key_length;
    if (!run->options->links.given || most == 0) {
        return EXIT_DONE;
    }
    /* The weights are in memory, so N * H * L * S fits, and so does this. */
    per_head = per_head < most ? per_head : most;
    run->links =
        calloc((size_t)(run->num_sequences * num_heads * per_head) + 1, sizeof *run->links);
    word_link *best = calloc((size_t)run->options->links.value, sizeof *best);
    if (run->links == NULL || best == NULL) {
        free(best);
        return program_fail(EXIT_COMPUTATION, "--links: out of memory");
    }
    for (int64_t row = 0; row < run->num_sequences * num_heads; row++) {
        int64_t count = search_head(run, row / num_heads, row % num_heads, 0, best);
        if (count == 0) {
            count = search_head(run, row / num_heads, row % num_heads, 1, best);
        }
        for (int64_t i = 0; i < count; i++) {
            run->links[run->num_links++] = best[i];
        }
    }
    free(best);
    return EXIT_DONE;
}
