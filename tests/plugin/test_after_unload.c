/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_after_unload.c: calls after the hook that takes back what the library holds. Linked with the
 * static library, whose hook has no priority, so that a destructor with one comes after it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/unload.h"
#include "live_threads.h"
#include "small_calls.h"

static attn_context *own_context;  /* has threads */
static attn_context *idle_context; /* has had no call */
static int threads_in_use; /* of a sanitizer too, this one, and one of each context but that */

static void expect(bool holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "%s\n", what);
        _exit(1);
    }
}

static attn_context *create_context(void) {
    const attn_context_config settings = {.struct_size = sizeof settings, .num_threads = 2};
    attn_context *context = NULL;
    expect(attn_context_create(&settings, &context) == ATTN_OK, "a context could not be made");
    return context;
}

static void compute_in_all(const char *when) {
    expect(computes_attention(NULL, ATTN_DTYPE_FLOAT32), when);
    expect(computes_attention(own_context, ATTN_DTYPE_FLOAT32), when);
}

__attribute__((destructor(101))) static void call_after_the_hook(void) {
    expect(attni_is_unloading(), "the library's hook has not run yet");
    const int threads = count_threads_after(threads_in_use - 1);
    expect(threads == threads_in_use - 1, "the default context's thread has not ended, alone");
    compute_in_all("a wrong result after the hook");
    expect(computes_attention(idle_context, ATTN_DTYPE_FLOAT32),
           "a wrong result in an idle context");
    expect(count_threads() == threads, "threads were started after the hook");
    expect(refuses_with_detail(""), "a detail is kept after the hook, or the status is wrong");
    expect(attn_error_set(1000, "a companion's") == 1000, "a companion's status is not returned");
    attn_context_destroy(own_context);
    attn_context_destroy(idle_context);
    printf("calls after the hook: computed and refused\n");
    fflush(stdout);
}

int main(void) {
    setenv("ATTN_NUM_THREADS", "2", 1);
    own_context = create_context();
    idle_context = create_context();
    expect(!attni_is_unloading(), "the hook ran before the end");
    have_sanitizers_thread();
    const int threads_at_first = count_threads();
    compute_in_all("a wrong result");
    threads_in_use = count_threads();
    expect(threads_in_use == threads_at_first + 2, "the contexts have no threads");
    expect(refuses_with_detail(REFUSED_DETAIL), "no detail");
    return 0;
}
