/* SPDX-License-Identifier: BSD-3-Clause
 *
 * call_module.c: libattention._call, which makes small calls cheap. Its interface is told by
 * _call.pyi.
 */
#include <string.h>

#include "call_state.h"

/* Of DLPack's DLPackExchangeAPI. */
#define DLPACK_CAPSULE "dlpack_exchange_api"
enum { DLPACK_MAJOR = 1 };

struct dlpack_functions {
    uint32_t major;
    uint32_t minor;
    void *older;
    void (*allocate)(void);
    void (*export_owning)(void);
    void (*import_owning)(void);
    int (*describe)(void *tensor, void *description); /* NULL where there is none */
    void (*current_stream)(void);
};

static struct call_state *state_of(PyObject *module) {
    return PyModule_GetState(module);
}

/* *member = value, both of which may be NULL. */
static void keep(PyObject **member, PyObject *value) {
    PyObject *old = *member;
    Py_XINCREF(value);
    *member = value;
    Py_XDECREF(old);
}

static int has_count(Py_ssize_t count, Py_ssize_t expected, const char *function) {
    if (count != expected) {
        PyErr_Format(PyExc_TypeError, "%s: expected %zd arguments, got %zd", function, expected,
                     count);
    }
    return count == expected;
}

/* The functions are the ones that cffi loaded, handed over by their addresses: linked with the
 * library, this module would have the loader find it a second time, by a name and a path that
 * whoever repacks the package may change. */
static PyObject *bind_library(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    if (!has_count(count, 2, "bind_library")) {
        return NULL;
    }
    void *sdpa = PyLong_AsVoidPtr(arguments[0]);
    void *describe_outputs = PyLong_AsVoidPtr(arguments[1]);
    if (sdpa == NULL || describe_outputs == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "bind_library: expected addresses, got 0");
        }
        return NULL;
    }
    struct library *library = &state_of(module)->library;
    library->sdpa = (__typeof__(library->sdpa))(uintptr_t)sdpa;
    library->describe_outputs = (__typeof__(library->describe_outputs))(uintptr_t)describe_outputs;
    return Py_NewRef(Py_None);
}

static PyObject *bind_numpy(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    if (!has_count(count, 5, "bind_numpy")) {
        return NULL;
    }
    struct numpy *numpy = &state_of(module)->numpy;
    keep(&numpy->empty, arguments[1]);
    keep(&numpy->float32, arguments[2]);
    keep(&numpy->float64, arguments[3]);
    keep(&numpy->float16, arguments[4]);
    keep(&numpy->array_type, arguments[0]);
    return Py_NewRef(Py_None);
}

static int are_tuples(PyObject *tuples, Py_ssize_t size) {
    int fits = PyTuple_Check(tuples);
    for (Py_ssize_t i = 0; fits && i < PyTuple_Size(tuples); i++) {
        PyObject *one = PyTuple_GetItem(tuples, i);
        fits = PyTuple_Check(one) && PyTuple_Size(one) == size;
    }
    if (!fits) {
        PyErr_Format(PyExc_TypeError, "bind_torch: expected a tuple of tuples of %zd", size);
    }
    return fits;
}

static PyObject *bind_torch(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    if (!has_count(count, 10, "bind_torch") || !are_tuples(arguments[3], 2) ||
        !are_tuples(arguments[4], 3)) {
        return NULL;
    }
    if (!PyCFunction_Check(arguments[6]) || PyCFunction_GetFlags(arguments[6]) != METH_NOARGS) {
        return Py_NewRef(Py_False);
    }
    void *slot = PyType_GetSlot(Py_TYPE(arguments[8]), Py_tp_descr_get);
    descrgetfunc get = (descrgetfunc)(uintptr_t)slot;
    const struct dlpack_functions *functions = PyCapsule_GetPointer(arguments[0], DLPACK_CAPSULE);
    if (functions == NULL) {
        return NULL;
    }
    if (functions->major != DLPACK_MAJOR || functions->describe == NULL || get == NULL) {
        return Py_NewRef(Py_False);
    }
    struct torch *torch = &state_of(module)->torch;
    torch->describe = functions->describe;
    torch->get_requires_grad = get;
    torch->ask_is_neg = PyCFunction_GetFunction(arguments[6]);
    keep(&torch->exchange, arguments[0]);
    keep(&torch->questions, arguments[3]);
    keep(&torch->facts, arguments[4]);
    keep(&torch->is_grad_enabled, arguments[5]);
    keep(&torch->is_neg, arguments[6]);
    keep(&torch->new_empty, arguments[7]);
    keep(&torch->requires_grad, arguments[8]);
    keep(&torch->find_context, arguments[9]);
    keep(&torch->parameter_type, arguments[2]);
    keep(&torch->tensor_type, arguments[1]);
    return Py_NewRef(Py_True);
}

static PyObject *bind_openmp(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    (void)module;
    if (!has_count(count, 1, "bind_openmp")) {
        return NULL;
    }
    void *parallel = PyLong_AsVoidPtr(arguments[0]);
    if (parallel == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "bind_openmp: expected an address, got 0");
        }
        return NULL;
    }
    return call_bind_openmp(parallel);
}

static PyObject *sdpa(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    return has_count(count, CALL_NUM_ARGUMENTS, "sdpa") ? call_sdpa(state_of(module), arguments)
                                                        : NULL;
}

/* What a module's state owns, one after the other. */
struct owned {
    PyObject **members[15];
};

static struct owned owned_by(struct call_state *state) {
    struct numpy *numpy = &state->numpy;
    struct torch *torch = &state->torch;
    return (struct owned){{&numpy->array_type, &numpy->empty, &numpy->float32, &numpy->float64,
                           &numpy->float16, &torch->tensor_type, &torch->parameter_type,
                           &torch->questions, &torch->facts, &torch->is_grad_enabled,
                           &torch->is_neg, &torch->new_empty, &torch->requires_grad,
                           &torch->find_context, &torch->exchange}};
}

static int traverse(PyObject *module, visitproc visit, void *arg) {
    struct owned owned = owned_by(state_of(module));
    for (size_t i = 0; i < sizeof(owned.members) / sizeof(owned.members[0]); i++) {
        Py_VISIT(*owned.members[i]);
    }
    return 0;
}

static int clear(PyObject *module) {
    struct owned owned = owned_by(state_of(module));
    for (size_t i = 0; i < sizeof(owned.members) / sizeof(owned.members[0]); i++) {
        keep(owned.members[i], NULL);
    }
    return 0;
}

static void release(void *module) {
    clear(module);
}

/* Python's table has functions of one type, whatever their flags say that they take. */
#define FASTCALL(name) \
    { #name, (PyCFunction)(void (*)(void))(name), METH_FASTCALL, NULL }

static PyMethodDef methods[] = {
    FASTCALL(bind_library), FASTCALL(bind_numpy), FASTCALL(bind_torch),
    FASTCALL(bind_openmp),  FASTCALL(sdpa),       {NULL, NULL, 0, NULL},
};

/* Nothing is done when it is loaded; that there are slots lets every interpreter have its own. */
static PyModuleDef_Slot slots[] = {{0, NULL}};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "libattention._call",
    .m_size = sizeof(struct call_state),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = traverse,
    .m_clear = clear,
    .m_free = release,
};

PyMODINIT_FUNC PyInit__call(void);

PyMODINIT_FUNC PyInit__call(void) {
    return PyModuleDef_Init(&definition);
}
