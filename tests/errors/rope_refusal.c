/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rope_refusal.c: runs entries of the error tables of attn_rope and attn_rms_norm.
 */
#include "rope_refusal.h"

#include <stdio.h>
#include <string.h>

const rope_function rope_function_rope = {"attn_rope", rope_fixture_run,
                                          rope_fixture_assert_values};
const rope_function rope_function_rms_norm = {"attn_rms_norm", rope_fixture_normalize,
                                              rope_fixture_assert_normalized};

attn_context *rope_refusal_context;
static const rope_function *function;

static void apply(const rope_refusal *entry, rope_fixture *fixture) {
    fixture->options = entry->params;
    fixture->norm_options = entry->norm_params;
    if (entry->params.struct_size == 0) {
        fixture->options.struct_size = sizeof fixture->options;
    }
    if (entry->norm_params.struct_size == 0) {
        fixture->norm_options.struct_size = sizeof fixture->norm_options;
    }
    for (int i = 0; i < 2 && entry->links[i] != 0; ++i) {
        rope_fixture_link(fixture, entry->links[i]);
    }
    refusal_spoil_view(fixture->views, &entry->spoil);
    if (entry->spoil.fault == REFUSAL_NO_TENSOR) {
        fixture->arguments[entry->spoil.tensor] = NULL;
    } else if (entry->spoil.fault != REFUSAL_NO_FAULT && entry->spoil.tensor >= ROPE_ARGUMENTS) {
        rope_fixture_link(fixture, entry->spoil.tensor);
    }
}

static void run_entry(void **state) {
    const rope_refusal *entry = *state;
    rope_fixture fixture;
    rope_fixture_prepare(&fixture, rope_refusal_context);
    apply(entry, &fixture);
    rope_memory before;
    memcpy(&before, &fixture.memory, sizeof before);
    refusal_assert(function->name, function->run(&fixture), entry->status, entry->line);
    assert_memory_equal(&fixture.memory, &before, sizeof before);
    rope_fixture_prepare(&fixture, rope_refusal_context);
    refusal_assert_ok(function->name, function->run(&fixture));
    function->assert_values(&fixture);
}

/* The one overlap that is allowed: the very same view. */
static void output_that_is_input_is_accepted(void **state) {
    (void)state;
    rope_fixture separate, fixture;
    rope_fixture_prepare(&separate, rope_refusal_context);
    refusal_assert_ok(function->name, function->run(&separate));
    function->assert_values(&separate);
    rope_fixture_prepare(&fixture, rope_refusal_context);
    fixture.arguments[ROPE_OUTPUT] = &fixture.views[ROPE_INPUT];
    refusal_assert_ok(function->name, function->run(&fixture));
    assert_memory_equal(fixture.memory.input, separate.memory.output,
                        sizeof separate.memory.output);
}

int rope_refusal_main(const rope_function *tested, const rope_refusal *table, size_t count,
                      const struct CMUnitTest *further, size_t num_further) {
    static refusal_suite suite;
    static char name[40];
    const attn_context_config config = {.struct_size = sizeof config, .num_threads = 2};
    function = tested;
    if (attn_context_create(&config, &rope_refusal_context) != ATTN_OK) {
        print_error("%s\n", attn_last_error());
        return 1;
    }
    for (size_t i = 0; i < count; ++i) {
        refusal_suite_add(&suite, table[i].name, run_entry, &table[i]);
    }
    refusal_suite_add(&suite, "output_that_is_input_is_accepted", output_that_is_input_is_accepted,
                      NULL);
    for (size_t i = 0; i < num_further; ++i) {
        refusal_suite_add(&suite, further[i].name, further[i].test_func, NULL);
    }
    snprintf(name, sizeof name, "errors of %s", function->name);
    const int failures = refusal_suite_run(&suite, name);
    attn_context_destroy(rope_refusal_context);
    return failures;
}
