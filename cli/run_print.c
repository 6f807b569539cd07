/* SPDX-License-Identifier: BSD-3-Clause
 *
 * run_print.c: what "attn run" tells people.
 */
#include <stdio.h>
#include <string.h>

#include "attention_run.h"
#include "element_types.h"
#include "printable_text.h"

enum { LINK_BYTES = 320, WORD_BYTES = 60, LINE_COLUMNS = 112 };

/* Prints the shape with a letter before every length: axes "NLE" and shape (3, 14, 384) give (N=3,
 * L=14, E=384). */
static void print_shape(const attn_tensor *tensor, const char *axes) {
    for (int32_t axis = 0; axis < tensor->rank; axis++) {
        printf("%s%c=%lld", axis == 0 ? "(" : ", ", axes[axis], (long long)tensor->shape[axis]);
    }
    printf(")");
}

/* The axes of an activation: a query's sequence axis is L, a key's or value's S. */
static const char *activation_axes(const attention_run *run, const attn_tensor *tensor,
                                   int is_query) {
    if (tensor->rank == 2) {
        return is_query ? "LE" : "SE";
    }
    if (run->layer.config.batch_first) {
        return is_query ? "NLE" : "NSE";
    }
    return is_query ? "LNE" : "SNE";
}

static void print_layer(const attention_run *run) {
    const attn_mha_config *config = &run->layer.config;
    printf("  layer    %s: embed_dim %lld, %lld heads of %lld", run->layer.names.naming->title,
           (long long)config->embed_dim, (long long)config->num_heads, (long long)config->head_dim);
    if (config->value_head_dim != config->head_dim) {
        printf(" (values %lld)", (long long)config->value_head_dim);
    }
    if (config->num_kv_heads != config->num_heads) {
        printf(", %lld key-value heads", (long long)config->num_kv_heads);
    }
    printf("%s%s%s\n", config->no_bias ? ", no bias" : ", with bias",
           config->add_bias_kv ? ", add_bias_kv" : "",
           config->add_zero_attn ? ", add_zero_attn" : "");
}

static void print_ignored(const attention_run *run) {
    const option_texts *ignore = &run->options->ignore;
    if (run->num_ignored == 0) {
        return;
    }
    printf("  ignored  %lld tensor%s of the layer:", (long long)run->num_ignored,
           run->num_ignored == 1 ? "" : "s");
    for (int i = 0; i < ignore->count; i++) {
        printf(" ");
        print_printable(ignore->items[i]);
    }
    printf("\n");
}

static void print_inputs(const attention_run *run) {
    printf("  input    query ");
    print_shape(run->query_view, activation_axes(run, run->query_view, 1));
    if (run_is_self_attention(run)) {
        printf("; key and value are the query");
    } else {
        printf(", key ");
        print_shape(run->key_view, activation_axes(run, run->key_view, 0));
        printf(run->options->value == NULL ? "; value is the key" : ", value ");
        if (run->options->value != NULL) {
            print_shape(run->value_view, activation_axes(run, run->value_view, 0));
        }
    }
    printf("; %s\n", element_type_of(run->layer.config.dtype)->title);
}

static int64_t count_padding(const attention_run *run) {
    const uint8_t *is_padding = run->is_padding.memory;
    int64_t count = 0;
    for (int64_t key = 0; key < run->num_sequences * run->key_length; key++) {
        count += is_padding[key] != 0;
    }
    return count;
}

static void print_mask(const char *name, const run_input *mask, int polarity) {
    char shape[200];
    if (mask->entry != NULL) {
        int is_bool = mask->tensor.view.dtype == ATTN_DTYPE_BOOL;
        printf("  mask     %s %s, %s\n", name,
               shape_text(mask->entry->shape, mask->entry->rank, shape, sizeof shape),
               !is_bool                           ? "added to the scores"
               : polarity == RUN_POLARITY_INCLUDE ? "true = takes part"
                                                  : "true = excluded");
    }
}

static void print_masks(const attention_run *run) {
    print_mask("key_padding_mask", &run->key_padding_mask, run->options->mask_polarity);
    print_mask("attn_mask", &run->attn_mask, run->options->mask_polarity);
    print_mask("bias", &run->bias, run->options->mask_polarity);
    if (run->is_padding.memory != NULL) {
        const int64_t num_keys = run->num_sequences * run->key_length;
        printf("  padding  %lld of %lld keys\n", (long long)count_padding(run),
               (long long)num_keys);
    }
}

/* Only what differs from a plain call; nothing for a plain call. */
static void print_options(const attention_run *run) {
    static const char *const normalizers[] = {"softmax", "sigmoid", "linear"};
    const run_options *options = run->options;
    if (!options->is_causal && options->window == NULL && !options->query_offset.given &&
        !options->align_end && !options->scale.given && !options->softcap.given &&
        !options->rope.given && options->rope_frequencies == NULL && !options->dropout.given &&
        options->normalizer == ATTN_NORMALIZER_SOFTMAX) {
        return;
    }
    printf("  options  normalizer %s", normalizers[options->normalizer]);
    if (options->is_causal) {
        printf(", causal");
    }
    if (options->window != NULL) {
        printf(", window %lld to the left, %lld to the right", (long long)options->window_sides[0],
               (long long)options->window_sides[1]);
    }
    if (options->query_offset.given) {
        printf(", query offset %lld", (long long)options->query_offset.value);
    }
    if (options->align_end) {
        printf(", aligned at the end");
    }
    if (options->scale.given) {
        printf(", scale %g", options->scale.value);
    }
    if (options->softcap.given) {
        printf(", softcap %g", options->softcap.value);
    }
    if (options->rope.given) {
        printf(", rotary positions of base %g", options->rope.value);
    } else if (options->rope_frequencies != NULL) {
        printf(", rotary positions by frequencies");
    }
    if (options->dropout.given) {
        printf(", dropout %g", options->dropout.value);
    }
    printf("\n");
}

static void print_engine(const attention_run *run) {
    const attn_context_info *info = &run->context_info;
    printf("  engine   %s: %s\n", run->report.engine == ATTN_ENGINE_FUSED ? "fused" : "blas",
           run->report.reason);
    printf("  machine  %s kernels, %d thread%s; %s\n", run->report.kernels, (int)info->num_threads,
           info->num_threads == 1 ? "" : "s",
           run->report.gemm == ATTN_GEMM_BLAS ? info->blas
                                              : "matrix products by the library itself");
}

static void print_expect(const attention_run *run) {
    if (run->options->expect == NULL) {
        return;
    }
    printf("  expect   largest difference: attn_output %.2g", run->output_difference.largest);
    if (run->weights_difference.is_compared) {
        printf(", attn_weights %.2g", run->weights_difference.largest);
    }
    printf(" (%s the tolerance of %g)\n", run_is_within_tolerance(run) ? "within" : "ABOVE",
           run->options->tolerance.value);
}

static void print_results(const attention_run *run) {
    const run_options *options = run->options;
    if (options->time.given) {
        printf("  time     %.3g ms at best, %.3g ms median of %lld runs\n", run->min_milliseconds,
               run->median_milliseconds, (long long)options->time.value);
    }
    printf("  result   attn_output ");
    print_shape(&run->output.view, activation_axes(run, run->query_view, 1));
    if (run->weights.memory != NULL) {
        printf(", attn_weights ");
        print_shape(&run->weights.view, run_weights_axes(run));
    }
    if (options->output != NULL) {
        printf(" -> ");
        print_printable(options->output);
    }
    printf("\n");
    print_expect(run);
}

/* ---- links ---- */

/* A word in quotes, with its position where the word alone does not tell which; without words the
 * position. */
static void append_word(char *text, size_t bytes, const token_table *words, int64_t sequence,
                        int64_t position) {
    const char *word = token_word(words, sequence, position);
    size_t used = strlen(text);
    if (word == NULL) {
        (void)snprintf(text + used, bytes - used, "%lld", (long long)position);
        return;
    }
    used += (size_t)snprintf(text + used, bytes - used, "\"%.*s\"",
                             (int)utf8_whole_bytes(word, WORD_BYTES), word);
    if (token_is_repeated(words, sequence, position)) {
        (void)snprintf(text + used, bytes - used, "@%lld", (long long)position);
    }
}

/* "river" -> "bank" 0.62, after "head 3: " or, for a head's further links, ", ". */
static void format_link(const attention_run *run, const word_link *link, int is_first_of_head,
                        char *text) {
    (void)snprintf(text, LINK_BYTES, is_first_of_head ? "head %lld: " : ", ",
                   (long long)link->head);
    append_word(text, LINK_BYTES, &run->query_words, link->sequence, link->query);
    size_t used = strlen(text);
    (void)snprintf(text + used, LINK_BYTES - used, " -> ");
    append_word(text, LINK_BYTES, &run->key_words, link->sequence, link->key);
    used = strlen(text);
    (void)snprintf(text + used, LINK_BYTES - used, " %.2f", link->weight);
}

/* Characters, which is what a terminal's columns count. */
static int text_columns(const char *text) {
    int columns = 0;
    for (; *text != '\0'; text += utf8_character_bytes(*text)) {
        columns++;
    }
    return columns;
}

static void print_sentence(const attention_run *run, int64_t sequence) {
    printf("sequence %lld:", (long long)sequence);
    for (int64_t position = 0; position < run->query_length; position++) {
        const char *word = token_word(&run->query_words, sequence, position);
        int is_hidden = run_is_self_attention(run) && run_is_padding(run, sequence, position);
        if (word != NULL && !is_hidden && !token_is_special(word)) {
            printf(" %s", word);
        }
    }
    printf("\n");
}

static int is_first_of_head(const attention_run *run, int64_t index) {
    const word_link *link = &run->links[index];
    return index == 0 || link[-1].head != link->head || link[-1].sequence != link->sequence;
}

/* The width of a column of heads side by side, 0 if they are to stand one per line. */
static int head_column_width(const attention_run *run) {
    char text[LINK_BYTES];
    int widest = 0;
    for (int64_t i = 0; i < run->num_links; i++) {
        format_link(run, &run->links[i], 1, text);
        widest = text_columns(text) > widest ? text_columns(text) : widest;
    }
    return run->options->links.value == 1 && widest + 2 <= LINE_COLUMNS / 2 ? widest + 2 : 0;
}

/* The links [first, end) of one sequence. */
static void print_sequence_links(const attention_run *run, int64_t first, int64_t end, int width) {
    char text[LINK_BYTES];
    int column = 0;
    for (int64_t i = first; i < end; i++) {
        int is_first = is_first_of_head(run, i);
        if (is_first && i > first && (width == 0 || column + width > LINE_COLUMNS)) {
            printf("\n");
            column = 0;
        }
        format_link(run, &run->links[i], is_first, text);
        printf("%s%s", is_first ? "  " : "", text);
        int padding = width - text_columns(text);
        int has_neighbour = i + 1 < end && column + 2 * width <= LINE_COLUMNS;
        printf("%*s", width > 0 && has_neighbour ? padding : 0, "");
        column += width;
    }
    printf("\n");
}

static void print_links(const attention_run *run) {
    if (!run->options->links.given) {
        return;
    }
    int width = head_column_width(run);
    printf("\nStrongest links: a word -> the word it attends to, and the weight%s\n",
           run->query_words.count > 0 ? " (@: position of a word that occurs twice)" : "");
    for (int64_t first = 0, end = 0; first < run->num_links; first = end) {
        while (end < run->num_links && run->links[end].sequence == run->links[first].sequence) {
            end++;
        }
        print_sentence(run, run->links[first].sequence);
        print_sequence_links(run, first, end, width);
    }
}

void run_print_text(const attention_run *run) {
    print_printable(run->options->layer_path);
    printf(" on libattention %s\n", attn_version_string());
    print_layer(run);
    print_ignored(run);
    print_inputs(run);
    print_masks(run);
    print_options(run);
    print_engine(run);
    print_results(run);
    print_links(run);
}
