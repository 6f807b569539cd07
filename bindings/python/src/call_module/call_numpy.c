/* SPDX-License-Identifier: BSD-3-Clause
 *
 * call_numpy.c: NumPy's arrays, by the buffer protocol.
 */
#include "call_state.h"

static enum outcome numpy_may_compute(const struct call_state *state) {
    (void)state; /* nothing watches NumPy's arrays */
    return OUTCOME_DONE;
}

static enum outcome numpy_may_read(const struct call_state *state, PyObject *array) {
    (void)state;
    (void)array;
    return OUTCOME_DONE;
}

static int numpy_owns(const struct call_state *state, PyObject *array) {
    return (PyObject *)Py_TYPE(array) == state->numpy.array_type;
}

/* Elements of this machine's byte order and alignment; NumPy writes others with a prefix. */
static int32_t dtype_of_format(const char *format) {
    if (format == NULL || format[0] == '\0' || format[1] != '\0') {
        return ATTN_DTYPE_INVALID;
    }
    switch (format[0]) {
    case 'f':
        return ATTN_DTYPE_FLOAT32;
    case 'd':
        return ATTN_DTYPE_FLOAT64;
    case 'e':
        return ATTN_DTYPE_FLOAT16;
    case '?':
        return ATTN_DTYPE_BOOL;
    default:
        return ATTN_DTYPE_INVALID;
    }
}

static enum outcome numpy_describe(const struct call_state *state, PyObject *array,
                                   struct view *view) {
    (void)state;
    Py_buffer *buffer = &view->buffer;
    if (PyObject_GetBuffer(array, buffer, PyBUF_STRIDES | PyBUF_FORMAT) != 0) {
        PyErr_Clear(); /* such as types that no format stands for */
        return OUTCOME_PYTHON;
    }
    attn_tensor *tensor = &view->tensor;
    tensor->data = buffer->buf;
    tensor->dtype = dtype_of_format(buffer->format);
    tensor->rank = buffer->ndim;
    if (tensor->dtype == ATTN_DTYPE_INVALID || buffer->ndim > ATTN_MAX_RANK) {
        return OUTCOME_PYTHON;
    }
    for (int axis = 0; axis < buffer->ndim; axis++) {
        if (buffer->strides[axis] % buffer->itemsize != 0) {
            return OUTCOME_PYTHON;
        }
        tensor->shape[axis] = buffer->shape[axis];
        tensor->strides[axis] = buffer->strides[axis] / buffer->itemsize;
    }
    return OUTCOME_DONE;
}

/* The process's default one. */
static enum outcome numpy_find_context(struct call_state *state, double work,
                                       attn_context **context) {
    (void)state;
    (void)work;
    *context = NULL;
    return OUTCOME_DONE;
}

static PyObject *numpy_dtype(const struct numpy *numpy, int32_t dtype) {
    switch (dtype) {
    case ATTN_DTYPE_FLOAT32:
        return numpy->float32;
    case ATTN_DTYPE_FLOAT16:
        return numpy->float16;
    default:
        return numpy->float64;
    }
}

static PyObject *numpy_empty(const struct call_state *state, PyObject *like,
                             const attn_tensor *described) {
    (void)like;
    const struct numpy *numpy = &state->numpy;
    PyObject *dtype = numpy_dtype(numpy, described->dtype);
    PyObject *shape = call_shape(NULL, described);
    if (shape == NULL) {
        return NULL;
    }
    PyObject *made = PyObject_CallFunctionObjArgs(numpy->empty, shape, dtype, NULL);
    Py_DECREF(shape);
    return made;
}

const struct array_kind call_numpy_kind = {
    .may_compute = numpy_may_compute,
    .owns = numpy_owns,
    .may_read = numpy_may_read,
    .describe = numpy_describe,
    .find_context = numpy_find_context,
    .empty = numpy_empty,
};
