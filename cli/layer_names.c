/* SPDX-License-Identifier: BSD-3-Clause
 *
 * layer_names.c: the table of namings and the search in it.
 */
#include "layer_names.h"

#include <stdio.h>
#include <string.h>

/* To teach attn another model family, add a row. The first row that fits a file is taken. */
static const layer_naming namings[] = {
    {"torch.nn.MultiheadAttention, packed",
     {[ROLE_IN_WEIGHT] = "in_proj_weight",
      [ROLE_OUT_WEIGHT] = "out_proj.weight",
      [ROLE_IN_BIAS] = "in_proj_bias",
      [ROLE_OUT_BIAS] = "out_proj.bias",
      [ROLE_BIAS_K] = "bias_k",
      [ROLE_BIAS_V] = "bias_v"},
     NULL},
    {"torch.nn.MultiheadAttention, separate projections",
     {[ROLE_Q_WEIGHT] = "q_proj_weight",
      [ROLE_K_WEIGHT] = "k_proj_weight",
      [ROLE_V_WEIGHT] = "v_proj_weight",
      [ROLE_OUT_WEIGHT] = "out_proj.weight",
      [ROLE_IN_BIAS] = "in_proj_bias",
      [ROLE_OUT_BIAS] = "out_proj.bias",
      [ROLE_BIAS_K] = "bias_k",
      [ROLE_BIAS_V] = "bias_v"},
     NULL},
    {"BERT style",
     {[ROLE_Q_WEIGHT] = "self.query.weight",
      [ROLE_K_WEIGHT] = "self.key.weight",
      [ROLE_V_WEIGHT] = "self.value.weight",
      [ROLE_OUT_WEIGHT] = "output.dense.weight",
      [ROLE_Q_BIAS] = "self.query.bias",
      [ROLE_K_BIAS] = "self.key.bias",
      [ROLE_V_BIAS] = "self.value.bias",
      [ROLE_OUT_BIAS] = "output.dense.bias"},
     "output.LayerNorm."},
    {"ViT style",
     {[ROLE_Q_WEIGHT] = "attention.query.weight",
      [ROLE_K_WEIGHT] = "attention.key.weight",
      [ROLE_V_WEIGHT] = "attention.value.weight",
      [ROLE_OUT_WEIGHT] = "output.dense.weight",
      [ROLE_Q_BIAS] = "attention.query.bias",
      [ROLE_K_BIAS] = "attention.key.bias",
      [ROLE_V_BIAS] = "attention.value.bias",
      [ROLE_OUT_BIAS] = "output.dense.bias"},
     NULL},
    {"BART style",
     {[ROLE_Q_WEIGHT] = "q_proj.weight",
      [ROLE_K_WEIGHT] = "k_proj.weight",
      [ROLE_V_WEIGHT] = "v_proj.weight",
      [ROLE_OUT_WEIGHT] = "out_proj.weight",
      [ROLE_Q_BIAS] = "q_proj.bias",
      [ROLE_K_BIAS] = "k_proj.bias",
      [ROLE_V_BIAS] = "v_proj.bias",
      [ROLE_OUT_BIAS] = "out_proj.bias"},
     NULL},
    {"Llama style",
     {[ROLE_Q_WEIGHT] = "q_proj.weight",
      [ROLE_K_WEIGHT] = "k_proj.weight",
      [ROLE_V_WEIGHT] = "v_proj.weight",
      [ROLE_OUT_WEIGHT] = "o_proj.weight",
      [ROLE_Q_BIAS] = "q_proj.bias",
      [ROLE_K_BIAS] = "k_proj.bias",
      [ROLE_V_BIAS] = "v_proj.bias",
      [ROLE_OUT_BIAS] = "o_proj.bias"},
     NULL},
    {"DistilBERT style",
     {[ROLE_Q_WEIGHT] = "q_lin.weight",
      [ROLE_K_WEIGHT] = "k_lin.weight",
      [ROLE_V_WEIGHT] = "v_lin.weight",
      [ROLE_OUT_WEIGHT] = "out_lin.weight",
      [ROLE_Q_BIAS] = "q_lin.bias",
      [ROLE_K_BIAS] = "k_lin.bias",
      [ROLE_V_BIAS] = "v_lin.bias",
      [ROLE_OUT_BIAS] = "out_lin.bias"},
     NULL},
    {"timm style, packed",
     {[ROLE_IN_WEIGHT] = "qkv.weight",
      [ROLE_OUT_WEIGHT] = "proj.weight",
      [ROLE_IN_BIAS] = "qkv.bias",
      [ROLE_OUT_BIAS] = "proj.bias"},
     NULL},
    {"Phi-3 style, packed",
     {[ROLE_IN_WEIGHT] = "qkv_proj.weight",
      [ROLE_OUT_WEIGHT] = "o_proj.weight",
      [ROLE_IN_BIAS] = "qkv_proj.bias",
      [ROLE_OUT_BIAS] = "o_proj.bias"},
     NULL},
};

enum { NAMING_COUNT = sizeof namings / sizeof namings[0], PREFIX_BYTES = 400, LISTED_PREFIXES = 4 };

const char *layer_role_parameter(int role) {
    static const char *const parameters[LAYER_ROLE_COUNT] = {
        "in_proj_weight",  "q_proj_weight", "k_proj_weight", "v_proj_weight",
        "out_proj.weight", "in_proj_bias",  "q_proj_bias",   "k_proj_bias",
        "v_proj_bias",     "out_proj.bias", "bias_k",        "bias_v"};
    return parameters[role];
}

static int is_required(const layer_naming *naming, int role) {
    return role <= ROLE_OUT_WEIGHT && naming->names[role] != NULL;
}

/* The tensor named prefix[0, prefix_length) + name. */
static const safetensors_entry *find_prefixed(const safetensors_file *file, const char *prefix,
                                              size_t prefix_length, const char *name) {
    char full[PREFIX_BYTES + 64];
    if (name == NULL || prefix_length > PREFIX_BYTES) {
        return NULL;
    }
    (void)snprintf(full, sizeof full, "%.*s%s", (int)prefix_length, prefix, name);
    return safetensors_find(file, full);
}

/* Fills *found by one naming. Returns how many required weights the file lacks; *missing is the
 * first one's role. */
static int match_naming(const safetensors_file *file, const char *prefix, size_t prefix_length,
                        const layer_naming *naming, layer_names *found, int *missing) {
    int missing_count = 0;
    found->naming = naming;
    for (int role = LAYER_ROLE_COUNT - 1; role >= 0; role--) {
        found->entries[role] = find_prefixed(file, prefix, prefix_length, naming->names[role]);
        if (found->entries[role] == NULL && is_required(naming, role)) {
            missing_count++;
            *missing = role;
        }
    }
    return missing_count;
}

/* The first naming all of whose weights stand under the prefix; 0 if there is one. */
static int match_any(const safetensors_file *file, const char *prefix, size_t prefix_length,
                     layer_names *found) {
    int missing = 0;
    for (size_t i = 0; i < NAMING_COUNT; i++) {
        if (match_naming(file, prefix, prefix_length, &namings[i], found, &missing) == 0) {
            return 0;
        }
    }
    return -1;
}

/* The role a naming is looked for by: its first required weight. */
static int first_role(const layer_naming *naming) {
    return naming->names[ROLE_IN_WEIGHT] != NULL ? ROLE_IN_WEIGHT : ROLE_Q_WEIGHT;
}

/* If the name is a prefix + the naming's first weight, and the rest of the layer is there too: the
 * prefix's length, else -1. */
static int layer_prefix_length(const safetensors_file *file, const char *name,
                               const layer_naming *naming) {
    layer_names found;
    int missing = 0;
    const char *suffix = naming->names[first_role(naming)];
    size_t length = strlen(name);
    if (length < strlen(suffix) || strcmp(name + length - strlen(suffix), suffix) != 0) {
        return -1;
    }
    size_t prefix_length = length - strlen(suffix);
    int ends_a_word = prefix_length == 0 || name[prefix_length - 1] == '.';
    return ends_a_word && match_naming(file, name, prefix_length, naming, &found, &missing) == 0
               ? (int)prefix_length
               : -1;
}

/* Lists where layers are, "'a.', 'b.' and 3 more". Returns how many. */
static int list_layers(const safetensors_file *file, char *list, size_t list_bytes) {
    int count = 0;
    size_t used = 0;
    for (int64_t index = 0; index < safetensors_count(file); index++) {
        const char *name = safetensors_at(file, index)->name;
        int length = -1;
        for (size_t i = 0; i < NAMING_COUNT && length < 0; i++) {
            length = layer_prefix_length(file, name, &namings[i]);
        }
        if (length >= 0 && count++ < LISTED_PREFIXES && used < list_bytes) {
            used += (size_t)snprintf(list + used, list_bytes - used, "%s'%.*s'",
                                     count == 1 ? "" : ", ", length, name);
        }
    }
    if (count > LISTED_PREFIXES && used < list_bytes) {
        (void)snprintf(list + used, list_bytes - used, " and %d more", count - LISTED_PREFIXES);
    }
    return count;
}

/* Writes what the best incomplete naming lacks. 0 if nothing under the prefix looked like a layer.
 */
static int describe_incomplete(const safetensors_file *file, const char *prefix, char *error,
                               size_t error_bytes) {
    int fewest = 4;
    for (size_t i = 0; i < NAMING_COUNT; i++) {
        layer_names found;
        int missing = 0;
        int missing_count =
            match_naming(file, prefix, strlen(prefix), &namings[i], &found, &missing);
        int has_first = found.entries[first_role(&namings[i])] != NULL;
        if (has_first && missing_count < fewest) {
            fewest = missing_count;
            (void)snprintf(error, error_bytes, "%s%s: missing, though %s%s is there (%s)", prefix,
                           namings[i].names[missing], prefix,
                           namings[i].names[first_role(&namings[i])], namings[i].title);
        }
    }
    return fewest < 4;
}

int layer_names_recognise(const safetensors_file *file, const char *prefix, layer_names *found,
                          char *error, size_t error_bytes) {
    char dotted[PREFIX_BYTES];
    char list[600] = "";
    (void)snprintf(dotted, sizeof dotted, "%s.", prefix);
    if (match_any(file, prefix, strlen(prefix), found) == 0 ||
        match_any(file, dotted, strlen(dotted), found) == 0) {
        return 0;
    }
    if (describe_incomplete(file, prefix, error, error_bytes) ||
        describe_incomplete(file, dotted, error, error_bytes)) {
        return -1;
    }
    if (list_layers(file, list, sizeof list) == 0) {
        (void)snprintf(
            error, error_bytes,
            "no attention layer under prefix '%s' or any other: no known set of weight names",
            prefix);
    } else {
        (void)snprintf(error, error_bytes,
                       "no attention layer under prefix '%s'; layers found under %s", prefix, list);
    }
    return -1;
}

size_t layer_names_prefix_bytes(const layer_names *found) {
    return strlen(found->entries[ROLE_OUT_WEIGHT]->name) -
           strlen(found->naming->names[ROLE_OUT_WEIGHT]);
}

static int begins_with(const char *text, const char *begin) {
    return strncmp(text, begin, strlen(begin)) == 0;
}

/* Inputs and results of a layer in one file with it, and flags: truths with too few axes for a mask
 * of queries and keys. Under a prefix, in a model, they would be buffers that it computes with. */
static int is_input_or_result(const char *name, const safetensors_entry *entry) {
    static const char *const names[] = {"query",           "key",          "value",
                                        "hidden_states",   "attn_mask",    "key_padding_mask",
                                        "attn_output",     "attn_weights", "attn_output.f64",
                                        "attn_weights.f64"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i], name) == 0) {
            return 1;
        }
    }
    return strcmp(entry->dtype, "BOOL") == 0 && (entry->rank == 0 || entry->rank == 1);
}

int layer_names_leave_over(const layer_names *found, const safetensors_entry *entry) {
    const char *next_module = found->naming->next_module;
    size_t prefix_bytes = layer_names_prefix_bytes(found);
    if (strncmp(entry->name, found->entries[ROLE_OUT_WEIGHT]->name, prefix_bytes) != 0) {
        return 0;
    }
    for (int role = 0; role < LAYER_ROLE_COUNT; role++) {
        if (found->entries[role] == entry) {
            return 0;
        }
    }
    const char *name = entry->name + prefix_bytes;
    return !(next_module != NULL && begins_with(name, next_module)) &&
           !(prefix_bytes == 0 && is_input_or_result(name, entry));
}
