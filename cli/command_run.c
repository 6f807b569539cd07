/* SPDX-License-Identifier: BSD-3-Clause
 *
 * command_run.c: "attn run": the stages of attention_run.h, one after the other.
 */
#include <stdlib.h>

#include "attention_run.h"
#include "program_commands.h"
#include "program_exit.h"

static int load_layer(attention_run *run) {
    return layer_load(run->options, run->context, &run->layer);
}

static int save(attention_run *run) {
    return run_save(run);
}

static int print(attention_run *run) {
    if (run->options->json) {
        return run_print_json(run);
    }
    run_print_text(run);
    return EXIT_DONE;
}

static int judge(attention_run *run) {
    return run_is_within_tolerance(run) ? EXIT_DONE : EXIT_DIFFERENCE;
}

static void free_input(run_input *input) {
    owned_tensor_free(&input->tensor);
    safetensors_close(input->file);
    free(input->path);
}

void attention_run_free(attention_run *run) {
    free_input(&run->query);
    free_input(&run->key);
    free_input(&run->value);
    free_input(&run->key_padding_mask);
    free_input(&run->attn_mask);
    free_input(&run->bias);
    free_input(&run->position_bias);
    free_input(&run->alibi);
    free_input(&run->sinks);
    free_input(&run->block_mask);
    free_input(&run->rope_frequencies);
    owned_tensor_free(&run->key_lengths);
    owned_tensor_free(&run->is_padding);
    owned_tensor_free(&run->output);
    owned_tensor_free(&run->weights);
    token_table_free(&run->query_words);
    token_table_free(&run->key_words);
    free(run->links);
    loaded_layer_free(&run->layer);
    attn_context_destroy(run->context);
}

int command_run(int count, char *const *arguments) {
    static int (*const stages[])(attention_run *) = {run_open_context,
                                                     load_layer,
                                                     run_load_inputs,
                                                     run_check_leftovers,
                                                     run_load_words,
                                                     run_forward,
                                                     run_compare,
                                                     run_find_links,
                                                     save,
                                                     print,
                                                     judge};
    run_options options;
    int exit_code = run_options_parse(count, arguments, &options);
    if (exit_code != EXIT_DONE) {
        return exit_code;
    }
    attention_run run = {.options = &options};
    for (size_t i = 0; i < sizeof stages / sizeof stages[0] && exit_code == EXIT_DONE; i++) {
        exit_code = stages[i](&run);
    }
    attention_run_free(&run);
    return exit_code;
}
