/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_workspace_overlap.c: a workspace that touches a tensor of the call, by one byte at either end
 * or as a whole, is refused by the tensor's name and nothing is written; beside every tensor it is
 * accepted. Each tensor of each call in turn: arguments, options, outputs and bound parameters.
 */
#include <stdio.h>
#include <string.h>

#include "refusal.h"

enum {
    MOST_VIEWS = 28,
    MOST_BYTES = 2048, /* of a tensor */
    STORE_BYTES = MOST_VIEWS * MOST_BYTES,
    ARENA_BYTES = 1 << 19,
    N = 2,
    H = 2,
    L = 3,
    S = 5,
    D = 4,
    EMBED = H * D,
    KDIM = 6
};

/* A call whose tensors may be anywhere. The first are the outputs. */
typedef struct placed_call placed_call;
struct placed_call {
    const char *name;
    int32_t dtype;
    int32_t engine;
    void (*build)(placed_call *call);
    attn_status (*run)(const placed_call *call, void *workspace, size_t bytes);
    attn_status (*ask)(const placed_call *call, size_t *bytes);
    attn_context *context;
    attn_mha *layer;
    attn_tensor views[MOST_VIEWS];
    const char *names[MOST_VIEWS];
    int count;
    int num_outputs;
};

/* Where the tensors lie to begin with, and where the workspace and the one that is moved do. */
static unsigned char store[STORE_BYTES];
static unsigned char arena[ARENA_BYTES];

static size_t extent_bytes(const attn_tensor *view) {
    int64_t elements = 1;
    for (int32_t axis = 0; axis < view->rank; ++axis) {
        elements += (view->shape[axis] - 1) * view->strides[axis];
    }
    return (size_t)elements * attn_dtype_size_bytes(view->dtype);
}

/* Small numbers; indices are 1, no flag is set. */
static void fill(const attn_tensor *view, int seed) {
    const size_t size = attn_dtype_size_bytes(view->dtype);
    for (size_t i = 0; i < extent_bytes(view) / size; ++i) {
        const double number = (double)((i * 37 + (size_t)seed * 53) % 101) / 64 - 0.75;
        const float narrow = (float)number;
        const int64_t index = 1;
        const int32_t narrow_index = 1;
        const unsigned char flag = 0;
        const void *from = view->dtype == ATTN_DTYPE_FLOAT64   ? (const void *)&number
                           : view->dtype == ATTN_DTYPE_FLOAT32 ? (const void *)&narrow
                           : view->dtype == ATTN_DTYPE_INT64   ? (const void *)&index
                           : view->dtype == ATTN_DTYPE_INT32   ? (const void *)&narrow_index
                                                               : (const void *)&flag;
        memcpy((char *)view->data + i * size, from, size);
    }
}

/* The next tensor of the call, in memory of its own. */
static void add(placed_call *call, const char *name, int32_t dtype, int32_t rank,
                const int64_t *shape) {
    assert_true(call->count < MOST_VIEWS);
    attn_tensor *view = &call->views[call->count];
    *view = refusal_view(store + call->count * MOST_BYTES, dtype, rank, shape);
    assert_true(extent_bytes(view) <= MOST_BYTES);
    fill(view, call->count);
    call->names[call->count++] = name;
}

/* NULL where the call has none of this name. */
static const attn_tensor *seek(const placed_call *call, const char *name) {
    for (int i = 0; i < call->count; ++i) {
        if (strcmp(call->names[i], name) == 0) {
            return &call->views[i];
        }
    }
    return NULL;
}

static const attn_tensor *find(const placed_call *call, const char *name) {
    const attn_tensor *tensor = seek(call, name);
    if (tensor == NULL) {
        fail_msg("no tensor %s", name);
    }
    return tensor;
}

/* ---- softmax ---- */

/* Every second element of output, so that there is a workspace. */
static void build_softmax(placed_call *call) {
    const int64_t shape[] = {L, S};
    add(call, "output", call->dtype, 2, (const int64_t[]){L, 2 * S});
    call->views[0].shape[1] = S;
    call->views[0].strides[1] = 2;
    add(call, "lse", call->dtype, 1, shape);
    call->num_outputs = 2;
    add(call, "input", call->dtype, 2, shape);
    add(call, "mask", ATTN_DTYPE_FLOAT32, 2, shape);
    add(call, "lengths", ATTN_DTYPE_INT32, 1, shape);
}

static attn_softmax_params softmax_params(const placed_call *call) {
    return (attn_softmax_params){.struct_size = sizeof(attn_softmax_params),
                                 .mask_kind = ATTN_MASK_ADDITIVE,
                                 .mask = find(call, "mask"),
                                 .lengths = find(call, "lengths"),
                                 .lse = find(call, "lse")};
}

static attn_status run_softmax(const placed_call *call, void *workspace, size_t bytes) {
    const attn_softmax_params params = softmax_params(call);
    return attn_softmax(call->context, find(call, "input"), &params, find(call, "output"),
                        workspace, bytes);
}

static attn_status ask_softmax(const placed_call *call, size_t *bytes) {
    const attn_softmax_params params = softmax_params(call);
    return attn_softmax_workspace_bytes(call->context, find(call, "input"), &params,
                                        find(call, "output"), bytes);
}

/* ---- attention ---- */

static void build_sdpa(placed_call *call) {
    add(call, "output", call->dtype, 4, (const int64_t[]){N, H, L, D});
    add(call, "lse", call->dtype, 3, (const int64_t[]){N, H, L});
    add(call, "weights", call->dtype, 4, (const int64_t[]){N, H, L, S});
    call->num_outputs = 3;
    add(call, "query", call->dtype, 4, (const int64_t[]){N, H, L, D});
    add(call, "key", call->dtype, 4, (const int64_t[]){N, H, S, D});
    add(call, "value", call->dtype, 4, (const int64_t[]){N, H, S, D});
    add(call, "mask", ATTN_DTYPE_BOOL, 2, (const int64_t[]){L, S});
    add(call, "bias", call->dtype, 3, (const int64_t[]){H, L, S});
    add(call, "query_offset", ATTN_DTYPE_INT32, 1, (const int64_t[]){N});
    add(call, "key_lengths", ATTN_DTYPE_INT64, 1, (const int64_t[]){N});
    add(call, "alibi_slopes", ATTN_DTYPE_FLOAT32, 1, (const int64_t[]){H});
    add(call, "sinks", call->dtype, 1, (const int64_t[]){H});
    add(call, "mask_start", ATTN_DTYPE_INT32, 1, (const int64_t[]){N});
    add(call, "position_bias", call->dtype, 2, (const int64_t[]){H, 5});
    add(call, "block_mask", ATTN_DTYPE_UINT8, 2, (const int64_t[]){L, S});
}

/* The options by name, with a layer's prefix. */
static attn_sdpa_params options_of(const placed_call *call, const char *prefix) {
    attn_sdpa_params params = {.struct_size = sizeof params, .mask_kind = ATTN_MASK_BOOL_EXCLUDE};
    const struct {
        const char *name;
        const attn_tensor **place;
    } options[] = {{"mask", &params.mask},
                   {"bias", &params.bias},
                   {"query_offset", &params.query_offset},
                   {"key_lengths", &params.key_lengths},
                   {"alibi_slopes", &params.alibi_slopes},
                   {"sinks", &params.sinks},
                   {"mask_start", &params.mask_start},
                   {"position_bias", &params.position_bias},
                   {"block_mask", &params.block_mask},
                   {"lse", &params.lse},
                   {"weights", &params.weights}};
    for (size_t i = 0; i < sizeof options / sizeof options[0]; ++i) {
        char name[64];
        snprintf(name, sizeof name, "%s%s", prefix, options[i].name);
        *options[i].place = seek(call, name);
    }
    params.block_rows = params.block_mask != NULL ? 1 : 0;
    params.block_columns = params.block_rows;
    return params;
}

static attn_status run_sdpa(const placed_call *call, void *workspace, size_t bytes) {
    const attn_sdpa_params params = options_of(call, "");
    return attn_sdpa(call->context, find(call, "query"), find(call, "key"), find(call, "value"),
                     &params, find(call, "output"), workspace, bytes);
}

static attn_status ask_sdpa(const placed_call *call, size_t *bytes) {
    const attn_sdpa_params params = options_of(call, "");
    return attn_sdpa_workspace_bytes(call->context, find(call, "query"), find(call, "key"),
                                     find(call, "value"), &params, find(call, "output"), bytes);
}

/* ---- attention of ragged queries to keys and values in kv ---- */

enum { ROWS = 5, TOTAL = 7, PAGES = 4, PAGE = 2 };

/* Starts of two sequences, and the end of the second. */
static void add_starts(placed_call *call, const char *name, int64_t second, int64_t end) {
    add(call, name, ATTN_DTYPE_INT64, 1, (const int64_t[]){N + 1});
    const int64_t starts[] = {0, second, end};
    memcpy(call->views[call->count - 1].data, starts, sizeof starts);
}

static void add_ragged(placed_call *call) {
    add(call, "output", call->dtype, 3, (const int64_t[]){H, ROWS, D});
    add(call, "lse", call->dtype, 2, (const int64_t[]){H, ROWS});
    add(call, "weights", call->dtype, 3, (const int64_t[]){H, ROWS, S});
    call->num_outputs = 3;
    add(call, "query", call->dtype, 3, (const int64_t[]){H, ROWS, D});
    add_starts(call, "query_starts", 2, ROWS);
    add(call, "mask", ATTN_DTYPE_BOOL, 2, (const int64_t[]){ROWS, S});
    add(call, "query_offset", ATTN_DTYPE_INT32, 1, (const int64_t[]){N});
    add(call, "kv.lengths", ATTN_DTYPE_INT64, 1, (const int64_t[]){N});
}

static void build_behind(placed_call *call) {
    add_ragged(call);
    add(call, "kv.key", call->dtype, 3, (const int64_t[]){H, TOTAL, D});
    add(call, "kv.value", call->dtype, 3, (const int64_t[]){H, TOTAL, D});
    add_starts(call, "kv.starts", 3, TOTAL);
}

/* All entries are page 1. */
static void build_pages(placed_call *call) {
    add_ragged(call);
    add(call, "kv.key", call->dtype, 4, (const int64_t[]){PAGES, H, PAGE, D});
    add(call, "kv.value", call->dtype, 4, (const int64_t[]){PAGES, H, PAGE, D});
    add(call, "kv.page_table", ATTN_DTYPE_INT32, 1, (const int64_t[]){PAGES});
    add_starts(call, "kv.page_starts", 2, PAGES);
}

static attn_sdpa_params kv_params(const placed_call *call, attn_kv *kv) {
    *kv = (attn_kv){.struct_size = sizeof *kv,
                    .key = find(call, "kv.key"),
                    .value = find(call, "kv.value"),
                    .page_table = seek(call, "kv.page_table"),
                    .page_starts = seek(call, "kv.page_starts"),
                    .starts = seek(call, "kv.starts"),
                    .lengths = find(call, "kv.lengths")};
    attn_sdpa_params params = options_of(call, "");
    params.kv = kv;
    params.query_starts = find(call, "query_starts");
    return params;
}

static attn_status run_kv(const placed_call *call, void *workspace, size_t bytes) {
    attn_kv kv;
    const attn_sdpa_params params = kv_params(call, &kv);
    return attn_sdpa(call->context, find(call, "query"), NULL, NULL, &params, find(call, "output"),
                     workspace, bytes);
}

static attn_status ask_kv(const placed_call *call, size_t *bytes) {
    attn_kv kv;
    const attn_sdpa_params params = kv_params(call, &kv);
    return attn_sdpa_workspace_bytes(call->context, find(call, "query"), NULL, NULL, &params,
                                     find(call, "output"), bytes);
}

/* ---- a layer, all of whose parameters are bound ---- */

enum { T = S + 1, FIRST_PARAMETER = 16 };

static void build_mha(placed_call *call) {
    const attn_mha_config config = {.struct_size = sizeof config,
                                    .embed_dim = EMBED,
                                    .num_heads = H,
                                    .kdim = KDIM,
                                    .dtype = call->dtype,
                                    .add_bias_kv = 1,
                                    .batch_first = 1};
    refusal_assert_ok("attn_mha_create", attn_mha_create(call->context, &config, &call->layer));
    add(call, "output", call->dtype, 3, (const int64_t[]){N, L, EMBED});
    add(call, "attention.weights", call->dtype, 4, (const int64_t[]){N, H, L, T});
    add(call, "attention.lse", call->dtype, 3, (const int64_t[]){N, H, L});
    call->num_outputs = 3;
    add(call, "query", call->dtype, 3, (const int64_t[]){N, L, EMBED});
    add(call, "key", call->dtype, 3, (const int64_t[]){N, S, KDIM});
    add(call, "value", call->dtype, 3, (const int64_t[]){N, S, EMBED});
    add(call, "key_padding_mask", ATTN_DTYPE_BOOL, 2, (const int64_t[]){N, S});
    add(call, "attention.mask", ATTN_DTYPE_BOOL, 2, (const int64_t[]){L, S});
    add(call, "attention.bias", call->dtype, 3, (const int64_t[]){H, L, S});
    add(call, "attention.query_offset", ATTN_DTYPE_INT32, 1, (const int64_t[]){N});
    add(call, "attention.key_lengths", ATTN_DTYPE_INT64, 1, (const int64_t[]){N});
    add(call, "attention.alibi_slopes", ATTN_DTYPE_FLOAT32, 1, (const int64_t[]){H});
    add(call, "attention.sinks", call->dtype, 1, (const int64_t[]){H});
    add(call, "attention.mask_start", ATTN_DTYPE_INT32, 1, (const int64_t[]){N});
    add(call, "attention.position_bias", call->dtype, 2, (const int64_t[]){H, 5});
    add(call, "attention.block_mask", ATTN_DTYPE_UINT8, 2, (const int64_t[]){L, S});
    assert_int_equal(call->count, FIRST_PARAMETER);
    int64_t count;
    refusal_assert_ok("attn_mha_parameter_count", attn_mha_parameter_count(call->layer, &count));
    for (int64_t i = 0; i < count; ++i) {
        const char *name;
        attn_tensor shape;
        refusal_assert_ok("attn_mha_parameter_describe",
                          attn_mha_parameter_describe(call->layer, i, &name, &shape));
        add(call, name, shape.dtype, shape.rank, shape.shape);
    }
}

static attn_mha_params mha_params(const placed_call *call, attn_sdpa_params *attention) {
    *attention = options_of(call, "attention.");
    for (int i = FIRST_PARAMETER; i < call->count; ++i) {
        refusal_assert_ok("attn_mha_bind_parameter",
                          attn_mha_bind_parameter(call->layer, call->names[i], &call->views[i]));
    }
    return (attn_mha_params){.struct_size = sizeof(attn_mha_params),
                             .key_padding_mask_kind = ATTN_MASK_BOOL_EXCLUDE,
                             .key_padding_mask = find(call, "key_padding_mask"),
                             .attention = attention};
}

static attn_status run_mha(const placed_call *call, void *workspace, size_t bytes) {
    attn_sdpa_params attention;
    const attn_mha_params params = mha_params(call, &attention);
    return attn_mha_forward(call->context, call->layer, find(call, "query"), find(call, "key"),
                            find(call, "value"), &params, find(call, "output"), workspace, bytes);
}

static attn_status ask_mha(const placed_call *call, size_t *bytes) {
    attn_sdpa_params attention;
    const attn_mha_params params = mha_params(call, &attention);
    return attn_mha_workspace_bytes(call->context, call->layer, find(call, "query"),
                                    find(call, "key"), find(call, "value"), &params,
                                    find(call, "output"), bytes);
}

/* ---- the tests ---- */

/* What the outputs must be, however the tensors lie; bytes between their elements included. */
static unsigned char expected[3][MOST_BYTES];

static void fill_outputs(const placed_call *call) {
    for (int i = 0; i < call->num_outputs; ++i) {
        refusal_fill(call->views[i].data, extent_bytes(&call->views[i]));
    }
}

static void assert_outputs(const placed_call *call) {
    for (int i = 0; i < call->num_outputs; ++i) {
        assert_memory_equal(call->views[i].data, expected[i], extent_bytes(&call->views[i]));
    }
}

static void refuse_at(placed_call *call, int which, void *workspace, size_t needed,
                      unsigned char *place) {
    static unsigned char before[ARENA_BYTES], store_before[STORE_BYTES];
    attn_tensor *view = &call->views[which];
    void *home = view->data;
    char line[128];
    snprintf(line, sizeof line,
             "workspace: expected memory of its own, got memory that overlaps %s",
             call->names[which]);
    refusal_fill(arena, sizeof arena);
    fill_outputs(call);
    memcpy(place, home, extent_bytes(view));
    view->data = place;
    memcpy(before, arena, sizeof arena);
    memcpy(store_before, store, sizeof store);
    size_t bytes = 0;
    refusal_assert_ok(call->name, call->ask(call, &bytes));
    assert_int_equal(bytes, needed);
    refusal_assert(call->name, call->run(call, workspace, needed), ATTN_ERROR_OVERLAP, line);
    assert_memory_equal(arena, before, sizeof arena);
    assert_memory_equal(store, store_before, sizeof store);
    view->data = home;
}

static void accept_at(placed_call *call, int which, void *workspace, size_t given,
                      unsigned char *place) {
    attn_tensor *view = &call->views[which];
    void *home = view->data;
    refusal_fill(arena, sizeof arena);
    fill_outputs(call);
    memcpy(place, home, extent_bytes(view));
    view->data = place;
    refusal_assert_ok(call->names[which], call->run(call, workspace, given));
    assert_outputs(call);
    view->data = home;
}

static void workspace_touches_no_tensor(void **state) {
    placed_call call = *(const placed_call *)*state;
    const attn_context_config config = {
        .struct_size = sizeof config, .num_threads = 2, .engine = call.engine};
    refusal_assert_ok("attn_context_create", attn_context_create(&config, &call.context));
    call.build(&call);
    fill_outputs(&call);
    refusal_assert_ok(call.name, call.run(&call, NULL, 0));
    for (int i = 0; i < call.num_outputs; ++i) {
        memcpy(expected[i], call.views[i].data, extent_bytes(&call.views[i]));
    }
    size_t needed = 0;
    refusal_assert_ok(call.name, call.ask(&call, &needed));
    assert_in_range(needed, 1, ARENA_BYTES - 2 * MOST_BYTES - 64);
    unsigned char *workspace = arena + MOST_BYTES + 5; /* at no round address */
    for (int i = 0; i < call.count; ++i) {
        const size_t bytes = extent_bytes(&call.views[i]);
        refuse_at(&call, i, workspace, needed, workspace - bytes + 1);
        refuse_at(&call, i, workspace, needed, workspace);
        refuse_at(&call, i, workspace, needed, workspace + needed / 2);
        refuse_at(&call, i, workspace, needed, workspace + needed - 1);
        accept_at(&call, i, workspace, needed, workspace - bytes);
        accept_at(&call, i, workspace, needed, workspace + needed);
        accept_at(&call, i, workspace, needed + bytes, workspace + needed);
    }
    attn_mha_destroy(call.layer);
    attn_context_destroy(call.context);
}

#define CALLS(kind) .build = build_##kind, .run = run_##kind, .ask = ask_##kind

static const placed_call calls[] = {
    {.name = "softmax_float32",
     .dtype = ATTN_DTYPE_FLOAT32,
     .engine = ATTN_ENGINE_AUTO,
     CALLS(softmax)},
    {.name = "softmax_float64",
     .dtype = ATTN_DTYPE_FLOAT64,
     .engine = ATTN_ENGINE_AUTO,
     CALLS(softmax)},
    {.name = "sdpa_float32_fused",
     .dtype = ATTN_DTYPE_FLOAT32,
     .engine = ATTN_ENGINE_FUSED,
     CALLS(sdpa)},
    {.name = "sdpa_float32_blas",
     .dtype = ATTN_DTYPE_FLOAT32,
     .engine = ATTN_ENGINE_BLAS,
     CALLS(sdpa)},
    {.name = "sdpa_float64_blas",
     .dtype = ATTN_DTYPE_FLOAT64,
     .engine = ATTN_ENGINE_BLAS,
     CALLS(sdpa)},
    {.name = "ragged_behind_float32_fused",
     .dtype = ATTN_DTYPE_FLOAT32,
     .engine = ATTN_ENGINE_FUSED,
     .build = build_behind,
     .run = run_kv,
     .ask = ask_kv},
    {.name = "ragged_pages_float32_fused",
     .dtype = ATTN_DTYPE_FLOAT32,
     .engine = ATTN_ENGINE_FUSED,
     .build = build_pages,
     .run = run_kv,
     .ask = ask_kv},
    {.name = "ragged_pages_float64_blas",
     .dtype = ATTN_DTYPE_FLOAT64,
     .engine = ATTN_ENGINE_BLAS,
     .build = build_pages,
     .run = run_kv,
     .ask = ask_kv},
    {.name = "mha_float32_fused",
     .dtype = ATTN_DTYPE_FLOAT32,
     .engine = ATTN_ENGINE_FUSED,
     CALLS(mha)},
    {.name = "mha_float64_blas",
     .dtype = ATTN_DTYPE_FLOAT64,
     .engine = ATTN_ENGINE_BLAS,
     CALLS(mha)},
};

int main(void) {
    static refusal_suite suite;
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; ++i) {
        refusal_suite_add(&suite, calls[i].name, workspace_touches_no_tensor, &calls[i]);
    }
    return refusal_suite_run(&suite, "workspaces beside tensors");
}
