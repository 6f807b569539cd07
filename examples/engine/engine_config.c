/* SPDX-License-Identifier: BSD-3-Clause
 *
 * engine_config.c: sizes of a model, from the config.json of its checkpoint.
 */
#include "engine_config.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_CONFIG_BYTES = 1 << 20 };

/* One line of what is wrong, with the file's name before it. */
typedef struct config_report {
    const char *path;
    char *error;
    size_t error_bytes;
} config_report;

static int refuse(const config_report *report, const char *name, const char *what) {
    (void)snprintf(report->error, report->error_bytes, "%s: %s: %s", report->path, name, what);
    return -1;
}

static cJSON *parse_file(const char *path) {
    char *text = calloc(1, MOST_CONFIG_BYTES);
    FILE *file = text == NULL ? NULL : fopen(path, "rb");
    cJSON *parsed = NULL;
    if (file != NULL && fread(text, 1, MOST_CONFIG_BYTES - 1, file) > 0) {
        parsed = cJSON_Parse(text);
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    free(text);
    return parsed;
}

/* ---- numbers ---- */

static int read_size(const config_report *report, const cJSON *config, const char *name,
                     int64_t *size) {
    enum { LARGEST = 1 << 24 };
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(config, name);
    const double number = cJSON_GetNumberValue(item);
    if (!(number >= 1 && number <= LARGEST && number == floor(number))) {
        return refuse(report, name, "expected a whole number from 1 to 2^24");
    }
    *size = (int64_t)number;
    return 0;
}

static int read_size_or(const config_report *report, const cJSON *config, const char *name,
                        int64_t otherwise, int64_t *size) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(config, name);
    *size = otherwise;
    return item == NULL || cJSON_IsNull(item) ? 0 : read_size(report, config, name, size);
}

static int read_positive(const config_report *report, const cJSON *config, const char *name,
                         double *number) {
    *number = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(config, name));
    return *number > 0 && isfinite(*number) ? 0 : refuse(report, name, "expected a number above 0");
}

/* ---- what is not computed here ---- */

static int expect_word(const config_report *report, const cJSON *object, const char *name,
                       const char *const *words) {
    const char *found = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
    for (; found != NULL && *words != NULL; ++words) {
        if (strcmp(found, *words) == 0) {
            return 0;
        }
    }
    return refuse(report, name, found == NULL ? "missing" : "not one that this program computes");
}

/* Where only some features are rotated. */
static int refuse_partial_rotation(const config_report *report, const cJSON *object) {
    static const char name[] = "partial_rotary_factor";
    const cJSON *factor = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsNumber(factor) && cJSON_GetNumberValue(factor) != 1
               ? refuse(report, name, "partial rotations are not computed by this program")
               : 0;
}

/* rope_theta stands beside the sizes, or, in newer files, in rope_parameters with the kind of
 * scaling, which older ones have in rope_scaling. */
static int read_rope(const config_report *report, const cJSON *config, double *base) {
    static const char *const unscaled[] = {"default", NULL};
    const cJSON *scaling = cJSON_GetObjectItemCaseSensitive(config, "rope_scaling");
    const cJSON *parameters = cJSON_GetObjectItemCaseSensitive(config, "rope_parameters");
    if (cJSON_IsObject(scaling)) {
        return refuse(report, "rope_scaling", "scaled positions are not computed by this program");
    }
    if (cJSON_IsObject(parameters)) {
        return expect_word(report, parameters, "rope_type", unscaled) ||
                       refuse_partial_rotation(report, parameters) ||
                       read_positive(report, parameters, "rope_theta", base)
                   ? -1
                   : 0;
    }
    return read_positive(report, config, "rope_theta", base);
}

/* A sliding window is one only where it is in use. */
static int refuse_windows(const config_report *report, const cJSON *config) {
    const cJSON *window = cJSON_GetObjectItemCaseSensitive(config, "sliding_window");
    const cJSON *in_use = cJSON_GetObjectItemCaseSensitive(config, "use_sliding_window");
    return cJSON_IsNumber(window) && !cJSON_IsFalse(in_use)
               ? refuse(report, "sliding_window", "windows are not computed by this program")
               : 0;
}

static int read_all(const config_report *report, const cJSON *config, engine_config *sizes) {
    static const char *const types[] = {"llama", "mistral", "qwen2", "qwen3", NULL};
    static const char *const activations[] = {"silu", NULL};
    const cJSON *ties = cJSON_GetObjectItemCaseSensitive(config, "tie_word_embeddings");
    sizes->ties_head = cJSON_IsTrue(ties);
    if (expect_word(report, config, "model_type", types) ||
        expect_word(report, config, "hidden_act", activations) || refuse_windows(report, config) ||
        refuse_partial_rotation(report, config) || read_rope(report, config, &sizes->rope_base) ||
        read_positive(report, config, "rms_norm_eps", &sizes->norm_epsilon) ||
        read_size(report, config, "num_hidden_layers", &sizes->num_layers) ||
        read_size(report, config, "num_attention_heads", &sizes->num_heads) ||
        read_size(report, config, "hidden_size", &sizes->hidden_size) ||
        read_size(report, config, "intermediate_size", &sizes->intermediate_size) ||
        read_size(report, config, "vocab_size", &sizes->vocabulary_size) ||
        read_size_or(report, config, "num_key_value_heads", sizes->num_heads,
                     &sizes->num_kv_heads) ||
        read_size_or(report, config, "head_dim", sizes->hidden_size / sizes->num_heads,
                     &sizes->head_dim)) {
        return -1;
    }
    if (sizes->num_heads % sizes->num_kv_heads != 0) {
        return refuse(report, "num_key_value_heads", "expected a divisor of num_attention_heads");
    }
    return sizes->head_dim % 2 != 0 ? refuse(report, "head_dim", "expected an even number") : 0;
}

int engine_config_read(const char *path, engine_config *config, char *error, size_t error_bytes) {
    const config_report report = {path, error, error_bytes};
    cJSON *parsed = parse_file(path);
    if (parsed == NULL) {
        (void)snprintf(error, error_bytes, "%s: no JSON file that can be read", path);
        return -1;
    }
    const int status = read_all(&report, parsed, config);
    cJSON_Delete(parsed);
    return status;
}
