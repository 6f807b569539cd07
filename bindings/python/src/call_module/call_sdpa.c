/* SPDX-License-Identifier: BSD-3-Clause
 *
 * call_sdpa.c: a call of scaled dot-product attention, from arrays to arrays.
 */
#include "call_state.h"

/* What _call.sdpa is given, in order. */
enum argument {
    ARGUMENT_QUERY,
    ARGUMENT_KEY,
    ARGUMENT_VALUE,
    ARGUMENT_MASK,
    ARGUMENT_IS_CAUSAL,
    ARGUMENT_SCALE,
    ARGUMENT_ENABLE_GQA,
    ARGUMENT_RETURN_LSE,
    ARGUMENT_CONTEXT
};

/* Its arrays, the first four in the order of the arguments. */
enum array { QUERY, KEY, VALUE, MASK, OUTPUT, LSE, NUM_ARRAYS };

/* No output overflows whose batches, rows and width are each this many at most. */
enum { MOST_PLAIN = 1 << 19 };

/* Of work_of, what takes a microsecond or two. */
enum { TINY_WORK = 1 << 13 };

struct call {
    struct call_state *state;
    const struct array_kind *kind;
    struct view views[NUM_ARRAYS];
    attn_sdpa_params params;
    attn_context *context;
    int32_t returns_lse;
    PyObject *output; /* owned */
    PyObject *lse;    /* owned; NULL where it is not wanted */
};

static enum outcome read_flag(PyObject *argument, int32_t *flag) {
    *flag = Py_IsTrue(argument);
    return Py_IsTrue(argument) || Py_IsFalse(argument) ? OUTCOME_DONE : OUTCOME_PYTHON;
}

static enum outcome read_scale(PyObject *argument, attn_sdpa_params *params) {
    if (Py_IsNone(argument)) {
        return OUTCOME_DONE;
    }
    if (!PyFloat_CheckExact(argument)) {
        return OUTCOME_PYTHON;
    }
    params->set = ATTN_SDPA_SET_SCALE;
    params->scale = PyFloat_AsDouble(argument);
    return OUTCOME_DONE;
}

/* The address of an attn_context, None for the one that find_context finds. */
static enum outcome read_context(PyObject *argument, attn_context **context) {
    *context = NULL;
    if (Py_IsNone(argument)) {
        return OUTCOME_DONE;
    }
    *context = PyLong_AsVoidPtr(argument);
    return *context == NULL && PyErr_Occurred() ? OUTCOME_RAISED : OUTCOME_DONE;
}

static enum outcome read_options(struct call *call, PyObject *const *arguments) {
    attn_sdpa_params *params = &call->params;
    params->struct_size = sizeof(*params);
    enum outcome outcome = read_flag(arguments[ARGUMENT_IS_CAUSAL], &params->is_causal);
    if (outcome == OUTCOME_DONE) {
        outcome = read_scale(arguments[ARGUMENT_SCALE], params);
    }
    if (outcome == OUTCOME_DONE) {
        outcome = read_flag(arguments[ARGUMENT_ENABLE_GQA], &params->enable_gqa);
    }
    if (outcome == OUTCOME_DONE) {
        outcome = read_flag(arguments[ARGUMENT_RETURN_LSE], &call->returns_lse);
    }
    if (outcome == OUTCOME_DONE) {
        outcome = read_context(arguments[ARGUMENT_CONTEXT], &call->context);
    }
    return outcome;
}

static enum outcome find_kind(struct call *call, PyObject *query) {
    static const struct array_kind *const kinds[] = {&call_numpy_kind, &call_torch_kind};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (kinds[i]->owns(call->state, query)) {
            call->kind = kinds[i];
            return call->kind->may_compute(call->state);
        }
    }
    return OUTCOME_PYTHON;
}

static enum outcome describe(struct call *call, enum array which, PyObject *array) {
    if (!call->kind->owns(call->state, array)) {
        return OUTCOME_PYTHON;
    }
    return call->kind->describe(call->state, array, &call->views[which]);
}

static enum outcome describe_input(struct call *call, enum array which, PyObject *array) {
    enum outcome outcome = describe(call, which, array);
    return outcome == OUTCOME_DONE ? call->kind->may_read(call->state, array) : outcome;
}

/* A bool mask says what takes part, as in PyTorch's function. */
static enum outcome describe_mask(struct call *call, PyObject *mask) {
    if (Py_IsNone(mask)) {
        return OUTCOME_DONE;
    }
    attn_tensor *tensor = &call->views[MASK].tensor;
    enum outcome outcome = describe_input(call, MASK, mask);
    if (outcome == OUTCOME_DONE) {
        int is_bool = tensor->dtype == ATTN_DTYPE_BOOL;
        call->params.mask = tensor;
        call->params.mask_kind = is_bool ? ATTN_MASK_BOOL_INCLUDE : ATTN_MASK_ADDITIVE;
    }
    return outcome;
}

static enum outcome describe_inputs(struct call *call, PyObject *const *arguments) {
    enum outcome outcome = find_kind(call, arguments[ARGUMENT_QUERY]);
    for (int which = QUERY; which <= VALUE && outcome == OUTCOME_DONE; which++) {
        outcome = describe_input(call, (enum array)which, arguments[which]);
    }
    return outcome == OUTCOME_DONE ? describe_mask(call, arguments[ARGUMENT_MASK]) : outcome;
}

PyObject *call_shape(PyObject *first, const attn_tensor *tensor) {
    int offset = first != NULL ? 1 : 0;
    PyObject *tuple = PyTuple_New(offset + tensor->rank);
    if (tuple != NULL && first != NULL) {
        PyTuple_SetItem(tuple, 0, Py_NewRef(first));
    }
    for (int axis = 0; tuple != NULL && axis < tensor->rank; axis++) {
        PyObject *length = PyLong_FromLongLong(tensor->shape[axis]);
        if (length == NULL) {
            Py_CLEAR(tuple);
        } else {
            PyTuple_SetItem(tuple, offset + axis, length);
        }
    }
    return tuple;
}

/* A new array of the type and shape of `described`, and the view of it. */
static enum outcome make_output(struct call *call, enum array which, PyObject *query,
                                const attn_tensor *described, PyObject **made) {
    *made = call->kind->empty(call->state, query, described);
    return *made == NULL ? OUTCOME_RAISED : describe(call, which, *made);
}

/* Whether the tensors have the same lengths but for their last two axes, and few in all. */
static int have_same_batch(const attn_tensor *one, const attn_tensor *other) {
    int64_t most = MOST_PLAIN; /* of what the axes that follow may come to */
    int same = one->rank == other->rank;
    for (int axis = 0; same && axis < one->rank - 2; axis++) {
        const int64_t length = one->shape[axis];
        same = length == other->shape[axis] && length <= most;
        most = length > 1 ? most / length : most;
    }
    return same;
}

/* What attn_sdpa_describe_outputs would say, in less time, where it takes no rule to tell. Returns
 * 0 elsewhere. What does not fit is left for attn_sdpa to find. */
static int describe_plain_outputs(const struct call *call, attn_sdpa_outputs *outputs) {
    const attn_tensor *query = &call->views[QUERY].tensor;
    const attn_tensor *value = &call->views[VALUE].tensor;
    int32_t rank = query->rank;
    if (rank < 2 || query->shape[rank - 2] > MOST_PLAIN || value->shape[rank - 1] > MOST_PLAIN ||
        !have_same_batch(query, &call->views[KEY].tensor) || !have_same_batch(query, value)) {
        return 0;
    }
    outputs->output = *query;
    outputs->output.shape[rank - 1] = value->shape[rank - 1];
    outputs->lse = *query;
    outputs->lse.rank = rank - 1;
    if (query->dtype != ATTN_DTYPE_FLOAT64) {
        outputs->lse.dtype = ATTN_DTYPE_FLOAT32;
    }
    return 1;
}

static enum outcome make_outputs(struct call *call, PyObject *query) {
    struct view *views = call->views;
    attn_sdpa_outputs outputs;
    outputs.struct_size = sizeof(outputs);
    if (!describe_plain_outputs(call, &outputs) &&
        call->state->library.describe_outputs(&views[QUERY].tensor, &views[KEY].tensor,
                                              &views[VALUE].tensor, &call->params,
                                              &outputs) != ATTN_OK) {
        return OUTCOME_PYTHON;
    }
    if (call->returns_lse && outputs.lse.dtype != views[QUERY].tensor.dtype) {
        return OUTCOME_PYTHON;
    }
    enum outcome outcome = make_output(call, OUTPUT, query, &outputs.output, &call->output);
    if (outcome == OUTCOME_DONE && call->returns_lse) {
        outcome = make_output(call, LSE, query, &outputs.lse, &call->lse);
        call->params.lse = &views[LSE].tensor;
    }
    return outcome;
}

static attn_status compute_now(const struct call *call) {
    const struct view *views = call->views;
    return call->state->library.sdpa(call->context, &views[QUERY].tensor, &views[KEY].tensor,
                                     &views[VALUE].tensor, &call->params, &views[OUTPUT].tensor,
                                     NULL, 0);
}

/* Multiplications of the call's two products, once its output is described: that has the batch that
 * query, key and value are broadcast to. */
static double work_of(const struct call *call) {
    const attn_tensor *query = &call->views[QUERY].tensor;
    const attn_tensor *key = &call->views[KEY].tensor;
    const attn_tensor *output = &call->views[OUTPUT].tensor;
    if (query->rank < 2 || key->rank < 2 || output->rank < 2) {
        return 0; /* refused by attn_sdpa */
    }
    double work = (double)query->shape[query->rank - 1] + (double)output->shape[output->rank - 1];
    for (int axis = 0; axis < output->rank - 1; axis++) {
        work *= (double)output->shape[axis];
    }
    return work * (double)key->shape[key->rank - 2];
}

static enum outcome find_context(struct call *call) {
    return call->context != NULL
               ? OUTCOME_DONE
               : call->kind->find_context(call->state, work_of(call), &call->context);
}

/* Other threads of Python run meanwhile, unless the call is over sooner than they would be told. */
static enum outcome compute(struct call *call) {
    attn_status status;
    if (work_of(call) < TINY_WORK) {
        status = compute_now(call);
    } else {
        Py_BEGIN_ALLOW_THREADS;
        status = compute_now(call);
        Py_END_ALLOW_THREADS;
    }
    return status == ATTN_OK ? OUTCOME_DONE : OUTCOME_PYTHON;
}

static enum outcome run(struct call *call, PyObject *const *arguments) {
    enum outcome outcome = read_options(call, arguments);
    if (outcome == OUTCOME_DONE) {
        outcome = describe_inputs(call, arguments);
    }
    if (outcome == OUTCOME_DONE) {
        outcome = make_outputs(call, arguments[ARGUMENT_QUERY]);
    }
    if (outcome == OUTCOME_DONE) {
        outcome = find_context(call);
    }
    return outcome == OUTCOME_DONE ? compute(call) : outcome;
}

static PyObject *result_of(const struct call *call, enum outcome outcome) {
    if (outcome == OUTCOME_RAISED) {
        return NULL;
    }
    if (outcome == OUTCOME_PYTHON) {
        return Py_NewRef(Py_NotImplemented);
    }
    return call->returns_lse ? PyTuple_Pack(2, call->output, call->lse) : Py_NewRef(call->output);
}

PyObject *call_sdpa(struct call_state *state, PyObject *const *arguments) {
    struct call call = {.state = state};
    enum outcome outcome = state->library.sdpa == NULL ? OUTCOME_PYTHON : run(&call, arguments);
    for (int which = 0; which < NUM_ARRAYS; which++) {
        PyBuffer_Release(&call.views[which].buffer);
    }
    PyObject *result = result_of(&call, outcome);
    Py_XDECREF(call.output);
    Py_XDECREF(call.lse);
    return result;
}
