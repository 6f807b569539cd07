/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fuzz_memory.c: see fuzz_memory.h.
 */
#include "fuzz_memory.h"

#include <stdio.h>
#include <string.h>

#include "support/guard_pages.h"
#include "support/oracle_tensor.h"

enum { MOST_TENSORS = 40 };

void fuzz_own_options(attn_sdpa_params *params, attn_tensor *copies) {
    const attn_tensor **fields[FUZZ_OPTIONS] = {[OPTION_MASK] = &params->mask,
                                                [OPTION_BIAS] = &params->bias,
                                                [OPTION_QUERY_OFFSET] = &params->query_offset,
                                                [OPTION_KEY_LENGTHS] = &params->key_lengths,
                                                [OPTION_ALIBI_SLOPES] = &params->alibi_slopes,
                                                [OPTION_SINKS] = &params->sinks,
                                                [OPTION_MASK_START] = &params->mask_start,
                                                [OPTION_POSITION_BIAS] = &params->position_bias,
                                                [OPTION_BLOCK_MASK] = &params->block_mask,
                                                [OPTION_LSE] = &params->lse,
                                                [OPTION_WEIGHTS] = &params->weights,
                                                [OPTION_SCORES] = &params->scores};
    for (int i = 0; i < FUZZ_OPTIONS; ++i) {
        if (*fields[i] != NULL) {
            copies[i] = **fields[i];
            *fields[i] = &copies[i];
        }
    }
}

static int is_unspoiled(const attn_tensor *given, const attn_tensor *copy) {
    return given == NULL || memcmp(given, copy, sizeof *given) == 0;
}

int fuzz_are_read_safely(const attn_sdpa_params *params, const attn_tensor *options) {
    return is_unspoiled(params->key_lengths, &options[OPTION_KEY_LENGTHS]) &&
           is_unspoiled(params->block_mask, &options[OPTION_BLOCK_MASK]);
}

int fuzz_share(const attn_tensor *part, const attn_tensor *whole, int32_t first_shorter,
               attn_tensor *view) {
    if (part->dtype != whole->dtype || part->rank != whole->rank ||
        oracle_count(part->rank, part->shape) == 0) {
        return 0;
    }
    for (int32_t axis = 0; axis < part->rank; ++axis) {
        if (part->shape[axis] > whole->shape[axis] ||
            (part->shape[axis] < whole->shape[axis] && axis < first_shorter)) {
            return 0;
        }
    }
    *view = *whole;
    memcpy(view->shape, part->shape, sizeof view->shape);
    return 1;
}

void fuzz_copy_part(const attn_tensor *part, const attn_tensor *whole) {
    int64_t index[ATTN_MAX_RANK] = {0};
    if (oracle_count(part->rank, part->shape) == 0) {
        return;
    }
    do {
        oracle_store(part, index, oracle_element(whole, index));
    } while (oracle_next_index(part->rank, part->shape, index));
}

/* An element of the tensor. */
static uintptr_t choose_element(fuzz_bytes *bytes, const attn_tensor *tensor) {
    int64_t index[ATTN_MAX_RANK] = {0};
    for (int steps = fuzz_byte(bytes); steps > 0; --steps) {
        oracle_next_index(tensor->rank, tensor->shape, index);
    }
    return (uintptr_t)oracle_address(tensor, index);
}

/* The tensors that the call has and that are not empty, in `present`; how many of the first
 * num_outputs are among them into *num_movable. */
static int find_present(attn_tensor *const *tensors, int num_tensors, attn_tensor **present,
                        int num_outputs, int *num_movable) {
    int count = 0;
    *num_movable = 0;
    for (int i = 0; i < num_tensors; ++i) {
        const attn_tensor *tensor = tensors[i];
        if (tensor->dtype != ATTN_DTYPE_INVALID && oracle_count(tensor->rank, tensor->shape) > 0) {
            present[count++] = tensors[i];
            *num_movable += i < num_outputs;
        }
    }
    return count;
}

int fuzz_overlap(fuzz_bytes *bytes, attn_tensor *const *tensors, int num_outputs, int num_tensors) {
    attn_tensor *present[MOST_TENSORS];
    int num_movable;
    const int count = find_present(tensors, num_tensors, present, num_outputs, &num_movable);
    if (num_movable == 0 || count < 2) {
        return 0;
    }
    const int moved = fuzz_byte(bytes) % num_movable;
    const int other = (moved + 1 + fuzz_byte(bytes) % (count - 1)) % count;
    const uintptr_t from = choose_element(bytes, present[moved]);
    const uintptr_t to = choose_element(bytes, present[other]);
    /* From its last byte on the other's first one to its first byte on the other's last one. */
    const size_t before = attn_dtype_size_bytes(present[moved]->dtype) - 1;
    const size_t after = attn_dtype_size_bytes(present[other]->dtype) - 1;
    const size_t shift = fuzz_byte(bytes) % (before + after + 1);
    present[moved]->data = (void *)((uintptr_t)present[moved]->data + (to - from) - before + shift);
    return 1;
}

void *fuzz_workspace(fuzz_bytes *bytes, attn_tensor *const *tensors, int num_tensors,
                     size_t needed) {
    attn_tensor *present[MOST_TENSORS];
    int num_movable;
    const int count = find_present(tensors, num_tensors, present, 0, &num_movable);
    if (count == 0) {
        return NULL;
    }
    const attn_tensor *on = present[fuzz_byte(bytes) % count];
    const uintptr_t element = choose_element(bytes, on);
    const uintptr_t shared = element + fuzz_byte(bytes) % attn_dtype_size_bytes(on->dtype);
    const size_t places[] = {0, needed - 1, fuzz_word(bytes) % needed};
    return (void *)(shared - places[fuzz_byte(bytes) % 3]);
}

/* Dropout that a call has, or a quarter, with one number odd; until the next one. No struct
 * says that it is longer than it is. */
static const attn_dropout *odd_dropout(fuzz_bytes *bytes, const attn_dropout *given) {
    static attn_dropout odd;
    int64_t *const places[] = {&odd.batch, &odd.head, &odd.row, &odd.column};
    odd = given != NULL ? *given : (attn_dropout){.struct_size = sizeof odd, .probability = 0.25};
    const int what = fuzz_byte(bytes) % 6;
    if (what < 4) {
        *places[what] = fuzz_odd_number(bytes);
    } else if (what == 4) {
        odd.probability = (double)fuzz_odd_number(bytes) / 4;
    } else {
        odd.struct_size = fuzz_word(bytes) % (sizeof odd + 1);
    }
    return &odd;
}

void fuzz_spoil_options(fuzz_bytes *bytes, attn_sdpa_params *params) {
    int32_t *const numbers[] = {&params->mask_kind,  &params->normalizer, &params->is_causal,
                                &params->enable_gqa, &params->align_end,  &params->scores_stage,
                                &params->reserved};
    const int what = fuzz_byte(bytes) % 14;
    if (what < 7) {
        *numbers[what] = (int32_t)fuzz_odd_number(bytes);
    } else if (what == 7) {
        params->set ^= (int32_t)(UINT32_C(1) << fuzz_byte(bytes) % 32);
    } else if (what == 8) {
        params->window_left = fuzz_odd_number(bytes);
    } else if (what == 9) {
        params->window_right = fuzz_odd_number(bytes);
    } else if (what == 10) {
        params->block_rows = fuzz_odd_number(bytes);
    } else if (what == 11) {
        params->block_columns = fuzz_odd_number(bytes);
    } else if (what == 12) {
        params->dropout = odd_dropout(bytes, params->dropout);
    } else {
        params->softcap = (double)fuzz_odd_number(bytes);
    }
}

void *fuzz_lengthen(enum fuzz_place place, const void *known, size_t known_bytes, size_t more,
                    int used) {
    enum { ALIGNMENT = 8, NOT_ZERO = 0xff, OPTION = 0x80 };
    static guard_pages places[NUM_PLACES];
    const uint64_t struct_size = known_bytes + more;
    const size_t aligned = (struct_size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (places[place].bytes == NULL) {
        places[place] = guard_pages_map(1);
    }
    unsigned char *given = guard_pages_last(&places[place], aligned);
    memset(given, 0, struct_size);
    memset(given + struct_size, NOT_ZERO, aligned - struct_size);
    memcpy(given, known, known_bytes);
    memcpy(given, &struct_size, sizeof struct_size);
    if (used >= 0) {
        given[known_bytes + (size_t)used % more] = OPTION;
    }
    return given;
}

size_t fuzz_tail(fuzz_bytes *bytes, int *used) {
    const size_t more = 1 + fuzz_byte(bytes) % LONGEST_TAIL;
    const int byte = fuzz_byte(bytes);
    *used = byte % 2 == 0 ? -1 : byte / 2;
    return more;
}

/* Empty tensors have no data, nor have they when they are spoiled. */
static int has_null(const tensor_pool *pool) {
    for (int t = 0; t < pool->count; ++t) {
        if (pool->tensors[t].bytes == 0) {
            return 1;
        }
    }
    return 0;
}

/* What only data show: that there is none; and, before a plan turns out to be too large, lengths
 * that are out of range and views so long that they meet. */
static int only_data_show(const tensor_pool *pool, attn_status asked, attn_status got) {
    return (got == ATTN_ERROR_NULL && has_null(pool)) ||
           (asked == ATTN_ERROR_OVERFLOW && (got == ATTN_ERROR_VALUE || got == ATTN_ERROR_OVERLAP));
}

void fuzz_check_refused(const fuzz_input *input, const tensor_pool *pool, attn_status asked,
                        attn_status got) {
    char message[600];
    if (got != asked && !only_data_show(pool, asked, got)) {
        snprintf(message, sizeof message, "a call with data: expected %s, got %s: %s",
                 attn_status_name(asked), attn_status_name(got), attn_last_error());
        fuzz_fail(input->set, &input->chosen, input->seed, message);
    }
    if (attn_last_error()[0] == '\0') {
        fuzz_fail(input->set, &input->chosen, input->seed, "a call was refused without a line");
    }
    if (pool_check_untouched(pool, message, sizeof message)) {
        fuzz_fail(input->set, &input->chosen, input->seed, message);
    }
}
