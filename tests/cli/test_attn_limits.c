/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_attn_limits.c: the program's time and memory grow with its files, not with the numbers in
 * them: hostile files under limits of the system. Arguments: the program, the folder of fixtures.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sys/resource.h>

#include "program_run.h"
#include "scratch_files.h"
#include "tiny_layer.h"

/* A sanitizer reserves more addresses than any limit of use here, and takes its time. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer) || \
    __has_feature(thread_sanitizer)
#define HAS_SANITIZER 1
#endif
#endif
#ifndef HAS_SANITIZER
#define HAS_SANITIZER 0
#endif

/* Not optimised, and counting what runs. */
#if defined(ATTENTION_COVERAGE)
#define IS_COUNTED 1
#else
#define IS_COUNTED 0
#endif

enum {
    MEMORY_BYTES = 512 << 20, /* of addresses: libraries and one stack take a part of it */
    CPU_SECONDS = HAS_SANITIZER || IS_COUNTED ? 60 : 5
};

/* Sets the soft limit, which programs that are started inherit, and returns the one before. */
static rlim_t limit(int resource, rlim_t soft) {
    struct rlimit limits;
    assert_int_equal(getrlimit(resource, &limits), 0);
    rlim_t before = limits.rlim_cur;
    limits.rlim_cur = soft < limits.rlim_max ? soft : limits.rlim_max;
    assert_int_equal(setrlimit(resource, &limits), 0);
    return before;
}

/* As assert_program, under the limits. */
static void assert_within_limits(void **state, const char *command_line, int exit_code,
                                 const char *text) {
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    rlim_t used = (rlim_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec);
    rlim_t cpu = limit(RLIMIT_CPU, used + CPU_SECONDS);
    rlim_t memory = HAS_SANITIZER ? 0 : limit(RLIMIT_AS, MEMORY_BYTES);
    assert_program(state, command_line, exit_code, text);
    (void)limit(RLIMIT_CPU, cpu);
    if (!HAS_SANITIZER) {
        (void)limit(RLIMIT_AS, memory);
    }
}

/* ---- tensors without elements that claim lengths ---- */

static void write_empty(void **state, const char *name, const char *tensor, const char *shape) {
    char path[SCRATCH_PATH_BYTES];
    char header[300];
    (void)snprintf(header, sizeof header,
                   "{\"%s\":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[0,0]}}", tensor,
                   shape);
    scratch_write_safetensors(scratch_path(state, name, path), header, 0);
}

static void inputs_without_elements_take_no_memory_for_their_lengths(void **state) {
    static const struct {
        const char *query_shape;
        const char *key_shape;
        const char *options;
        int exit_code;
        const char *text;
    } cases[] = {
        {"[300000000,0]", "[1,1]", "", 1, "forward: query: expected shape"},
        {"[300000000,1,0]", "[1,1,1]", "--weights heads", 1, "forward: query: expected shape"},
        {"[0,1]", "[300000000,0]", "--weights heads", 1, "forward: key: expected shape"},
        {"[0,2,1]", "[300000000,0,1]", "--weights heads --key-lengths 1,1", 1,
         "forward: key: expected shape"},
        {"[0,1000000000000,1]", "[0,1000000000000,1]", "--key-lengths 1", 2,
         "--key-lengths: expected 1000000000000 integers"},
        {"[0,1000000000000,1]", "[0,1000000000000,1]",
         "--weights heads --links --key-padding-mask %D/padding.safetensors:padding", 0,
         "attn_output (L=0, N=1000000000000, E=1)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char command_line[600];
        char header[400];
        char path[SCRATCH_PATH_BYTES];
        write_empty(state, "query.safetensors", "query", cases[i].query_shape);
        write_empty(state, "padding.safetensors", "padding", "[1000000000000,0]");
        size_t data_bytes = strchr(cases[i].key_shape, '0') == NULL ? 4 : 0;
        (void)snprintf(header, sizeof header,
                       "{\"key\":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[0,%zu]}}",
                       cases[i].key_shape, data_bytes);
        scratch_write_safetensors(scratch_path(state, "key.safetensors", path), header, data_bytes);
        (void)snprintf(command_line, sizeof command_line,
                       "run %%D/layer.safetensors --threads 1 --query %%D/query.safetensors --key "
                       "%%D/key.safetensors %s",
                       cases[i].options);
        assert_within_limits(state, command_line, cases[i].exit_code, cases[i].text);
    }
}

static void weights_without_elements_take_no_memory_for_their_lengths(void **state) {
    static const struct {
        const char *shape;
        const char *axes;
        int exit_code;
        const char *error;
    } cases[] = {
        {"[0,300000000,300000000]", "HLT", 4, "nothing to draw: its shape is (0, 300000000, "},
        {"[0,300000000,300000000]", "auto", 2, "--sequence: attn_weights has 0 sequences"},
        {"[1,0,300000000,300000000]", "auto", 4, "nothing to draw: its shape is (1, 0, 3"},
        {"[300000000,0]", "auto", 4, "nothing to draw: its shape is (300000000, 0)"},
        {"[9007199254740992,0,3]", "auto", 4, "nothing to draw: its shape is (9007199254740992, "},
        {"[9007199254740992,3,0]", "HLT", 4, "nothing to draw: its shape is (9007199254740992, "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char command_line[200];
        write_empty(state, "weights.safetensors", "attn_weights", cases[i].shape);
        (void)snprintf(command_line, sizeof command_line,
                       "heatmap %%D/weights.safetensors --output %%D/weights.png --axes %s",
                       cases[i].axes);
        assert_within_limits(state, command_line, cases[i].exit_code, cases[i].error);
    }
}

/* ---- headers of many small things ---- */

/* Begin, `count` times the middle with its number where it has a '%', end. To be freed. */
static char *repeat(const char *begin, const char *middle, int count, const char *end) {
    size_t bytes = strlen(begin) + strlen(end) + (size_t)count * (strlen(middle) + 12) + 1;
    char *text = malloc(bytes);
    assert_non_null(text);
    size_t used = (size_t)sprintf(text, "%s", begin);
    for (int i = 0; i < count; i++) {
        used += (size_t)sprintf(text + used, "%s", i == 0 ? "" : ",");
        for (const char *byte = middle; *byte != '\0'; byte++) {
            used += (size_t)(*byte == '%' ? sprintf(text + used, "%d", i)
                                          : sprintf(text + used, "%c", *byte));
        }
    }
    (void)sprintf(text + used, "%s", end);
    return text;
}

static void long_headers_take_time_and_memory_for_their_bytes(void **state) {
    static const char tensor[] = "\"q\":{\"dtype\":\"F32\",\"shape\":[2,1],"
                                 "\"data_offsets\":[0,8]";
    static const struct {
        const char *begin, *middle;
        int count;
        const char *end;
    } cases[] = {
        /* lists of words; words; metadata that nobody asks for; numbers, brackets and axes. */
        {"\"__metadata__\":{", "\"tokens.%\":\"[]\"", 100000, "}"},
        {"\"__metadata__\":{\"tokens.0\":\"[", "\\\"\\\"", 1000000, "]\"}"},
        {"\"__metadata__\":{", "\"%\":\"\"", 200000, "}"},
        {"\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0],\"x\":[", "0", 10000000,
         "]}"},
        {"\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0],\"x\":[", "{}", 2000000,
         "]}"},
        {"\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,0],\"shape\":[", "0", 5000000, "]}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char begin[300];
        char path[SCRATCH_PATH_BYTES];
        (void)snprintf(begin, sizeof begin, "{%s},%s", tensor, cases[i].begin);
        char *end = NULL;
        assert_true(asprintf(&end, "%s}", cases[i].end) > 0);
        char *header = repeat(begin, cases[i].middle, cases[i].count, end);
        scratch_write_safetensors(scratch_path(state, "long.safetensors", path), header, 8);
        assert_within_limits(state,
                             "run %D/layer.safetensors --threads 1 --query %D/long.safetensors:q "
                             "--output %D/out.safetensors",
                             0, "attn_output (L=2, E=1)");
        free(header);
        free(end);
    }
}

static void many_tensors_take_time_and_memory_for_their_bytes(void **state) {
    char path[SCRATCH_PATH_BYTES];
    char *header =
        repeat("{", "\"%.in_proj_weight\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}",
               200000, "}");
    scratch_write_safetensors(scratch_path(state, "many.safetensors", path), header, 0);
    assert_within_limits(state, "run %D/many.safetensors --query %D/x.safetensors", 4,
                         "no attention layer under prefix ''");
    free(header);
}

int main(int argc, char **argv) {
#define TINY_TEST(test) cmocka_unit_test_setup_teardown(test, tiny_layer_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        TINY_TEST(inputs_without_elements_take_no_memory_for_their_lengths),
        TINY_TEST(weights_without_elements_take_no_memory_for_their_lengths),
        TINY_TEST(long_headers_take_time_and_memory_for_their_bytes),
        TINY_TEST(many_tensors_take_time_and_memory_for_their_bytes),
    };
    if (argc < 3) {
        (void)fprintf(stderr, "usage: %s PROGRAM FIXTURES\n", argv[0]);
        return 1;
    }
    if (HAS_SANITIZER) {
        printf("the limit of memory is left out: a sanitizer reserves more than any\n");
    }
    /* A BLAS with threads of its own takes memory for each of them. */
    assert_int_equal(setenv("OPENBLAS_NUM_THREADS", "1", 1), 0);
    program_path = argv[1];
    fixtures_path = argv[2];
    return cmocka_run_group_tests_name("attn_limits", tests, NULL, NULL);
}
