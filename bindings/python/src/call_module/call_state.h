/* SPDX-License-Identifier: BSD-3-Clause
 *
 * call_state.h: what the module works with. Python hands it over once in each interpreter; until
 * then, and without, the module leaves every call to Python.
 */
#ifndef CALL_STATE_H
#define CALL_STATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <attention/attention.h>

/* How a step of a call went. */
enum outcome {
    OUTCOME_RAISED = -1, /* a Python exception is set */
    OUTCOME_PYTHON = 0,  /* the call is one for the package's Python, which also words refusals */
    OUTCOME_DONE = 1
};

/* An array as the library sees it. */
struct view {
    attn_tensor tensor;
    Py_buffer buffer; /* of NumPy arrays, held; else its obj is NULL */
};

/* Functions of the loaded library. */
struct library {
    __typeof__(attn_sdpa) *sdpa;
    __typeof__(attn_sdpa_describe_outputs) *describe_outputs;
};

/* Of NumPy. Any of them is NULL or all are there. */
struct numpy {
    PyObject *array_type; /* numpy.ndarray */
    PyObject *empty;      /* numpy.empty */
    PyObject *float32;    /* the dtypes */
    PyObject *float64;
    PyObject *float16;
};

/* Of PyTorch. Likewise. */
struct torch {
    PyObject *tensor_type;    /* torch.Tensor */
    PyObject *parameter_type; /* torch.nn.Parameter */
    PyObject *questions;      /* a tuple of pairs: what to call, and its answer in ordinary times */
    PyObject *is_grad_enabled; /* torch.is_grad_enabled */
    PyObject *is_neg;          /* torch.Tensor.is_neg */
    PyObject *new_empty;       /* torch.Tensor.new_empty */
    PyObject *requires_grad;   /* the attribute's name */
    PyObject *exchange;        /* the capsule that owns what follows */
    int (*describe)(void *tensor, void *description);
};

struct call_state {
    struct library library;
    struct numpy numpy;
    struct torch torch;
};

/* One library's arrays. */
struct array_kind {
    /* Whether calls on its arrays may be computed now, past everything that watches them. */
    enum outcome (*may_compute)(const struct call_state *state);

    /* Whether `array` is one of them and nothing more: no subclass. */
    int (*owns)(const struct call_state *state, PyObject *array);

    /* Whether the numbers of an argument may be read as they are, past everybody else. */
    enum outcome (*may_read)(const struct call_state *state, PyObject *array);

    /* Fills `view` for an array of the kind. */
    enum outcome (*describe)(const struct call_state *state, PyObject *array, struct view *view);

    /* A new array of the type and shape of `described`; `like` is the query. NULL: an exception is
     * set. */
    PyObject *(*empty)(const struct call_state *state, PyObject *like,
                       const attn_tensor *described);
};

extern const struct array_kind call_numpy_kind;
extern const struct array_kind call_torch_kind;

/* The tensor's shape as a tuple, behind `first` unless that is NULL; NULL with an exception set. */
PyObject *call_shape(PyObject *first, const attn_tensor *tensor);

/* Computes a call of _call.sdpa, whose arguments these are, as many as CALL_NUM_ARGUMENTS.
 * Returns the result, NotImplemented where Python has to look, or NULL with an exception set. */
enum { CALL_NUM_ARGUMENTS = 9 };
PyObject *call_sdpa(const struct call_state *state, PyObject *const *arguments);

#endif
