/* SPDX-License-Identifier: BSD-3-Clause
 *
 * run_leftovers.c: tensors under the layer's prefix that attn does not know. Norms of queries and
 * keys, sinks, relative positions, adapters and scales of quantised weights stand there, and a layer
 * without them computes other numbers: they are refused unless the command line says to ignore them.
 */
#include <stdio.h>
#include <string.h>

#include "attention_run.h"
#include "printable_text.h"
#include "program_exit.h"

enum { LISTED_NAMES = 4, LIST_BYTES = 400 };

/* Is it, under this name, an input of the command line? */
static int is_input(const attention_run *run, const safetensors_entry *entry) {
    const run_input *inputs[] = {
        &run->query,     &run->key,        &run->value,           &run->key_padding_mask,
        &run->attn_mask, &run->bias,       &run->position_bias,   &run->alibi,
        &run->sinks,     &run->block_mask, &run->rope_frequencies};
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++) {
        if (inputs[i]->entry != NULL && strcmp(inputs[i]->entry->name, entry->name) == 0 &&
            safetensors_is_same_file(inputs[i]->file, run->layer.file)) {
            return 1;
        }
    }
    return 0;
}

/* "--ignore a.b" means the tensor a.b, "--ignore a." all whose names begin so. */
static int is_meant(const char *ignored, const char *name) {
    size_t bytes = strlen(ignored);
    int is_group = bytes > 0 && ignored[bytes - 1] == '.';
    return is_group ? strncmp(ignored, name, bytes) == 0 : strcmp(ignored, name) == 0;
}

/* Bits of the options --ignore that mean this name. */
static unsigned meaning_options(const option_texts *ignore, const char *name) {
    unsigned options = 0;
    for (int i = 0; i < ignore->count; i++) {
        options |= is_meant(ignore->items[i], name) ? 1U << i : 0U;
    }
    return options;
}

static int fail_refused(const attention_run *run, const char *list, const char *first,
                        int64_t count) {
    char more[40] = "";
    if (count > LISTED_NAMES) {
        (void)snprintf(more, sizeof more, " and %lld more", (long long)(count - LISTED_NAMES));
    }
    return program_fail(
        EXIT_BAD_FILE,
        "%s: %s%s: under the layer's prefix, but nothing attn computes with, so its "
        "numbers would not be the model's; --ignore %.150s leaves it out, if that "
        "is meant",
        run->options->layer_path, list, more, first);
}

/* An option that lets nothing through is a mistake: a name mistyped, or a parameter's. */
static int check_every_option_used(const attention_run *run, unsigned used) {
    const option_texts *ignore = &run->options->ignore;
    for (int i = 0; i < ignore->count; i++) {
        if ((used >> i & 1) == 0) {
            return program_fail(
                EXIT_BAD_FILE,
                "--ignore: %s has no tensor '%s' that could be left out of the layer",
                run->options->layer_path, ignore->items[i]);
        }
    }
    return EXIT_DONE;
}

int run_check_leftovers(attention_run *run) {
    char list[LIST_BYTES] = "";
    const char *first = NULL;
    int64_t count = 0;
    unsigned used = 0;
    for (int64_t i = 0; i < safetensors_count(run->layer.file); i++) {
        const safetensors_entry *entry = safetensors_at(run->layer.file, i);
        if (!layer_names_leave_over(&run->layer.names, entry) || is_input(run, entry)) {
            continue;
        }
        unsigned options = meaning_options(&run->options->ignore, entry->name);
        used |= options;
        run->num_ignored += options != 0;
        if (options == 0 && count++ < LISTED_NAMES) {
            size_t length = strlen(list);
            (void)snprintf(list + length, sizeof list - length, "%s%.*s", count == 1 ? "" : ", ",
                           (int)utf8_whole_bytes(entry->name, LIST_BYTES / LISTED_NAMES - 10),
                           entry->name);
            first = count == 1 ? entry->name : first;
        }
    }
    return count > 0 ? fail_refused(run, list, first, count) : check_every_option_used(run, used);
}
