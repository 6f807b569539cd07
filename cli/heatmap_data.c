/* SPDX-License-Identifier: BSD-3-Clause
 *
 * heatmap_data.c: from a file's tensor and metadata to labelled rows and columns.
 */
#include "heatmap_data.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "element_types.h"
#include "program_exit.h"
#include "token_lists.h"

static const char *const axes_names[] = {NULL, "NHLT", "NLT", "HLT", "LT"};

/* What is known before labels are made. */
typedef struct weights_source {
    const safetensors_file *file;
    const heatmap_request *request;
    const safetensors_entry *entry;
    const safetensors_entry *padding; /* bool (N, S) or (S), true = padding, or NULL */
    token_table row_words;
    token_table column_words;
    const char *axes;
    int64_t row_count;    /* L */
    int64_t column_count; /* T */
    int64_t key_count;    /* S */
    int is_self_attention;
} weights_source;

static int metadata_is(const safetensors_file *file, const char *key, const char *value) {
    const char *text = safetensors_metadata(file, key);
    return text != NULL && strcmp(text, value) == 0;
}

/* ---- which axes ---- */

/* A third axis is heads or sequences: the file's metadata may say it, else it has words or padding
 * for so many sequences, else it is heads. */
static const char *guess_axes(const weights_source *source) {
    const char *text = safetensors_metadata(source->file, "attn_weights_axes");
    for (int axes = HEATMAP_AXES_NHLT; axes <= HEATMAP_AXES_LT && text != NULL; axes++) {
        if (strcmp(text, axes_names[axes]) == 0 && (int32_t)strlen(text) == source->entry->rank) {
            return axes_names[axes];
        }
    }
    if (source->entry->rank != 3) {
        return source->entry->rank == 4 ? axes_names[HEATMAP_AXES_NHLT]
                                        : axes_names[HEATMAP_AXES_LT];
    }
    char length[24];
    (void)snprintf(length, sizeof length, "%lld", (long long)source->entry->shape[0]);
    int has_sequences = source->row_words.count == source->entry->shape[0] ||
                        (source->padding != NULL && source->padding->rank == 2 &&
                         source->padding->shape[0] == source->entry->shape[0]);
    return has_sequences && !metadata_is(source->file, "num_heads", length)
               ? axes_names[HEATMAP_AXES_NLT]
               : axes_names[HEATMAP_AXES_HLT];
}

/* A tensor without elements may claim any lengths, and no memory must be taken for them. */
static int check_not_empty(const weights_source *source) {
    char shape[200];
    const safetensors_entry *entry = source->entry;
    for (int32_t axis = 0; axis < entry->rank; axis++) {
        if (entry->shape[axis] == 0) {
            return program_fail(EXIT_BAD_FILE, "%s: %s: nothing to draw: its shape is %s",
                                source->request->path, entry->name,
                                shape_text(entry->shape, entry->rank, shape, sizeof shape));
        }
    }
    return EXIT_DONE;
}

static int check_axes(weights_source *source) {
    int axes = source->request->axes;
    const safetensors_entry *entry = source->entry;
    if (entry->rank < 2 || entry->rank > 4) {
        return program_fail(EXIT_BAD_FILE, "%s: %s: expected attention weights with 2 to 4 axes",
                            source->request->path, entry->name);
    }
    source->axes = axes == HEATMAP_AXES_AUTO ? guess_axes(source) : axes_names[axes];
    if ((int32_t)strlen(source->axes) != entry->rank) {
        return program_fail(EXIT_USAGE, "--axes: %s has %d axes, not %s", entry->name,
                            (int)entry->rank, source->axes);
    }
    int64_t num_sequences = source->axes[0] == 'N' ? entry->shape[0] : 1;
    if (source->request->sequence >= num_sequences) {
        return program_fail(EXIT_USAGE,
                            "--sequence: %s has %lld sequence%s, counted from 0; got %lld",
                            entry->name, (long long)num_sequences, num_sequences == 1 ? "" : "s",
                            (long long)source->request->sequence);
    }
    source->row_count = entry->shape[entry->rank - 2];
    source->column_count = entry->shape[entry->rank - 1];
    return EXIT_DONE;
}

/* ---- which columns are keys ---- */

static int find_keys(weights_source *source) {
    int64_t extra = metadata_is(source->file, "add_bias_kv", "1") +
                    metadata_is(source->file, "add_zero_attn", "1");
    int is_said = safetensors_metadata(source->file, "add_bias_kv") != NULL ||
                  safetensors_metadata(source->file, "add_zero_attn") != NULL;
    int64_t surplus = source->column_count - source->row_count;
    if (!is_said && source->padding != NULL) {
        extra = source->column_count - source->padding->shape[source->padding->rank - 1];
    } else if (!is_said && surplus > 0 && surplus <= 2 && source->row_words.count > 0) {
        extra = surplus;
    }
    source->key_count = source->column_count - extra;
    if (extra < 0 || source->key_count < 0) {
        return program_fail(EXIT_BAD_FILE,
                            "%s: %s: its %lld columns do not fit the padding mask or the extra "
                            "columns of the metadata",
                            source->request->path, source->entry->name,
                            (long long)source->column_count);
    }
    source->is_self_attention = source->row_count == source->key_count &&
                                source->column_words.count == 0 &&
                                !metadata_is(source->file, "self_attention", "0");
    return EXIT_DONE;
}

/* A padding mask counts only if it is bool and has a value for every key. */
static const safetensors_entry *usable_padding(const safetensors_file *file) {
    const safetensors_entry *mask = safetensors_find(file, "key_padding_mask");
    int is_usable =
        mask != NULL && strcmp(mask->dtype, "BOOL") == 0 && (mask->rank == 1 || mask->rank == 2);
    return is_usable ? mask : NULL;
}

static int is_padding(const weights_source *source, int64_t key) {
    const safetensors_entry *mask = source->padding;
    if (mask == NULL || mask->shape[mask->rank - 1] != source->key_count) {
        return 0;
    }
    int64_t row = mask->rank == 2 ? source->request->sequence : 0;
    int exists = mask->rank == 1 || source->request->sequence < mask->shape[0];
    return exists && ((const uint8_t *)mask->data)[row * source->key_count + key] != 0;
}

/* ---- labels ---- */

/* A position is drawn if it is no padding and, where there is a list of words, has one that is
 * wanted. */
static int is_drawn(const weights_source *source, const token_table *words, int64_t position,
                    int may_be_padding) {
    const char *word = token_word(words, source->request->sequence, position);
    if (may_be_padding && is_padding(source, position)) {
        return 0;
    }
    if (word == NULL) {
        return source->request->sequence >= words->count;
    }
    return !(source->request->words_only && token_is_special(word));
}

static char *make_label(const token_table *words, int64_t sequence, int64_t position) {
    char number[24];
    const char *word = token_word(words, sequence, position);
    (void)snprintf(number, sizeof number, "%lld", (long long)position);
    return strdup(word != NULL ? word : number);
}

/* Appends a position with its label, which the axis takes over. */
static int append(heatmap_axis *axis, int64_t position, char *label) {
    if (label == NULL) {
        return -1;
    }
    axis->positions[axis->count] = position;
    axis->labels[axis->count++] = label;
    return 0;
}

static int label_extra_columns(const weights_source *source, heatmap_axis *axis) {
    int has_bias = metadata_is(source->file, "add_bias_kv", "1");
    int has_zero = metadata_is(source->file, "add_zero_attn", "1");
    int result = 0;
    for (int64_t position = source->key_count; position < source->column_count && result == 0;
         position++) {
        const char *label = !has_bias && !has_zero                      ? "(extra)"
                            : has_bias && position == source->key_count ? "(bias)"
                                                                        : "(zero)";
        result = append(axis, position, strdup(label));
        axis->num_extra++;
    }
    return result;
}

static int make_axis(const weights_source *source, const token_table *words, int64_t count,
                     int may_be_padding, heatmap_axis *axis) {
    axis->count = 0;
    axis->positions =
        calloc((size_t)source->column_count + (size_t)count + 1, sizeof *axis->positions);
    axis->labels = calloc((size_t)source->column_count + (size_t)count + 1, sizeof *axis->labels);
    int result = axis->positions == NULL || axis->labels == NULL ? -1 : 0;
    for (int64_t position = 0; position < count && result == 0; position++) {
        if (is_drawn(source, words, position, may_be_padding)) {
            result = append(axis, position, make_label(words, source->request->sequence, position));
        }
    }
    return result;
}

static int make_sentence(const weights_source *source, heatmap_data *data) {
    size_t bytes = 1;
    for (int64_t i = 0; i < data->rows.count; i++) {
        bytes += strlen(data->rows.labels[i]) + 1;
    }
    data->sentence = calloc(bytes, 1);
    if (data->sentence == NULL || source->request->sequence >= source->row_words.count) {
        return data->sentence == NULL ? -1 : 0;
    }
    char *end = data->sentence;
    for (int64_t i = 0; i < data->rows.count; i++) {
        if (!token_is_special(data->rows.labels[i])) {
            end += sprintf(end, "%s%s", end == data->sentence ? "" : " ", data->rows.labels[i]);
        }
    }
    return 0;
}

static int make_labels(const weights_source *source, heatmap_data *data) {
    const token_table *column_words =
        source->column_words.count > 0 ? &source->column_words : &source->row_words;
    static const token_table no_words;
    if (source->column_words.count == 0 && !source->is_self_attention) {
        column_words = &no_words;
    }
    int failed = make_axis(source, &source->row_words, source->row_count, source->is_self_attention,
                           &data->rows) != 0 ||
                 make_axis(source, column_words, source->key_count, 1, &data->columns) != 0 ||
                 label_extra_columns(source, &data->columns) != 0 ||
                 make_sentence(source, data) != 0;
    if (failed) {
        return program_fail(EXIT_COMPUTATION, "%s: out of memory", source->request->path);
    }
    if (data->rows.count == 0 || data->columns.count == 0 || data->num_heads == 0) {
        return program_fail(EXIT_BAD_FILE,
                            "%s: %s: nothing to draw: %lld heads, %lld rows and %lld columns are "
                            "left without padding",
                            source->request->path, source->entry->name, (long long)data->num_heads,
                            (long long)data->rows.count, (long long)data->columns.count);
    }
    return EXIT_DONE;
}

/* ---- values ---- */

static int load_weights(const weights_source *source, heatmap_data *data) {
    char error[800];
    safetensors_entry part = *source->entry;
    data->is_average = strchr(source->axes, 'H') == NULL;
    data->num_heads = data->is_average ? 1 : part.shape[part.rank - 3];
    if (source->axes[0] == 'N' && part.shape[0] > 0) {
        part.data_bytes /= (size_t)part.shape[0];
        part.data = (const char *)part.data + (size_t)source->request->sequence * part.data_bytes;
    }
    part.rank = 3;
    part.shape[0] = data->num_heads;
    part.shape[1] = source->row_count;
    part.shape[2] = source->column_count;
    if (tensor_load_values(&part, ATTN_DTYPE_FLOAT32, &data->weights, error, sizeof error) != 0) {
        return program_fail(EXIT_BAD_FILE, "%s: %s", source->request->path, error);
    }
    return EXIT_DONE;
}

static double value_at(const heatmap_data *data, int64_t head, int64_t row, int64_t column) {
    const int64_t *shape = data->weights.view.shape;
    int64_t index =
        (head * shape[1] + data->rows.positions[row]) * shape[2] + data->columns.positions[column];
    return (double)((const float *)data->weights.memory)[index];
}

/* Weights w >= 0 that add up to 1 do so, as the file holds them, to within the sum of their
 * roundings, w * 2^-precision each. */
static void survey_row(const element_type *stored, heatmap_data *data, int64_t head, int64_t row) {
    double sum = 0;
    for (int64_t column = 0; column < data->columns.count; column++) {
        double value = value_at(data, head, row, column);
        data->has_nan |= isnan(value);
        data->smallest = value < data->smallest ? value : data->smallest;
        data->largest = value > data->largest ? value : data->largest;
        sum += value;
    }
    data->rows_add_up_to_one &= fabs(sum - 1) < 1e-3 + ldexp(1, -stored->precision);
}

static void survey_values(const element_type *stored, heatmap_data *data) {
    data->rows_add_up_to_one = 1;
    for (int64_t head = 0; head < data->num_heads; head++) {
        for (int64_t row = 0; row < data->rows.count; row++) {
            survey_row(stored, data, head, row);
        }
    }
}

double heatmap_cell_value(const heatmap_data *data, int64_t head, int64_t cell_row,
                          int64_t cell_column, int64_t block) {
    int64_t row_end =
        (cell_row + 1) * block < data->rows.count ? (cell_row + 1) * block : data->rows.count;
    int64_t column_end = (cell_column + 1) * block < data->columns.count ? (cell_column + 1) * block
                                                                         : data->columns.count;
    double farthest = 0;
    for (int64_t row = cell_row * block; row < row_end; row++) {
        for (int64_t column = cell_column * block; column < column_end; column++) {
            double value = value_at(data, head, row, column);
            if (isnan(value)) {
                return value;
            }
            farthest = fabs(value) > fabs(farthest) ? value : farthest;
        }
    }
    return farthest;
}

/* ---- all ---- */

static int read_source(weights_source *source) {
    char error[400];
    source->entry = safetensors_find(source->file, source->request->tensor);
    if (source->entry == NULL) {
        return program_fail(EXIT_BAD_FILE, "%s: has no tensor %s", source->request->path,
                            source->request->tensor);
    }
    if (token_table_read(source->file, "tokens", &source->row_words, error, sizeof error) != 0 ||
        token_table_read(source->file, "key_tokens", &source->column_words, error, sizeof error) !=
            0) {
        return program_fail(EXIT_BAD_FILE, "%s: %s", source->request->path, error);
    }
    source->padding = usable_padding(source->file);
    int exit_code = check_axes(source);
    exit_code = exit_code == EXIT_DONE ? check_not_empty(source) : exit_code;
    return exit_code == EXIT_DONE ? find_keys(source) : exit_code;
}

int heatmap_data_read(const safetensors_file *file, const heatmap_request *request,
                      heatmap_data *data) {
    weights_source source = {.file = file, .request = request};
    *data = (heatmap_data){.words_only = request->words_only};
    int exit_code = read_source(&source);
    if (exit_code == EXIT_DONE) {
        exit_code = load_weights(&source, data);
    }
    if (exit_code == EXIT_DONE) {
        exit_code = make_labels(&source, data);
    }
    if (exit_code == EXIT_DONE) {
        survey_values(element_type_in_file(source.entry->dtype), data);
    }
    token_table_free(&source.row_words);
    token_table_free(&source.column_words);
    return exit_code;
}

static void free_axis(heatmap_axis *axis) {
    for (int64_t i = 0; i < axis->count; i++) {
        free(axis->labels[i]);
    }
    free(axis->labels);
    free(axis->positions);
}

void heatmap_data_free(heatmap_data *data) {
    free_axis(&data->rows);
    free_axis(&data->columns);
    free(data->sentence);
    owned_tensor_free(&data->weights);
}
