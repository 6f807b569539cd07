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
    PyObject *facts;          /* a tuple of triples: a dict, a key, and the value there in those */
    PyObject *is_grad_enabled; /* torch.is_grad_enabled */
    PyObject *is_neg;          /* of some tensor, the method */
    PyObject *new_empty;       /* torch.Tensor.new_empty */
    PyObject *requires_grad;   /* torch.Tensor.requires_grad */
    PyObject *find_context;    /* address_of_context of _torch_threads.py */
    PyObject *exchange;        /* the capsule that owns what follows */
    int (*describe)(void *tensor, void *description);
    descrgetfunc get_requires_grad; /* of the type of requires_grad */
    PyCFunction ask_is_neg;         /* what is_neg calls, without arguments */
    attn_context *serial;           /* of one thread, from the first small call on; else NULL */
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

    /* What a call of so many multiplications runs with that was given no context. */
    enum outcome (*find_context)(struct call_state *state, double work, attn_context **context);

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
PyObject *call_sdpa(struct call_state *state, PyObject *const *arguments);

/* The address of an attn_parallel_for_fn that runs on the threads of an OpenMP, given the address
 * of its GOMP_parallel; its state is the number of threads. NULL with an exception set. */
PyObject *call_bind_openmp(void *parallel);

#endif
