/* SPDX-License-Identifier: BSD-3-Clause
 *
 * layer_sizes.c: the arithmetic between weight shapes and head sizes.
 */
#include "layer_sizes.h"

#include <stdio.h>

#include "tensor_load.h"

/* Where errors go. */
typedef struct size_report {
    char *error;
    size_t error_bytes;
} size_report;

static int check_matrices(const layer_names *names, const size_report *report) {
    char shape[200];
    for (int role = ROLE_IN_WEIGHT; role <= ROLE_OUT_WEIGHT; role++) {
        const safetensors_entry *entry = names->entries[role];
        if (entry != NULL && (entry->rank != 2 || entry->shape[0] < 1 || entry->shape[1] < 1)) {
            (void)snprintf(report->error, report->error_bytes,
                           "%.200s: expected a matrix, got shape %s", entry->name,
                           shape_text(entry->shape, entry->rank, shape, sizeof shape));
            return -1;
        }
    }
    return 0;
}

/* total = parts * *size, checked; *size 0 is derived. `parts` and `size` name the factors in the
 * error. */
static int divide(const safetensors_entry *entry, const char *what, int64_t total, int64_t parts,
                  const char *parts_name, int64_t *size, const char *size_name,
                  const size_report *report) {
    if (*size == 0 && total % parts == 0) {
        *size = total / parts;
    }
    if (*size != 0 && total % *size == 0 && total / *size == parts) {
        return 0;
    }
    int length = snprintf(report->error, report->error_bytes,
                          "%.200s: its %lld %s are not %s = %lld times %s", entry->name,
                          (long long)total, what, parts_name, (long long)parts, size_name);
    if (*size != 0 && length > 0 && (size_t)length < report->error_bytes) {
        (void)snprintf(report->error + length, report->error_bytes - (size_t)length, " = %lld",
                       (long long)*size);
    }
    return -1;
}

static int derive_separate(const layer_names *names, attn_mha_config *config,
                           const size_report *report) {
    const safetensors_entry *query = names->entries[ROLE_Q_WEIGHT];
    const safetensors_entry *key = names->entries[ROLE_K_WEIGHT];
    const safetensors_entry *value = names->entries[ROLE_V_WEIGHT];
    config->qdim = query->shape[1];
    config->kdim = key->shape[1];
    config->vdim = value->shape[1];
    if (divide(query, "rows", query->shape[0], config->num_heads, "num_heads", &config->head_dim,
               "head_dim", report) != 0 ||
        divide(key, "rows", key->shape[0], config->head_dim, "head_dim", &config->num_kv_heads,
               "num_kv_heads", report) != 0) {
        return -1;
    }
    return divide(value, "rows", value->shape[0], config->num_kv_heads, "num_kv_heads",
                  &config->value_head_dim, "value_head_dim", report);
}

/* numerator / denominator if that is a whole number of at least 1, else 0. */
static int64_t whole_quotient(int64_t numerator, int64_t denominator) {
    return numerator > 0 && numerator % denominator == 0 ? numerator / denominator : 0;
}

/* Fills head_dim and num_kv_heads where they are 0, if rows = H*D + Hk*(D + Dv) has a solution.
 * Products of the shapes' numbers, which are below 2^53 and whose tensors fit a file, do not
 * overflow here: H*D and Hk*D are checked against `rows` before they are used. */
static void solve_packed_rows(attn_mha_config *config, int64_t rows) {
    int64_t heads = config->num_heads;
    int64_t value_dim = config->value_head_dim;
    if (config->num_kv_heads == 0 && config->head_dim == 0) {
        config->head_dim = value_dim;
        config->num_kv_heads = whole_quotient(rows - heads * value_dim, 2 * value_dim);
        if (config->num_kv_heads == 0) {
            config->num_kv_heads = heads;
            config->head_dim = whole_quotient(rows - heads * value_dim, 2 * heads);
        }
    } else if (config->num_kv_heads == 0 && config->head_dim <= rows / heads) {
        config->num_kv_heads =
            whole_quotient(rows - heads * config->head_dim, config->head_dim + value_dim);
    } else if (config->head_dim == 0 && config->num_kv_heads <= rows / value_dim) {
        config->head_dim =
            whole_quotient(rows - config->num_kv_heads * value_dim, heads + config->num_kv_heads);
    }
}

static int packed_rows_agree(const attn_mha_config *config, int64_t rows) {
    int64_t query_rows = 0;
    int64_t key_value_rows = 0;
    int64_t total = 0;
    return config->head_dim > 0 && config->num_kv_heads > 0 &&
           !__builtin_mul_overflow(config->num_heads, config->head_dim, &query_rows) &&
           !__builtin_add_overflow(config->head_dim, config->value_head_dim, &key_value_rows) &&
           !__builtin_mul_overflow(key_value_rows, config->num_kv_heads, &key_value_rows) &&
           !__builtin_add_overflow(query_rows, key_value_rows, &total) && total == rows;
}

static int derive_packed(const layer_names *names, attn_mha_config *config,
                         const size_report *report) {
    const safetensors_entry *packed = names->entries[ROLE_IN_WEIGHT];
    int64_t rows = packed->shape[0];
    if (packed->shape[1] != config->embed_dim) {
        (void)snprintf(report->error, report->error_bytes,
                       "%.200s: expected embed_dim = %lld columns (the rows of %.200s), got %lld",
                       packed->name, (long long)config->embed_dim,
                       names->entries[ROLE_OUT_WEIGHT]->name, (long long)packed->shape[1]);
        return -1;
    }
    config->qdim = config->kdim = config->vdim = config->embed_dim;
    solve_packed_rows(config, rows);
    if (!packed_rows_agree(config, rows)) {
        (void)snprintf(report->error, report->error_bytes,
                       "%.200s: expected num_heads * head_dim + num_kv_heads * (head_dim + "
                       "value_head_dim) rows with num_heads = %lld and "
                       "value_head_dim = %lld, got %lld",
                       packed->name, (long long)config->num_heads,
                       (long long)config->value_head_dim, (long long)rows);
        return -1;
    }
    return 0;
}

int layer_sizes_derive(const layer_names *names, attn_mha_config *config, char *error,
                       size_t error_bytes) {
    const size_report report = {error, error_bytes};
    const safetensors_entry *out = names->entries[ROLE_OUT_WEIGHT];
    if (check_matrices(names, &report) != 0) {
        return -1;
    }
    config->embed_dim = out->shape[0];
    if (divide(out, "columns", out->shape[1], config->num_heads, "num_heads",
               &config->value_head_dim, "value_head_dim", &report) != 0) {
        return -1;
    }
    config->no_bias = 1;
    for (int role = ROLE_IN_BIAS; role <= ROLE_OUT_BIAS; role++) {
        config->no_bias = names->entries[role] != NULL ? 0 : config->no_bias;
    }
    config->add_bias_kv =
        names->entries[ROLE_BIAS_K] != NULL || names->entries[ROLE_BIAS_V] != NULL;
    return names->entries[ROLE_IN_WEIGHT] != NULL ? derive_packed(names, config, &report)
                                                  : derive_separate(names, config, &report);
}
