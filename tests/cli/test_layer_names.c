/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_layer_names.c: layers are recognised by the names of their tensors, with and without a
 * prefix, and errors help to find them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "layer_names.h"
#include "scratch_files.h"

/* A file of empty tensors with these names, each with the prefix before it; NULL ends the list. */
static safetensors_file *make_file(void **state, const char *prefix, const char *const *names) {
    char path[SCRATCH_PATH_BYTES];
    char header[4000] = "{";
    char error[500] = "";
    safetensors_file *file = NULL;
    size_t used = 1;
    for (size_t i = 0; names[i] != NULL; i++) {
        used +=
            (size_t)snprintf(header + used, sizeof header - used,
                             "%s\"%s%s\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}",
                             i == 0 ? "" : ",", prefix, names[i]);
    }
    (void)snprintf(header + used, sizeof header - used, "}");
    scratch_write_safetensors(scratch_path(state, "layer.safetensors", path), header, 0);
    if (safetensors_open(path, &file, error, sizeof error) != 0) {
        fail_msg("%s", error);
    }
    return file;
}

typedef struct naming_case {
    const char *title;
    const char *names[12];
    int roles[12]; /* of the names */
} naming_case;

static const naming_case cases[] = {
    {"torch.nn.MultiheadAttention, packed",
     {"in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias", "bias_k", "bias_v"},
     {ROLE_IN_WEIGHT, ROLE_IN_BIAS, ROLE_OUT_WEIGHT, ROLE_OUT_BIAS, ROLE_BIAS_K, ROLE_BIAS_V}},
    {"torch.nn.MultiheadAttention, packed",
     {"in_proj_weight", "out_proj.weight"},
     {ROLE_IN_WEIGHT, ROLE_OUT_WEIGHT}},
    {"torch.nn.MultiheadAttention, separate projections",
     {"q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias", "out_proj.weight",
      "out_proj.bias"},
     {ROLE_Q_WEIGHT, ROLE_K_WEIGHT, ROLE_V_WEIGHT, ROLE_IN_BIAS, ROLE_OUT_WEIGHT, ROLE_OUT_BIAS}},
    {"BERT style",
     {"self.query.weight", "self.query.bias", "self.key.weight", "self.key.bias",
      "self.value.weight", "self.value.bias", "output.dense.weight", "output.dense.bias",
      "output.LayerNorm.weight"},
     {ROLE_Q_WEIGHT, ROLE_Q_BIAS, ROLE_K_WEIGHT, ROLE_K_BIAS, ROLE_V_WEIGHT, ROLE_V_BIAS,
      ROLE_OUT_WEIGHT, ROLE_OUT_BIAS, -1}},
    {"ViT style",
     {"attention.query.weight", "attention.key.weight", "attention.value.weight",
      "output.dense.weight"},
     {ROLE_Q_WEIGHT, ROLE_K_WEIGHT, ROLE_V_WEIGHT, ROLE_OUT_WEIGHT}},
    {"BART style",
     {"q_proj.weight", "q_proj.bias", "k_proj.weight", "v_proj.weight", "v_proj.bias",
      "out_proj.weight", "out_proj.bias"},
     {ROLE_Q_WEIGHT, ROLE_Q_BIAS, ROLE_K_WEIGHT, ROLE_V_WEIGHT, ROLE_V_BIAS, ROLE_OUT_WEIGHT,
      ROLE_OUT_BIAS}},
    {"Llama style",
     {"q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight", "rotary_emb.inv_freq"},
     {ROLE_Q_WEIGHT, ROLE_K_WEIGHT, ROLE_V_WEIGHT, ROLE_OUT_WEIGHT, -1}},
    {"DistilBERT style",
     {"q_lin.weight", "k_lin.weight", "v_lin.weight", "out_lin.weight", "out_lin.bias"},
     {ROLE_Q_WEIGHT, ROLE_K_WEIGHT, ROLE_V_WEIGHT, ROLE_OUT_WEIGHT, ROLE_OUT_BIAS}},
    {"timm style, packed",
     {"qkv.weight", "qkv.bias", "proj.weight", "proj.bias"},
     {ROLE_IN_WEIGHT, ROLE_IN_BIAS, ROLE_OUT_WEIGHT, ROLE_OUT_BIAS}},
    {"Phi-3 style, packed",
     {"qkv_proj.weight", "o_proj.weight"},
     {ROLE_IN_WEIGHT, ROLE_OUT_WEIGHT}},
};

/* Every name of the case is found in its role, and no other role is filled. */
static void assert_recognised(const safetensors_file *file, const char *file_prefix,
                              const char *prefix, const naming_case *c) {
    char error[800] = "";
    char name[200];
    layer_names found;
    int expected_count = 0;
    int found_count = 0;
    if (layer_names_recognise(file, prefix, &found, error, sizeof error) != 0) {
        fail_msg("%s, prefix '%s': %s", c->title, prefix, error);
    }
    assert_string_equal(found.naming->title, c->title);
    for (size_t i = 0; c->names[i] != NULL; i++) {
        (void)snprintf(name, sizeof name, "%s%s", file_prefix, c->names[i]);
        if (c->roles[i] >= 0) {
            expected_count++;
            assert_ptr_equal(found.entries[c->roles[i]], safetensors_find(file, name));
        }
    }
    for (int role = 0; role < LAYER_ROLE_COUNT; role++) {
        found_count += found.entries[role] != NULL;
    }
    assert_int_equal(found_count, expected_count);
}

static void layer_of_every_naming_is_recognised(void **state) {
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        safetensors_file *file = make_file(state, "", cases[i].names);
        assert_recognised(file, "", "", &cases[i]);
        safetensors_close(file);
    }
}

static void layer_under_a_prefix_is_recognised_with_and_without_the_last_dot(void **state) {
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        safetensors_file *file = make_file(state, "encoder.layer.0.attention.", cases[i].names);
        assert_recognised(file, "encoder.layer.0.attention.", "encoder.layer.0.attention.",
                          &cases[i]);
        assert_recognised(file, "encoder.layer.0.attention.", "encoder.layer.0.attention",
                          &cases[i]);
        safetensors_close(file);
    }
}

static void assert_error(const safetensors_file *file, const char *prefix, const char *expected) {
    char error[800] = "";
    layer_names found;
    assert_int_equal(layer_names_recognise(file, prefix, &found, error, sizeof error), -1);
    if (strstr(error, expected) == NULL) {
        fail_msg("expected an error with '%s', got '%s'", expected, error);
    }
}

static void layer_absent_error_lists_where_layers_are(void **state) {
    static const char *const names[] = {
        "a.self.query.weight", "a.self.key.weight", "a.self.value.weight", "a.output.dense.weight",
        "b.in_proj_weight",    "b.out_proj.weight", "c.q_proj.weight",     NULL};
    safetensors_file *file = make_file(state, "model.", names);
    assert_error(file, "",
                 "no attention layer under prefix ''; layers found under 'model.a.', 'model.b.'");
    assert_error(
        file, "wrong.",
        "no attention layer under prefix 'wrong.'; layers found under 'model.a.', 'model.b.'");
    safetensors_close(file);
}

static void layer_absent_error_counts_what_it_does_not_list(void **state) {
    static const char *const names[] = {"0.qkv.weight",
                                        "0.proj.weight",
                                        "1.qkv.weight",
                                        "1.proj.weight",
                                        "2.qkv.weight",
                                        "2.proj.weight",
                                        "3.qkv.weight",
                                        "3.proj.weight",
                                        "4.qkv.weight",
                                        "4.proj.weight",
                                        "5.qkv.weight",
                                        "5.proj.weight",
                                        NULL};
    safetensors_file *file = make_file(state, "", names);
    assert_error(file, "", "and 2 more");
    safetensors_close(file);
}

static void layer_incomplete_error_names_what_is_missing(void **state) {
    static const char *const names[] = {"self.query.weight", "self.key.weight",
                                        "output.dense.weight", NULL};
    safetensors_file *file = make_file(state, "p.", names);
    assert_error(file, "p.",
                 "p.self.value.weight: missing, though p.self.query.weight is there (BERT style)");
    assert_error(file, "p", "p.self.value.weight: missing");
    safetensors_close(file);
}

static void layer_in_a_file_without_attention_says_so(void **state) {
    static const char *const names[] = {"embeddings.weight", "xqkv.weight", "xproj.weight", NULL};
    safetensors_file *file = make_file(state, "", names);
    assert_error(file, "", "no attention layer under prefix '' or any other");
    safetensors_close(file);
}

static void layer_prefix_too_long_for_any_name_is_not_found(void **state) {
    static const char *const names[] = {"in_proj_weight", "out_proj.weight", NULL};
    char prefix[2000];
    memset(prefix, 'p', sizeof prefix - 1);
    prefix[sizeof prefix - 1] = '\0';
    safetensors_file *file = make_file(state, "", names);
    assert_error(file, prefix, "no attention layer under prefix 'ppp");
    safetensors_close(file);
}

int main(void) {
#define SCRATCH_TEST(test) cmocka_unit_test_setup_teardown(test, scratch_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        SCRATCH_TEST(layer_of_every_naming_is_recognised),
        SCRATCH_TEST(layer_under_a_prefix_is_recognised_with_and_without_the_last_dot),
        SCRATCH_TEST(layer_absent_error_lists_where_layers_are),
        SCRATCH_TEST(layer_absent_error_counts_what_it_does_not_list),
        SCRATCH_TEST(layer_incomplete_error_names_what_is_missing),
        SCRATCH_TEST(layer_in_a_file_without_attention_says_so),
        SCRATCH_TEST(layer_prefix_too_long_for_any_name_is_not_found),
    };
    return cmocka_run_group_tests_name("layer_names", tests, NULL, NULL);
}
