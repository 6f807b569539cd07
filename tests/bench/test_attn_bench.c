/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_attn_bench.c: the attn-bench program as its users run it. Argument: the program.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <cjson/cJSON.h>
#include <sys/wait.h>

static const char *program_path;

enum { OUTPUT_BYTES = 1 << 16 };

typedef struct run_result {
    int exit_code;
    int lines;
    char output[OUTPUT_BYTES]; /* standard output and error */
} run_result;

/* Runs it with arguments as a shell reads them. */
static void run(const char *arguments, run_result *result) {
    char command[2000];
    (void)snprintf(command, sizeof command, "'%s' %s 2>&1", program_path, arguments);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    const size_t bytes = fread(result->output, 1, OUTPUT_BYTES - 1, pipe);
    const int status = pclose(pipe);
    result->output[bytes] = '\0';
    result->exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    result->lines = 0;
    for (const char *byte = result->output; *byte != '\0'; byte++) {
        result->lines += *byte == '\n';
    }
}

static void assert_fails(const char *arguments, int exit_code, const char *text) {
    run_result result;
    run(arguments, &result);
    if (result.exit_code != exit_code || result.lines != 1 ||
        strncmp(result.output, "attn-bench: ", 12) != 0 || strstr(result.output, text) == NULL) {
        fail_msg(
            "attn-bench %s\nexpected exit code %d and one line with '%s', got exit code %d\n%s",
            arguments, exit_code, text, result.exit_code, result.output);
    }
}

/* Runs, and parses line `line` of the `lines` expected. To be freed by cJSON_Delete. */
static cJSON *run_and_parse(const char *arguments, int lines, int line) {
    run_result result;
    run(arguments, &result);
    if (result.exit_code != 0 || result.lines != lines) {
        fail_msg("attn-bench %s\nexpected %d lines, got exit code %d\n%s", arguments, lines,
                 result.exit_code, result.output);
    }
    char *text = result.output;
    for (int i = 0; i < line; i++) {
        text = strchr(text, '\n') + 1;
    }
    *strchr(text, '\n') = '\0';
    cJSON *root = cJSON_Parse(text);
    assert_non_null(root);
    return root;
}

static double number_of(const cJSON *root, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, name);
    if (!cJSON_IsNumber(item)) {
        fail_msg("%s: expected a number", name);
    }
    return item->valuedouble;
}

static const char *text_of(const cJSON *root, const char *name) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, name));
    if (text == NULL) {
        fail_msg("%s: expected a text", name);
    }
    return text;
}

static void a_line_has_all_fields(void **state) {
    (void)state;
    static const char *const positive[] = {"batch",
                                           "heads",
                                           "kv_heads",
                                           "queries",
                                           "keys",
                                           "head_dim",
                                           "value_dim",
                                           "median_ms",
                                           "min_ms",
                                           "repeats",
                                           "threads",
                                           "gflops",
                                           "gbytes",
                                           "visible_pairs",
                                           "calls_per_timing",
                                           "cycle_ghz",
                                           "fma_gflops",
                                           "read_gbytes",
                                           "fraction_of_fma",
                                           "fraction_of_compute_bound",
                                           "fraction_of_read",
                                           "peak_rss_mib",
                                           "tensor_bytes",
                                           "workspace_bytes"};
    static const char *const texts[] = {"command", "dtype",      "layout",  "engine",
                                        "kernels", "gemm",       "reason",  "blas",
                                        "mask",    "normalizer", "weights", "engine_option"};
    cJSON *root = run_and_parse("sdpa --heads 4 --kv-heads 2 --queries 20 --keys 30 --head-dim 8 "
                                "--value-dim 6 --causal --query-offset 10 --threads 1 --seconds 0",
                                1, 0);
    for (size_t i = 0; i < sizeof positive / sizeof positive[0]; i++) {
        assert_true(number_of(root, positive[i]) > 0.0);
    }
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        assert_true(text_of(root, texts[i])[0] != '\0');
    }
    assert_true(number_of(root, "visible_pairs") == 20 * 11 + 190);
    const double flops = 2.0 * (8 + 6) * 4 * (20 * 11 + 190);
    const double printed = number_of(root, "gflops") * number_of(root, "median_ms") * 1e6;
    assert_true(printed > 0.9999 * flops && printed < 1.0001 * flops);
    assert_true(number_of(root, "repeats") >= 5.0);
    assert_true(number_of(root, "min_ms") <= number_of(root, "median_ms"));
    cJSON_Delete(root);
}

static void every_option_is_accepted(void **state) {
    (void)state;
    static const char *const command_lines[] = {
        "sdpa --window 3,-1 --key-lengths 0.5,7 --mask bool --mask-shape keys --lse --alibi",
        "sdpa --softcap 5 --mask additive --mask-shape keys --weights heads --layout bshd --gqa",
        "sdpa --mask additive --mask-shape per-head --weights average --kv-heads 1 --dtype float64",
        "sdpa --mask bool --normalizer sigmoid --scale -2 --allocate --kernels baseline "
        "--float32-weights",
        "sdpa --normalizer linear --gemm native --engine blas --blas-threads 1 --seed 7",
        "sdpa --bias full --mask bool --align-end --causal --keys 12",
        "sdpa --backward --causal --kv-heads 1 --layout bshd --alibi",
        "sdpa --backward --page 5 --key-lengths 3,10 --normalizer sigmoid",
        "sdpa --page 5 --key-lengths 3,10 --layout bshd --lse --kv-heads 1 --dtype float16",
        "sdpa --page 1 --query-lengths 3,0 --causal --align-end",
        "sdpa --query-lengths 2,70 --layout bshd --window 1,1",
        "sdpa --block-mask 0.5 --block-rows 3 --block-columns 4 --causal --mask bool --lse",
        "sdpa --block-mask documents --block-rows 1 --block-columns 2 --backward --keys 11",
        "sdpa --block-mask 1 --block-rows 7 --query-lengths 3,70 --page 2 --weights none",
        "mha --embed-dim 16 --block-mask 0 --block-rows 5 --weights heads --dtype float64",
        "sdpa --bias distances --mask bool --causal --keys 12",
        "mha --embed-dim 16 --bias per-head --align-end --causal --weights heads --gemm auto",
        "mha --embed-dim 16 --head-dim 5 --value-dim 3 --kv-heads 1 --bound --weights average",
        "mha --embed-dim 16 --parameters int8 --kv-heads 1 --causal",
        "mha --embed-dim 16 --backward --keys 9 --kv-heads 1 --causal --bound --dtype bfloat16",
        "mha --embed-dim 16 --backward --normalizer sigmoid --mask bool --mask-shape keys "
        "--allocate",
        "mha --embed-dim 16 --parameters float32 --dtype bfloat16 --bound",
        "mha --embed-dim 16 --keys 9 --sequence-first --mask bool --mask-shape keys --causal --lse",
        "mha --embed-dim 16 --mask additive --mask-shape per-head --weights heads --sinks --alibi",
        "mha --embed-dim 16 --mask bool --key-lengths 3 --window 2,2 --dtype float64 --softcap 2",
    };
    char line[500];
    for (size_t i = 0; i < sizeof command_lines / sizeof command_lines[0]; i++) {
        (void)snprintf(line, sizeof line, "%s %s", command_lines[i],
                       "--batch 2 --heads 2 --queries 10 --threads 1 --repeats 1 --seconds 0 "
                       "--no-limits");
        cJSON *root = run_and_parse(line, 1, 0);
        assert_true(cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(root, "fma_gflops")));
        assert_true(number_of(root, "median_ms") > 0.0);
        cJSON_Delete(root);
    }
}

/* Causal rows of sequences of 3 and 5 at the ends of their 4 and 5 keys. */
static void query_lengths_are_rows_of_sequences(void **state) {
    (void)state;
    cJSON *root = run_and_parse("sdpa --batch 2 --heads 2 --keys 5 --key-lengths 4,5 --causal "
                                "--align-end --query-lengths 3,5 --page 1 --threads 1 --repeats 1 "
                                "--seconds 0 --no-limits",
                                1, 0);
    assert_true(number_of(root, "visible_pairs") == 2 + 3 + 4 + 1 + 2 + 3 + 4 + 5);
    assert_true(number_of(root, "page") == 1);
    assert_string_equal(text_of(root, "query_lengths"), "3,5");
    cJSON_Delete(root);
}

/* Two of sixteen rows and keys are a document; a share of 1 hides nothing. */
static void block_masks_leave_what_they_say(void **state) {
    (void)state;
    static const char *const masks[] = {"documents", "0", "1"};
    static const int pairs[] = {8 * 2 * 2, 0, 16 * 16};
    for (int i = 0; i < 3; i++) {
        char line[300];
        (void)snprintf(line, sizeof line,
                       "sdpa --heads 2 --queries 16 --block-rows 1 --block-columns 2 --block-mask "
                       "%s --threads 1 --repeats 1 --seconds 0 --no-limits",
                       masks[i]);
        cJSON *root = run_and_parse(line, 1, 0);
        assert_true(number_of(root, "visible_pairs") == pairs[i]);
        assert_string_equal(text_of(root, "block_mask"), masks[i]);
        assert_true(number_of(root, "block_rows") == 1 && number_of(root, "block_columns") == 2);
        cJSON_Delete(root);
    }
}

static void backward_tells_its_own_schedule(void **state) {
    (void)state;
    cJSON *root = run_and_parse("sdpa --backward --heads 2 --queries 10 --threads 1 --repeats 1 "
                                "--seconds 0 --no-limits",
                                1, 0);
    assert_string_equal(text_of(root, "reason"), "there are enough heads for the threads, or too "
                                                 "little work to share");
    cJSON_Delete(root);
}

static void versus_prints_a_line_for_each_contestant(void **state) {
    (void)state;
    const char *line =
        "sdpa --queries 16 --heads 2 --threads 1 --repeats 3 --seconds 0 --no-limits "
        "--versus '--gemm native' --versus '--kernels baseline --causal'";
    cJSON *first = run_and_parse(line, 3, 0);
    cJSON *second = run_and_parse(line, 3, 1);
    cJSON *third = run_and_parse(line, 3, 2);
    assert_true(cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(first, "versus")));
    assert_string_equal(text_of(second, "versus"), "--gemm native");
    assert_string_equal(text_of(second, "gemm"), "native");
    assert_true(number_of(second, "speedup") > 0.0);
    assert_true(number_of(second, "speedup_low") <= number_of(second, "speedup_high"));
    assert_string_equal(text_of(third, "kernels"), "baseline");
    assert_true(number_of(third, "visible_pairs") == 136);
    cJSON_Delete(first);
    cJSON_Delete(second);
    cJSON_Delete(third);
}

static void grow_prints_a_line_for_each_length(void **state) {
    (void)state;
    const char *line = "grow sdpa --lengths 8,16,2048 --heads 1 --head-dim 4 --threads 1 "
                       "--repeats 1 --seconds 0 --no-limits --weights heads";
    cJSON *small = run_and_parse(line, 3, 0);
    cJSON *large = run_and_parse(line, 3, 2);
    assert_true(number_of(small, "queries") == 8 && number_of(small, "keys") == 8);
    assert_true(number_of(large, "queries") == 2048 && number_of(large, "keys") == 2048);
    /* The weights of the last, 16 MiB, are its own. */
    assert_true(number_of(large, "peak_rss_mib") > number_of(small, "peak_rss_mib") + 14.0);
    cJSON_Delete(small);
    cJSON_Delete(large);
    cJSON *decoding = run_and_parse("grow sdpa --lengths 5,6 --queries 1 --threads 1 --repeats 1 "
                                    "--seconds 0 --no-limits",
                                    2, 1);
    assert_true(number_of(decoding, "queries") == 1 && number_of(decoding, "keys") == 6);
    cJSON_Delete(decoding);
}

static void limits_prints_one_line(void **state) {
    (void)state;
    cJSON *root = run_and_parse("limits --threads 1 --seconds 0.02", 1, 0);
    assert_true(number_of(root, "fma_gflops") > 0.0 && number_of(root, "read_gbytes") > 0.0);
    cJSON_Delete(root);
}

static void wrong_command_lines_exit_with_2(void **state) {
    (void)state;
    assert_fails("", 2, "expected sdpa, mha, grow or limits");
    assert_fails("spda", 2, "unknown command 'spda'");
    assert_fails("sdpa --keys 10 --page 3", 2, "--page: expected a divisor of --keys 10, got 3");
    assert_fails("sdpa --query-lengths 3,-1", 2, "--query-lengths: expected integers from 0");
    assert_fails("sdpa --query-lengths 3 --lse", 2, "--query-lengths: expected no --mask");
    assert_fails("mha --page 3", 2, "--page");
    assert_fails("sdpa --block-mask 1.5", 2, "--block-mask: expected a share from 0 to 1, or doc");
    assert_fails("sdpa --block-mask some", 2, "--block-mask: expected a share from 0 to 1, or doc");
    assert_fails("sdpa --block-rows 3", 2, "--block-rows: expected --block-mask with it");
    assert_fails("sdpa --block-columns 3", 2, "--block-columns: expected --block-mask with it");
    assert_fails("sdpa --block-mask 1 --block-rows 0", 2, "--block-rows: expected an integer");
    assert_fails("sdpa --headz 3", 2, "unknown option '--headz'");
    assert_fails("sdpa 3", 2, "unexpected argument '3'");
    assert_fails("sdpa --embed-dim 3", 2, "unknown option '--embed-dim'");
    assert_fails("sdpa --lengths 3", 2, "unknown option '--lengths'");
    assert_fails("sdpa --queries 0", 2, "--queries: expected an integer from 1 to ");
    assert_fails("sdpa --queries x", 2, "--queries: expected an integer from 1 to ");
    assert_fails("sdpa --window 1", 2, "--window: expected LEFT,RIGHT");
    assert_fails("sdpa --window 1,-2", 2, "--window: expected LEFT,RIGHT");
    assert_fails("sdpa --key-lengths 513", 2, "--key-lengths: expected integers from 0 to 512");
    assert_fails("sdpa --key-lengths 1.5", 2, "--key-lengths: expected integers from 0 to 512");
    assert_fails("sdpa --key-lengths 3,,4", 2, "--key-lengths: expected integers from 0 to 512");
    assert_fails("sdpa --kernels mmx", 2, "--kernels: expected one of ");
    assert_fails("sdpa --engine fast", 2, "--engine: expected one of auto, blas, fused");
    assert_fails("sdpa --heads 3 --kv-heads 2", 2, "--kv-heads: expected a divisor of --heads 3");
    assert_fails("sdpa --normalizer linear --lse", 2, "--lse: expected --normalizer softmax");
    assert_fails("sdpa --seconds -1", 2, "--seconds: expected a number of at least 0");
    assert_fails("sdpa --softcap 0", 2, "--softcap: expected a number above 0");
    assert_fails("sdpa --align-end --query-offset 2", 2, "--align-end and --query-offset");
    assert_fails("sdpa --bias 3", 2, "--bias: expected one of none, full, per-head, distances");
    assert_fails("sdpa --mask-shape keys", 2, "--mask-shape: expected --mask");
    assert_fails("sdpa --versus '--repeats 3'", 2, "unknown option '--repeats'");
    assert_fails("mha --embed-dim 10 --heads 3", 2, "--embed-dim: expected a multiple of --heads");
    assert_fails("grow", 2, "grow: expected sdpa or mha");
    assert_fails("grow sdpa", 2, "--lengths: missing");
    assert_fails("grow sdpa --lengths 8,x", 2, "--lengths: expected integers from 1 to ");
    assert_fails("grow sdpa --lengths 8 --keys 3", 2, "--keys: expected --lengths");
    assert_fails("limits --threads 0", 2, "--threads: expected an integer from 1 to 1024");
}

static void what_the_library_refuses_exits_with_1(void **state) {
    (void)state;
    assert_fails("sdpa --batch 1048576 --queries 1048576 --heads 1048576 --no-limits", 1,
                 "query: ");
    assert_fails("grow sdpa --lengths 1048576,5 --batch 1048576 --heads 1048576 --no-limits", 1,
                 "query: ");
}

static void help_is_printed(void **state) {
    (void)state;
    static run_result result;
    run("--help", &result);
    assert_int_equal(result.exit_code, 0);
    assert_non_null(strstr(result.output, "attn-bench grow sdpa --lengths"));
    run("sdpa --queries 3 --help", &result);
    assert_int_equal(result.exit_code, 0);
    assert_non_null(strstr(result.output, "fraction_of_compute_bound"));
}

int main(int argc, char **argv) {
    if (argc != 2) {
        return 2;
    }
    program_path = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_has_all_fields),
        cmocka_unit_test(every_option_is_accepted),
        cmocka_unit_test(query_lengths_are_rows_of_sequences),
        cmocka_unit_test(block_masks_leave_what_they_say),
        cmocka_unit_test(backward_tells_its_own_schedule),
        cmocka_unit_test(versus_prints_a_line_for_each_contestant),
        cmocka_unit_test(grow_prints_a_line_for_each_length),
        cmocka_unit_test(limits_prints_one_line),
        cmocka_unit_test(wrong_command_lines_exit_with_2),
        cmocka_unit_test(what_the_library_refuses_exits_with_1),
        cmocka_unit_test(help_is_printed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
