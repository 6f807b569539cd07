/* SPDX-License-Identifier: BSD-3-Clause
 *
 * export_cases.c: writes the golden cases of a list, and the made ones, as plain files that every
 * language reads in a few lines.
 *
 * Usage: export_cases <golden folder> <list> <output folder>
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "case_writer.h"
#include "export_cases.h"
#include "golden_case.h"

/* One line of the list: NAME, and for a call to be refused CODE and MESSAGE. */
typedef struct listed_case {
    char line[512];
    const char *name;
    const char *refusal; /* "CODE MESSAGE", or NULL */
} listed_case;

typedef struct renamed {
    const char *from;
    const char *to;
} renamed;

void export_fail(const char *what, const char *name, const char *why) {
    fprintf(stderr, "export_cases: %s %s: %s\n", what, name, why);
    exit(1);
}

FILE *export_open(const export_folder *folder, const char *name) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s.case", folder->path, name);
    FILE *file = fopen(path, "wb");
    if (file == NULL) {
        export_fail("cannot write", path, strerror(errno));
    }
    case_write_line(folder->list, "%s", name);
    return file;
}

void export_close(FILE *file, const char *name) {
    if (ferror(file) || fclose(file) != 0) {
        export_fail("cannot write", name, "input/output error");
    }
}

/* ---- golden cases ---- */

/* An input of the case, if it has one of that name. With joins_heads (n, De, D) becomes
 * (n * De, D), (n, De) becomes (n * De). */
static void write_input(FILE *file, golden_case *golden, const renamed *name, bool joins_heads) {
    attn_tensor view;
    if (!golden_input(golden, name->from, 0, &view)) {
        return;
    }
    if (joins_heads && !attn_tensor_is_contiguous(&view)) {
        export_fail("not contiguous:", name->from, golden->name);
    }
    if (joins_heads) {
        view.rank--;
        view.shape[0] *= view.shape[1];
        memmove(&view.shape[1], &view.shape[2], sizeof view.shape - 2 * sizeof view.shape[0]);
        memmove(&view.strides[0], &view.strides[1], sizeof view.strides - sizeof view.strides[0]);
    }
    case_write_tensor(file, name->to, &view);
}

static void write_inputs(FILE *file, golden_case *golden, const renamed *names, size_t count) {
    for (size_t i = 0; i < count; ++i) {
        write_input(file, golden, &names[i], false);
    }
}

static void write_option(FILE *file, const golden_case *golden, const char *from, const char *to) {
    const char *value = golden_option(golden, from);
    if (*value != '\0' && strcmp(value, "none") != 0) {
        case_write_line(file, "option %s %s", to, value);
    }
}

/* PyTorch's bias=False. */
static void write_no_bias(FILE *file, const golden_case *golden) {
    if (!golden_flag(golden, "bias")) {
        case_write_line(file, "option no_bias 1");
    }
}

static void write_expected(FILE *file, golden_case *golden, const char *from, const char *to) {
    golden_expected expected;
    if (!golden_expected_values(golden, from, &expected)) {
        export_fail("no expected", from, golden->name);
    }
    case_write_expected(file, to, expected.tolerance, expected.rank, expected.shape,
                        expected.values);
}

/* What is expected, if the case has it. */
static void write_found(FILE *file, golden_case *golden, const renamed *name) {
    golden_expected expected;
    if (golden_expected_values(golden, name->from, &expected)) {
        write_expected(file, golden, name->from, name->to);
    }
}

static void write_sdpa_gradients(FILE *file, golden_case *golden) {
    static const renamed wanted[] = {{"grad.q", "gradient.query"},
                                     {"grad.k", "gradient.key"},
                                     {"grad.v", "gradient.value"},
                                     {"grad.attn_mask", "gradient.attn_mask"}};
    write_input(file, golden, &(renamed){"grad_out", "gradient.output"}, false);
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; ++i) {
        write_found(file, golden, &wanted[i]);
    }
}

static void write_sdpa(FILE *file, golden_case *golden, const listed_case *listed) {
    static const renamed inputs[] = {
        {"q", "query"}, {"k", "key"}, {"v", "value"}, {"attn_mask", "attn_mask"}};
    static const char *const options[] = {"is_causal", "scale", "enable_gqa"};
    case_write_line(file, "call sdpa");
    for (size_t i = 0; i < sizeof options / sizeof options[0]; ++i) {
        write_option(file, golden, options[i], options[i]);
    }
    write_inputs(file, golden, inputs, sizeof inputs / sizeof inputs[0]);
    if (listed->refusal == NULL) {
        write_expected(file, golden, "out", "output");
        write_sdpa_gradients(file, golden);
    }
}

static void write_mha_call(FILE *file, golden_case *golden, const listed_case *listed) {
    static const renamed inputs[] = {{"query", "query"},
                                     {"key", "key"},
                                     {"value", "value"},
                                     {"attn_mask", "attn_mask"},
                                     {"key_padding_mask", "key_padding_mask"}};
    static const char *const options[] = {"is_causal", "need_weights", "average_attn_weights"};
    for (size_t i = 0; i < sizeof options / sizeof options[0]; ++i) {
        write_option(file, golden, options[i], options[i]);
    }
    write_inputs(file, golden, inputs, sizeof inputs / sizeof inputs[0]);
    if (listed->refusal == NULL) {
        write_expected(file, golden, "attn_output", "attn_output");
        if (golden_flag(golden, "need_weights")) {
            write_expected(file, golden, "attn_weights", "attn_weights");
        }
    }
}

static const char *const parameter_names[] = {"in_proj_weight", "q_proj_weight",   "k_proj_weight",
                                              "v_proj_weight",  "in_proj_bias",    "bias_k",
                                              "bias_v",         "out_proj.weight", "out_proj.bias"};
enum { NUM_PARAMETERS = sizeof parameter_names / sizeof parameter_names[0] };

/* Those of a key padding mask are nothing that the library computes. */
static void write_mha_gradients(FILE *file, golden_case *golden) {
    static const renamed given[] = {{"grad_attn_output", "gradient.attn_output"},
                                    {"grad_attn_weights", "gradient.attn_weights"}};
    static const renamed wanted[] = {{"grad.query", "gradient.query"},
                                     {"grad.key", "gradient.key"},
                                     {"grad.value", "gradient.value"},
                                     {"grad.attn_mask", "gradient.attn_mask"}};
    write_inputs(file, golden, given, sizeof given / sizeof given[0]);
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; ++i) {
        write_found(file, golden, &wanted[i]);
    }
    for (size_t i = 0; i < NUM_PARAMETERS; ++i) {
        char from[64];
        char to[64];
        snprintf(from, sizeof from, "grad.%s", parameter_names[i]);
        snprintf(to, sizeof to, "gradient.parameter.%s", parameter_names[i]);
        write_found(file, golden, &(renamed){from, to});
    }
}

static void write_mha(FILE *file, golden_case *golden, const listed_case *listed) {
    static const char *const options[] = {"embed_dim",   "num_heads",     "kdim",       "vdim",
                                          "add_bias_kv", "add_zero_attn", "batch_first"};
    case_write_line(file, "call mha");
    for (size_t i = 0; i < sizeof options / sizeof options[0]; ++i) {
        write_option(file, golden, options[i], options[i]);
    }
    write_no_bias(file, golden);
    for (size_t i = 0; i < NUM_PARAMETERS; ++i) {
        char to[64];
        snprintf(to, sizeof to, "parameter.%s", parameter_names[i]);
        write_input(file, golden, &(renamed){parameter_names[i], to}, false);
    }
    write_mha_call(file, golden, listed);
    if (listed->refusal == NULL) {
        write_mha_gradients(file, golden);
    }
}

/* Every head works at the full width: the library's layer with head_dim = embed_dim. */
static void write_fullwidth(FILE *file, golden_case *golden, const listed_case *listed) {
    static const renamed options[] = {{"embed_dim", "embed_dim"},
                                      {"num_heads", "num_heads"},
                                      {"q_dim", "qdim"},
                                      {"k_dim", "kdim"},
                                      {"v_dim", "vdim"},
                                      {"embed_dim", "head_dim"},
                                      {"embed_dim", "value_head_dim"}};
    static const renamed per_head[] = {
        {"w_q", "parameter.q_proj_weight"}, {"w_k", "parameter.k_proj_weight"},
        {"w_v", "parameter.v_proj_weight"}, {"b_q", "parameter.q_proj_bias"},
        {"b_k", "parameter.k_proj_bias"},   {"b_v", "parameter.v_proj_bias"}};
    static const renamed whole[] = {{"w_o", "parameter.out_proj.weight"},
                                    {"b_o", "parameter.out_proj.bias"}};
    case_write_line(file, "call mha");
    case_write_line(file, "option batch_first 1");
    for (size_t i = 0; i < sizeof options / sizeof options[0]; ++i) {
        write_option(file, golden, options[i].from, options[i].to);
    }
    write_no_bias(file, golden);
    for (size_t i = 0; i < sizeof per_head / sizeof per_head[0]; ++i) {
        write_input(file, golden, &per_head[i], true);
    }
    write_inputs(file, golden, whole, sizeof whole / sizeof whole[0]);
    write_mha_call(file, golden, listed);
}

static void export_golden(const export_folder *folder, const char *golden_folder,
                          const listed_case *listed) {
    static const struct {
        const char *op;
        void (*write)(FILE *file, golden_case *golden, const listed_case *listed);
    } writers[] = {{"sdpa", write_sdpa}, {"mha", write_mha}, {"fullwidth", write_fullwidth}};
    char path[1024];
    char error[256];
    golden_case golden;
    snprintf(path, sizeof path, "%s/%s.safetensors", golden_folder, listed->name);
    if (!golden_case_open(&golden, path, listed->name, error, sizeof error)) {
        export_fail("cannot read", path, error);
    }
    FILE *file = export_open(folder, listed->name);
    bool is_written = false;
    for (size_t i = 0; i < sizeof writers / sizeof writers[0]; ++i) {
        if (strcmp(golden_option(&golden, "op"), writers[i].op) == 0) {
            writers[i].write(file, &golden, listed);
            is_written = true;
        }
    }
    if (!is_written) {
        export_fail("unknown op of", listed->name, golden_option(&golden, "op"));
    }
    if (listed->refusal != NULL) {
        case_write_line(file, "error %s", listed->refusal);
    }
    export_close(file, listed->name);
    golden_case_close(&golden);
}

/* Splits at the first blank. */
static void read_line(listed_case *listed) {
    listed->line[strcspn(listed->line, "\n")] = '\0';
    char *blank = strchr(listed->line, ' ');
    if (blank != NULL) {
        *blank = '\0';
    }
    listed->name = listed->line;
    listed->refusal = blank != NULL ? blank + 1 : NULL;
}

static void export_listed(const export_folder *folder, const char *golden_folder,
                          const char *list_path) {
    FILE *list = fopen(list_path, "r");
    if (list == NULL) {
        export_fail("cannot read", list_path, strerror(errno));
    }
    listed_case listed;
    while (fgets(listed.line, sizeof listed.line, list) != NULL) {
        read_line(&listed);
        export_golden(folder, golden_folder, &listed);
    }
    fclose(list);
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: export_cases <golden folder> <list> <output folder>\n");
        return 2;
    }
    char path[1024];
    snprintf(path, sizeof path, "%s/cases.txt", argv[3]);
    const export_folder folder = {.path = argv[3], .list = fopen(path, "w")};
    if (folder.list == NULL) {
        export_fail("cannot write", path, strerror(errno));
    }
    export_listed(&folder, argv[1], argv[2]);
    export_made_sdpa_cases(&folder);
    export_made_mha_cases(&folder);
    export_close(folder.list, path);
    return 0;
}
