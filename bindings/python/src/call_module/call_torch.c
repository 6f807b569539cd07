/* SPDX-License-Identifier: BSD-3-Clause
 *
 * call_torch.c: PyTorch's tensors, by the C functions that DLPack has a library hand out
 * (https://dmlc.github.io/dlpack), so that the module is linked with nothing of PyTorch's.
 *
 * Which tensors are ordinary, and when, libattention/_torch_ordinary.py decides. Here only what is
 * ordinary beyond doubt is computed; the rest goes there.
 */
#include <stdint.h>

#include "call_state.h"

/* DLPack's description of a tensor, DLTensor. */
struct dlpack_tensor {
    void *data;
    int32_t device_type;
    int32_t device_id;
    int32_t ndim;
    uint8_t type_code;
    uint8_t type_bits;
    uint16_t type_lanes;
    int64_t *shape;
    int64_t *strides; /* in elements; NULL: contiguous */
    uint64_t byte_offset;
};

/* Multiplications, less than what several threads would compute: nobody has to be asked how many of
 * them PyTorch has. */
enum { SMALL_WORK = 1 << 18 };

enum { DLPACK_CPU = 1, DLPACK_FLOAT = 2, DLPACK_BFLOAT = 4, DLPACK_BOOL = 6 };

/* Whether all that is known of PyTorch by variables is as in ordinary times. */
static enum outcome facts_are_ordinary(PyObject *facts) {
    Py_ssize_t count = PyTuple_Size(facts);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *fact = PyTuple_GetItem(facts, i);
        PyObject *value =
            PyDict_GetItemWithError(PyTuple_GetItem(fact, 0), PyTuple_GetItem(fact, 1));
        if (value == NULL) {
            return PyErr_Occurred() ? OUTCOME_RAISED : OUTCOME_PYTHON;
        }
        int is_ordinary = PyObject_RichCompareBool(value, PyTuple_GetItem(fact, 2), Py_EQ);
        if (is_ordinary != 1) {
            return is_ordinary == 0 ? OUTCOME_PYTHON : OUTCOME_RAISED;
        }
    }
    return OUTCOME_DONE;
}

/* Whether every question has its ordinary answer. */
static enum outcome torch_may_compute(const struct call_state *state) {
    enum outcome facts = facts_are_ordinary(state->torch.facts);
    if (facts != OUTCOME_DONE) {
        return facts;
    }
    PyObject *questions = state->torch.questions;
    Py_ssize_t count = PyTuple_Size(questions);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *pair = PyTuple_GetItem(questions, i);
        PyObject *answer = PyObject_CallNoArgs(PyTuple_GetItem(pair, 0));
        if (answer == NULL) {
            return OUTCOME_RAISED;
        }
        int is_ordinary = PyObject_RichCompareBool(answer, PyTuple_GetItem(pair, 1), Py_EQ);
        Py_DECREF(answer);
        if (is_ordinary != 1) {
            return is_ordinary == 0 ? OUTCOME_PYTHON : OUTCOME_RAISED;
        }
    }
    return OUTCOME_DONE;
}

static int torch_owns(const struct call_state *state, PyObject *array) {
    PyObject *type = (PyObject *)Py_TYPE(array);
    return type == state->torch.tensor_type || type == state->torch.parameter_type;
}

/* OUTCOME_DONE if `answer`, which it takes, is False. */
static enum outcome expect_false(PyObject *answer) {
    if (answer == NULL) {
        return OUTCOME_RAISED;
    }
    int is_false = Py_IsFalse(answer);
    Py_DECREF(answer);
    return is_false ? OUTCOME_DONE : OUTCOME_PYTHON;
}

/* Whether no gradient is wanted of the tensor, and its memory has its numbers as they are. */
static enum outcome torch_may_read(const struct call_state *state, PyObject *tensor) {
    const struct torch *torch = &state->torch;
    PyObject *wanted =
        torch->get_requires_grad(torch->requires_grad, tensor, (PyObject *)Py_TYPE(tensor));
    enum outcome found = expect_false(wanted);
    if (found == OUTCOME_PYTHON) {
        found = expect_false(PyObject_CallNoArgs(torch->is_grad_enabled));
    }
    if (found != OUTCOME_DONE) {
        return found;
    }
    return expect_false(torch->ask_is_neg(tensor, NULL));
}

static int32_t dtype_of_dlpack(const struct dlpack_tensor *found) {
    if (found->type_lanes != 1) {
        return ATTN_DTYPE_INVALID;
    }
    if (found->type_code == DLPACK_FLOAT && found->type_bits == 32) {
        return ATTN_DTYPE_FLOAT32;
    }
    if (found->type_code == DLPACK_FLOAT && found->type_bits == 64) {
        return ATTN_DTYPE_FLOAT64;
    }
    if (found->type_code == DLPACK_FLOAT && found->type_bits == 16) {
        return ATTN_DTYPE_FLOAT16;
    }
    if (found->type_code == DLPACK_BFLOAT && found->type_bits == 16) {
        return ATTN_DTYPE_BFLOAT16;
    }
    if (found->type_code == DLPACK_BOOL && found->type_bits == 8) {
        return ATTN_DTYPE_BOOL;
    }
    return ATTN_DTYPE_INVALID;
}

static enum outcome torch_describe(const struct call_state *state, PyObject *array,
                                   struct view *view) {
    struct dlpack_tensor found = {0};
    if (state->torch.describe(array, &found) != 0) {
        PyErr_Clear(); /* such as tensors without strides */
        return OUTCOME_PYTHON;
    }
    attn_tensor *tensor = &view->tensor;
    tensor->dtype = dtype_of_dlpack(&found);
    tensor->rank = found.ndim;
    if (found.device_type != DLPACK_CPU || tensor->dtype == ATTN_DTYPE_INVALID ||
        found.ndim > ATTN_MAX_RANK || found.strides == NULL) {
        return OUTCOME_PYTHON;
    }
    tensor->data = (void *)((uintptr_t)found.data + (uintptr_t)found.byte_offset);
    for (int axis = 0; axis < found.ndim; axis++) {
        tensor->shape[axis] = found.shape[axis];
        tensor->strides[axis] = found.strides[axis];
    }
    return OUTCOME_DONE;
}

static enum outcome torch_find_context(struct call_state *state, double work,
                                       attn_context **context) {
    struct torch *torch = &state->torch;
    const int small = work < SMALL_WORK;
    *context = torch->serial;
    if (small && torch->serial != NULL) {
        return OUTCOME_DONE;
    }
    PyObject *address =
        PyObject_CallFunctionObjArgs(torch->find_context, small ? Py_True : Py_False, NULL);
    if (address == NULL) {
        return OUTCOME_RAISED;
    }
    *context = PyLong_AsVoidPtr(address);
    Py_DECREF(address);
    if (*context == NULL) {
        return PyErr_Occurred() ? OUTCOME_RAISED : OUTCOME_PYTHON;
    }
    torch->serial = small ? *context : torch->serial;
    return OUTCOME_DONE;
}

/* Of the query's dtype, as make_outputs asks for no other. Lengths one by one: PyTorch is slow to
 * read a tuple. */
static PyObject *torch_empty(const struct call_state *state, PyObject *like,
                             const attn_tensor *described) {
    PyObject *arguments = call_shape(like, described);
    if (arguments == NULL) {
        return NULL;
    }
    PyObject *made = PyObject_Call(state->torch.new_empty, arguments, NULL);
    Py_DECREF(arguments);
    return made;
}

const struct array_kind call_torch_kind = {
    .may_compute = torch_may_compute,
    .owns = torch_owns,
    .may_read = torch_may_read,
    .describe = torch_describe,
    .find_context = torch_find_context,
    .empty = torch_empty,
};
