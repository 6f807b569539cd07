/* SPDX-License-Identifier: BSD-3-Clause
 *
 * kv_fixture.c: the valid calls, and what they must compute.
 */
#include "kv_fixture.h"

#include <math.h>
#include <string.h>

#define COUNT_OF(array) ((int64_t)(sizeof(array) / sizeof(array)[0]))

/* Sequence 0 has 5 keys and sequence 1 has 4, which stand in 3 and 2 pages; of ragged queries 3
 * rows and 1. */
static void fill_memory(kv_memory *memory, kv_kind kind) {
    static const int64_t lengths[] = {KV_MOST_KEYS, 4};
    static const int64_t starts[] = {1, 6, 11};
    static const int64_t tables[2][KV_N * KV_M] = {{4, 0, 6, 2, 5, -1}, {4, 0, 6, 2, 5, 0}};
    static const int64_t page_starts[] = {0, 3, KV_ENTRIES};
    static const int64_t query_starts[] = {0, 3, 4};
    memset(memory, 0, sizeof *memory);
    refusal_numbers(memory->query, COUNT_OF(memory->query), 1);
    refusal_numbers(memory->key, COUNT_OF(memory->key), 2);
    refusal_numbers(memory->value, COUNT_OF(memory->value), 3);
    memcpy(memory->lengths, lengths, sizeof lengths);
    memcpy(memory->starts, starts, sizeof starts);
    memcpy(memory->page_table, tables[kind == KV_LISTED], sizeof tables[0]);
    memcpy(memory->page_starts, page_starts, sizeof page_starts);
    memcpy(memory->query_starts, query_starts, sizeof query_starts);
    refusal_fill(memory->output, sizeof memory->output);
    refusal_fill(memory->lse, sizeof memory->lse);
    refusal_fill(memory->weights, sizeof memory->weights);
}

/* What has query rows: batched with the batch axis, ragged without. */
static attn_tensor rows_view(const kv_fixture *fixture, float *data, int32_t rank,
                             int64_t columns) {
    const int64_t batched[] = {KV_N, KV_H, KV_L, columns};
    const int64_t ragged[] = {KV_H, KV_ROWS, columns};
    return fixture->is_ragged ? refusal_view(data, ATTN_DTYPE_FLOAT32, rank - 1, ragged)
                              : refusal_view(data, ATTN_DTYPE_FLOAT32, rank, batched);
}

static attn_tensor keys_view(kv_kind kind, float *data, int64_t features) {
    const int64_t shapes[][4] = {[KV_CACHES] = {KV_N, KV_H, KV_C, features},
                                 [KV_BEHIND] = {KV_H, KV_TOTAL, features},
                                 [KV_PAGED] = {KV_PAGES, KV_H, KV_PAGE, features},
                                 [KV_LISTED] = {KV_PAGES, KV_H, KV_PAGE, features}};
    return refusal_view(data, ATTN_DTYPE_FLOAT32, kind == KV_BEHIND ? 3 : 4, shapes[kind]);
}

static attn_tensor indices_view(int64_t *data, int32_t rank, int64_t first, int64_t second) {
    return refusal_view(data, ATTN_DTYPE_INT64, rank, (const int64_t[]){first, second});
}

static void make_views(kv_fixture *fixture) {
    kv_memory *memory = &fixture->memory;
    attn_tensor *views = fixture->views;
    const int64_t scores[] = {fixture->is_ragged ? KV_ROWS : KV_L, KV_C};
    views[KV_QUERY] = rows_view(fixture, memory->query, 4, KV_E);
    views[KV_KEY] = keys_view(fixture->kind, memory->key, KV_E);
    views[KV_VALUE] = keys_view(fixture->kind, memory->value, KV_EV);
    views[KV_OUTPUT] = rows_view(fixture, memory->output, 4, KV_EV);
    views[KV_LENGTHS] = indices_view(memory->lengths, 1, KV_N, 0);
    views[KV_PAGE_TABLE] = fixture->kind == KV_LISTED
                               ? indices_view(memory->page_table, 1, KV_ENTRIES, 0)
                               : indices_view(memory->page_table, 2, KV_N, KV_M);
    views[KV_PAGE_STARTS] = indices_view(memory->page_starts, 1, KV_N + 1, 0);
    views[KV_STARTS] = indices_view(memory->starts, 1, KV_N + 1, 0);
    views[KV_QUERY_STARTS] = indices_view(memory->query_starts, 1, KV_N + 1, 0);
    views[KV_PLAIN_KEY] = views[KV_KEY];
    views[KV_PLAIN_VALUE] = views[KV_VALUE];
    views[KV_KEY_LENGTHS] = views[KV_LENGTHS];
    views[KV_MASK] = refusal_view(memory->mask, ATTN_DTYPE_FLOAT32, 2, scores);
    views[KV_BIAS] = refusal_view(memory->bias, ATTN_DTYPE_FLOAT32, 2, scores);
    views[KV_LSE] = rows_view(fixture, memory->lse, 3, 0);
    views[KV_WEIGHTS] = rows_view(fixture, memory->weights, 4, KV_C);
    for (int i = 0; i < 4; ++i) {
        static const int64_t one[] = {1, 1, 1, 1};
        views[KV_KEY_SCALE + i] =
            refusal_view(&memory->numbers[i], ATTN_DTYPE_FLOAT32, views[KV_KEY].rank, one);
    }
}

void kv_fixture_prepare(kv_fixture *fixture, attn_context *context, kv_kind kind, bool is_ragged) {
    memset(fixture, 0, sizeof *fixture);
    fixture->context = context;
    fixture->kind = kind;
    fixture->is_ragged = is_ragged;
    fill_memory(&fixture->memory, kind);
    make_views(fixture);
    const bool is_given[KV_TENSORS] = {
        [KV_QUERY] = true,
        [KV_KEY] = true,
        [KV_VALUE] = true,
        [KV_OUTPUT] = true,
        [KV_LENGTHS] = true,
        [KV_PAGE_TABLE] = kind == KV_PAGED || kind == KV_LISTED,
        [KV_PAGE_STARTS] = kind == KV_LISTED,
        [KV_STARTS] = kind == KV_BEHIND,
        [KV_QUERY_STARTS] = is_ragged,
    };
    for (int i = 0; i < KV_TENSORS; ++i) {
        fixture->arguments[i] = is_given[i] ? &fixture->views[i] : NULL;
    }
    fixture->options.struct_size = sizeof fixture->options;
}

/* The structs that a call gets. */
typedef struct kv_structs {
    attn_kv kv;
    attn_sdpa_params params;
} kv_structs;

static void fill_structs(const kv_fixture *fixture, kv_structs *structs) {
    const attn_tensor *const *arguments = fixture->arguments;
    structs->kv = (attn_kv){
        .struct_size = fixture->kv_size != 0 ? fixture->kv_size : sizeof structs->kv,
        .key = arguments[KV_KEY],
        .value = arguments[KV_VALUE],
        .page_table = arguments[KV_PAGE_TABLE],
        .page_starts = arguments[KV_PAGE_STARTS],
        .starts = arguments[KV_STARTS],
        .lengths = arguments[KV_LENGTHS],
        .key_scale = arguments[KV_KEY_SCALE],
        .value_scale = arguments[KV_VALUE_SCALE],
        .key_zero = arguments[KV_KEY_ZERO],
        .value_zero = arguments[KV_VALUE_ZERO],
    };
    structs->params = fixture->options;
    structs->params.kv = &structs->kv;
    structs->params.query_starts = arguments[KV_QUERY_STARTS];
    structs->params.key_lengths = arguments[KV_KEY_LENGTHS];
    structs->params.mask = arguments[KV_MASK];
    structs->params.mask_kind = arguments[KV_MASK] == NULL ? ATTN_MASK_NONE
                                : arguments[KV_MASK]->dtype == ATTN_DTYPE_BOOL
                                    ? ATTN_MASK_BOOL_INCLUDE
                                    : ATTN_MASK_ADDITIVE;
    structs->params.bias = arguments[KV_BIAS];
    structs->params.lse = arguments[KV_LSE];
    structs->params.weights = arguments[KV_WEIGHTS];
}

attn_status kv_fixture_run(kv_fixture *fixture) {
    const attn_tensor *const *arguments = fixture->arguments;
    kv_structs structs;
    fill_structs(fixture, &structs);
    return attn_sdpa(fixture->context, arguments[KV_QUERY], arguments[KV_PLAIN_KEY],
                     arguments[KV_PLAIN_VALUE], &structs.params, arguments[KV_OUTPUT],
                     fixture->workspace, fixture->workspace_bytes);
}

attn_status kv_fixture_run_backward(kv_fixture *fixture, const attn_sdpa_gradients *gradients) {
    const attn_tensor *const *arguments = fixture->arguments;
    kv_structs structs;
    fill_structs(fixture, &structs);
    return attn_sdpa_backward(fixture->context, arguments[KV_QUERY], arguments[KV_PLAIN_KEY],
                              arguments[KV_PLAIN_VALUE], &structs.params, arguments[KV_OUTPUT],
                              gradients, fixture->workspace, fixture->workspace_bytes);
}

attn_status kv_fixture_workspace_bytes(kv_fixture *fixture, size_t *bytes) {
    const attn_tensor *const *arguments = fixture->arguments;
    kv_structs structs;
    fill_structs(fixture, &structs);
    return attn_sdpa_workspace_bytes(fixture->context, arguments[KV_QUERY], arguments[KV_PLAIN_KEY],
                                     arguments[KV_PLAIN_VALUE], &structs.params,
                                     arguments[KV_OUTPUT], bytes);
}

attn_status kv_fixture_explain(kv_fixture *fixture, attn_sdpa_report *report) {
    const attn_tensor *const *arguments = fixture->arguments;
    kv_structs structs;
    fill_structs(fixture, &structs);
    return attn_sdpa_explain(fixture->context, arguments[KV_QUERY], arguments[KV_PLAIN_KEY],
                             arguments[KV_PLAIN_VALUE], &structs.params, arguments[KV_OUTPUT],
                             report);
}

attn_status kv_fixture_describe_outputs(kv_fixture *fixture, attn_sdpa_outputs *outputs) {
    const attn_tensor *const *arguments = fixture->arguments;
    kv_structs structs;
    fill_structs(fixture, &structs);
    return attn_sdpa_describe_outputs(arguments[KV_QUERY], arguments[KV_PLAIN_KEY],
                                      arguments[KV_PLAIN_VALUE], &structs.params, outputs);
}

/* Which of the rows of key and value, all heads counted, is key `key` of a sequence. */
static int64_t place_of(const kv_fixture *fixture, int64_t sequence, int64_t head, int64_t key) {
    const kv_memory *memory = &fixture->memory;
    if (fixture->kind == KV_CACHES) {
        return (sequence * KV_H + head) * KV_C + key;
    }
    if (fixture->kind == KV_BEHIND) {
        return head * KV_TOTAL + memory->starts[sequence] + key;
    }
    const int64_t first =
        fixture->kind == KV_LISTED ? memory->page_starts[sequence] : sequence * KV_M;
    return (memory->page_table[first + key / KV_PAGE] * KV_H + head) * KV_PAGE + key % KV_PAGE;
}

/* output row = sum over j of exp(q . k_j / sqrt(E)) v_j, divided by the sum of the exponentials. */
static void attend_row(const kv_fixture *fixture, int64_t sequence, int64_t head, int64_t row,
                       double *output) {
    const kv_memory *memory = &fixture->memory;
    double sum = 0;
    memset(output, 0, KV_EV * sizeof *output);
    for (int64_t j = 0; j < memory->lengths[sequence]; ++j) {
        const int64_t place = place_of(fixture, sequence, head, j);
        double score = 0;
        for (int64_t d = 0; d < KV_E; ++d) {
            score += (double)memory->query[row * KV_E + d] * memory->key[place * KV_E + d];
        }
        const double weight = exp(score / sqrt(KV_E));
        sum += weight;
        for (int64_t d = 0; d < KV_EV; ++d) {
            output[d] += weight * memory->value[place * KV_EV + d];
        }
    }
    for (int64_t d = 0; d < KV_EV; ++d) {
        output[d] /= sum;
    }
}

void kv_fixture_assert_values(const kv_fixture *fixture) {
    const kv_memory *memory = &fixture->memory;
    const int64_t *starts = memory->query_starts;
    for (int64_t at = 0; at < KV_N * KV_H * KV_L; ++at) {
        double expected[KV_EV];
        const float *row = memory->output + at * KV_EV;
        int64_t sequence = at / (KV_H * KV_L), head = at / KV_L % KV_H;
        if (fixture->is_ragged) {
            head = at / KV_ROWS;
            sequence = at % KV_ROWS >= starts[1];
            if (at % KV_ROWS < starts[0] || at % KV_ROWS >= starts[2]) {
                refusal_assert_untouched("row of no sequence", row, KV_EV * sizeof *row);
                continue;
            }
        }
        attend_row(fixture, sequence, head, at, expected);
        refusal_assert_close("output", row, expected, KV_EV);
    }
}
