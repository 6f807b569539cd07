/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tiny_layer.c: writing the tiny layer in every naming and element type, and comparing what attn
 * makes of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "element_types.h"
#include "safetensors_read.h"
#include "scratch_files.h"
#include "tiny_layer.h"

enum { MAX_TENSORS = 8, MAX_EXTRAS = 8 };

typedef struct tiny_parameter {
    const char *name;
    int32_t rank;
    int64_t rows;
    double values[3];
} tiny_parameter;

static const tiny_parameter namings[TINY_NAMINGS][MAX_TENSORS] = {
    [TINY_TORCH_PACKED] = {{"in_proj_weight", 2, 3, {1, 1, 4}},
                           {"in_proj_bias", 1, 3, {1, 0, 2}},
                           {"out_proj.weight", 2, 1, {0.5}},
                           {"out_proj.bias", 1, 1, {1}}},
    [TINY_TORCH_SEPARATE] = {{"q_proj_weight", 2, 1, {1}},
                             {"k_proj_weight", 2, 1, {1}},
                             {"v_proj_weight", 2, 1, {4}},
                             {"in_proj_bias", 1, 3, {1, 0, 2}},
                             {"out_proj.weight", 2, 1, {0.5}},
                             {"out_proj.bias", 1, 1, {1}}},
    [TINY_BERT] = {{"self.query.weight", 2, 1, {1}},
                   {"self.query.bias", 1, 1, {1}},
                   {"self.key.weight", 2, 1, {1}},
                   {"self.key.bias", 1, 1, {0}},
                   {"self.value.weight", 2, 1, {4}},
                   {"self.value.bias", 1, 1, {2}},
                   {"output.dense.weight", 2, 1, {0.5}},
                   {"output.dense.bias", 1, 1, {1}}},
    [TINY_BART] = {{"k_proj.weight",
                    2,
                    1,
                    {1}}, /* no k_proj.bias: it is zero, and some models leave it out */
                   {"v_proj.weight", 2, 1, {4}},
                   {"v_proj.bias", 1, 1, {2}},
                   {"q_proj.weight", 2, 1, {1}},
                   {"q_proj.bias", 1, 1, {1}},
                   {"out_proj.weight", 2, 1, {0.5}},
                   {"out_proj.bias", 1, 1, {1}}},
    [TINY_LLAMA] = {{"q_proj.weight", 2, 1, {1}},
                    {"q_proj.bias", 1, 1, {1}},
                    {"k_proj.weight", 2, 1, {1}},
                    {"v_proj.weight", 2, 1, {4}},
                    {"v_proj.bias", 1, 1, {2}},
                    {"o_proj.weight", 2, 1, {0.5}},
                    {"o_proj.bias", 1, 1, {1}}},
};

/* The values used above in the two types of 16 bits. */
static uint16_t half_of(double value, int is_bfloat) {
    static const struct {
        double value;
        uint16_t float16, bfloat16;
    } known[] = {{0, 0, 0},
                 {0.5, 0x3800, 0x3f00},
                 {1, 0x3c00, 0x3f80},
                 {2, 0x4000, 0x4000},
                 {4, 0x4400, 0x4080}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (known[i].value == value) {
            return is_bfloat ? known[i].bfloat16 : known[i].float16;
        }
    }
    fail_msg("no 16-bit form of %g is known", value);
    return 0;
}

/* Stores a value at `bytes` and returns its size. */
static size_t store(unsigned char *bytes, double value, const char *dtype) {
    float single = (float)value;
    if (strcmp(dtype, "F64") == 0) {
        memcpy(bytes, &value, sizeof value);
        return sizeof value;
    }
    if (strcmp(dtype, "F32") == 0) {
        memcpy(bytes, &single, sizeof single);
        return sizeof single;
    }
    uint16_t half = half_of(value, strcmp(dtype, "BF16") == 0);
    memcpy(bytes, &half, sizeof half);
    return sizeof half;
}

static void save(const char *path, const safetensors_entry *tensors, int64_t count,
                 const safetensors_text *texts, int64_t text_count) {
    char error[500] = "";
    if (safetensors_save(path, tensors, count, texts, text_count, error, sizeof error) != 0) {
        fail_msg("%s", error);
    }
}

/* Appends tensors of one float32 each, with their whole names; NULL or NULL at the end: no more. */
static int64_t add_extras(safetensors_entry *tensors, int64_t count, const char *const *names) {
    static const float value[1] = {3};
    for (int i = 0; names != NULL && names[i] != NULL; i++) {
        assert_true(i < MAX_EXTRAS);
        tensors[count++] = (safetensors_entry){.name = names[i],
                                               .dtype = "F32",
                                               .rank = 1,
                                               .shape = {1},
                                               .data = value,
                                               .data_bytes = sizeof value};
    }
    return count;
}

void tiny_layer_write(const char *path, const char *prefix, int naming, const char *dtype,
                      const safetensors_text *texts, int64_t text_count) {
    tiny_layer_write_beside(path, prefix, naming, dtype, NULL, texts, text_count);
}

void tiny_layer_write_beside(const char *path, const char *prefix, int naming, const char *dtype,
                             const char *const *extras, const safetensors_text *texts,
                             int64_t text_count) {
    safetensors_entry tensors[MAX_TENSORS + MAX_EXTRAS];
    char names[MAX_TENSORS][200];
    unsigned char data[MAX_TENSORS][24];
    int64_t count = 0;
    for (; count < MAX_TENSORS && namings[naming][count].name != NULL; count++) {
        const tiny_parameter *parameter = &namings[naming][count];
        (void)snprintf(names[count], sizeof names[count], "%s%s", prefix, parameter->name);
        tensors[count] = (safetensors_entry){.name = names[count],
                                             .dtype = dtype,
                                             .rank = parameter->rank,
                                             .shape = {parameter->rows, 1},
                                             .data = data[count]};
        for (int64_t row = 0; row < parameter->rows; row++) {
            tensors[count].data_bytes +=
                store(data[count] + tensors[count].data_bytes, parameter->values[row], dtype);
        }
    }
    count = add_extras(tensors, count, extras);
    save(path, tensors, count, texts, text_count);
}

static size_t count_of(int32_t rank, const int64_t *shape) {
    size_t count = 1;
    for (int32_t axis = 0; axis < rank; axis++) {
        count *= (size_t)shape[axis];
    }
    return count;
}

void tiny_tensor_write(const char *path, const char *name, int32_t rank, const int64_t *shape,
                       const float *values, const safetensors_text *texts, int64_t text_count) {
    safetensors_entry tensor = {.name = name,
                                .dtype = "F32",
                                .rank = rank,
                                .data = values,
                                .data_bytes = count_of(rank, shape) * sizeof values[0]};
    memcpy(tensor.shape, shape, (size_t)rank * sizeof shape[0]);
    save(path, &tensor, 1, texts, text_count);
}

void tiny_mask_write(const char *path, const char *name, int32_t rank, const int64_t *shape,
                     const unsigned char *values) {
    safetensors_entry tensor = {.name = name,
                                .dtype = "BOOL",
                                .rank = rank,
                                .data = values,
                                .data_bytes = count_of(rank, shape)};
    memcpy(tensor.shape, shape, (size_t)rank * sizeof shape[0]);
    save(path, &tensor, 1, NULL, 0);
}

void assert_tensor(const char *path, const char *name, int64_t count, const double *expected) {
    char error[500] = "";
    safetensors_file *file = NULL;
    if (safetensors_open(path, &file, error, sizeof error) != 0) {
        fail_msg("%s", error);
    }
    const safetensors_entry *entry = safetensors_find(file, name);
    assert_non_null(entry);
    const element_type *type = element_type_in_file(entry->dtype);
    assert_non_null(type);
    assert_int_equal(entry->data_bytes, count * (int64_t)type->bytes);
    for (int64_t i = 0; i < count; i++) {
        double actual = type->read((const char *)entry->data + (size_t)i * type->bytes);
        double rounding = fabs(expected[i]) * ldexp(1, -type->precision);
        if (!(fabs(actual - expected[i]) <= 1e-6 + rounding)) {
            fail_msg("%s element %d: expected %.9g, got %.9g", name, (int)i, expected[i], actual);
        }
    }
    safetensors_close(file);
}

static const safetensors_text one_head = {"num_heads", "1"};

int tiny_layer_setup(void **state) {
    char path[SCRATCH_PATH_BYTES];
    const safetensors_text words = {"tokens.0", "[\"river\",\"bank\"]"};
    if (scratch_setup(state) != 0) {
        return -1;
    }
    tiny_layer_write(scratch_path(state, "layer.safetensors", path), "", TINY_TORCH_PACKED, "F32",
                     &one_head, 1);
    tiny_tensor_write(scratch_path(state, "x.safetensors", path), "x", 2, (const int64_t[]){2, 1},
                      (const float[]){0, 1}, &words, 1);
    return 0;
}
