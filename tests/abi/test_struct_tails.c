/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_struct_tails.c: every struct that begins with struct_size, in every function that takes it,
 * with every size a program of another release may say: smaller than the first release's, from there
 * to today's, and larger. test_versioned_struct.c has the rule; this finds the function that does
 * not follow it, or that takes today's size for the first release's.
 */
#include <stdio.h>
#include <string.h>

#include "errors/refusal.h"
#include "struct_cases.h"

/* Room for a struct of a later release. */
enum { TAIL_BYTES = 72, MOST_BYTES = 848 };

/* The caller's memory. */
static union {
    uint64_t struct_size;
    unsigned char bytes[MOST_BYTES];
} given;

/* Calls with a struct of `size` bytes: valid options as far as they go, then `tail` bytes, which for
 * sizes up to today's stand outside the struct. */
static attn_status call_with(const tail_case *entry, uint64_t size, unsigned char tail) {
    const size_t kept = size < entry->known_bytes ? (size_t)size : entry->known_bytes;
    memset(given.bytes, tail, sizeof given.bytes);
    if (entry->valid != NULL) {
        memcpy(given.bytes, entry->valid, kept);
    } else {
        memset(given.bytes, 0, kept);
    }
    given.struct_size = size;
    return entry->call(&given);
}

static void options_smaller_than_the_first_release_are_refused(void **state) {
    const tail_case *entry = *state;
    for (size_t size = 0; size < entry->first_bytes; ++size) {
        refusal_assert(entry->function, call_with(entry, size, 0), ATTN_ERROR_VALUE,
                       refusal_size_line(entry->name, entry->first_bytes, size));
    }
}

/* Whatever stands behind the struct is not the library's to read. */
static void options_of_an_older_release_have_defaults_for_the_rest(void **state) {
    const tail_case *entry = *state;
    for (size_t size = entry->first_bytes; size <= entry->known_bytes; ++size) {
        refusal_assert_ok(entry->function, call_with(entry, size, REFUSAL_CANARY));
    }
}

static void options_of_a_newer_release_with_a_zero_tail_are_accepted(void **state) {
    const tail_case *entry = *state;
    for (size_t more = 1; more <= TAIL_BYTES; ++more) {
        refusal_assert_ok(entry->function, call_with(entry, entry->known_bytes + more, 0));
    }
}

/* Every byte of the tail; those behind it do not count. */
static void options_of_a_newer_release_that_are_used_are_refused(void **state) {
    const tail_case *entry = *state;
    for (size_t more = 1; more <= TAIL_BYTES; ++more) {
        refusal_assert(entry->function, call_with(entry, entry->known_bytes + more, 1),
                       ATTN_ERROR_UNSUPPORTED,
                       refusal_newer_line(entry->name, entry->known_bytes, entry->known_bytes));
    }
    memset(given.bytes + entry->known_bytes, 0, sizeof given.bytes - entry->known_bytes);
    for (size_t at = entry->known_bytes; at < entry->known_bytes + TAIL_BYTES; ++at) {
        given.bytes[at] = 0x80;
        refusal_assert(entry->function, entry->call(&given), ATTN_ERROR_UNSUPPORTED,
                       refusal_newer_line(entry->name, entry->known_bytes, at));
        given.bytes[at] = 0;
    }
    refusal_assert_ok(entry->function, entry->call(&given));
}

/* Calls with a struct of `size` bytes to fill, in memory that holds the canary. */
static attn_status fill(const tail_case *entry, uint64_t size) {
    refusal_fill(given.bytes, sizeof given.bytes);
    given.struct_size = size;
    return entry->call(&given);
}

static void results_smaller_than_the_first_release_are_refused(void **state) {
    const tail_case *entry = *state;
    for (size_t size = 0; size < entry->first_bytes; ++size) {
        refusal_assert(entry->function, fill(entry, size), ATTN_ERROR_VALUE,
                       refusal_size_line(entry->name, entry->first_bytes, size));
        refusal_assert_untouched(entry->name, given.bytes + sizeof size,
                                 sizeof given.bytes - sizeof size);
    }
}

/* struct_size is not changed, so that a program may ask again. What a later release has beyond
 * today's fields becomes 0, and what lies behind the struct stays. */
static void results_are_filled_as_far_as_the_program_has_room(void **state) {
    const tail_case *entry = *state;
    for (size_t size = entry->first_bytes; size <= entry->known_bytes + TAIL_BYTES; ++size) {
        refusal_assert_ok(entry->function, fill(entry, size));
        assert_int_equal(given.struct_size, size);
        const size_t filled = size < entry->known_bytes ? size : entry->known_bytes;
        for (size_t at = filled; at < size; ++at) {
            assert_int_equal(given.bytes[at], 0);
        }
        refusal_assert_untouched(entry->name, given.bytes + size, sizeof given.bytes - size);
        /* No field of a result is made of canaries alone. */
        for (size_t at = sizeof size; at + sizeof(int32_t) <= filled; at += sizeof(int32_t)) {
            static const unsigned char canaries[sizeof(int32_t)] = {REFUSAL_CANARY, REFUSAL_CANARY,
                                                                    REFUSAL_CANARY, REFUSAL_CANARY};
            assert_memory_not_equal(given.bytes + at, canaries, sizeof canaries);
        }
    }
}

/* ---- the tests ---- */

/* A test's name says function, struct and condition. */
static void add(refusal_suite *suite, const tail_case *entry, const char *condition,
                CMUnitTestFunction run) {
    static char names[REFUSAL_MAX_TESTS][128];
    char *name = names[suite->count];
    snprintf(name, sizeof names[0], "%s_%s_%s", entry->function, entry->name, condition);
    refusal_suite_add(suite, name, run, entry);
}

int main(void) {
    static refusal_suite suite;
    struct_cases_create();
    for (size_t i = 0; i < num_tail_options; ++i) {
        add(&suite, &tail_options[i], "too_small_is_refused",
            options_smaller_than_the_first_release_are_refused);
        add(&suite, &tail_options[i], "older_has_defaults",
            options_of_an_older_release_have_defaults_for_the_rest);
        add(&suite, &tail_options[i], "newer_with_zeroes_is_accepted",
            options_of_a_newer_release_with_a_zero_tail_are_accepted);
        add(&suite, &tail_options[i], "newer_in_use_is_refused",
            options_of_a_newer_release_that_are_used_are_refused);
    }
    for (size_t i = 0; i < num_tail_results; ++i) {
        add(&suite, &tail_results[i], "too_small_is_refused",
            results_smaller_than_the_first_release_are_refused);
        add(&suite, &tail_results[i], "is_filled_as_far_as_it_goes",
            results_are_filled_as_far_as_the_program_has_room);
    }
    const int failed = refusal_suite_run(&suite, "struct_tails");
    struct_cases_destroy();
    return failed;
}
