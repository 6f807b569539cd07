/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fuzz_memory.h: what the memory of a fuzzed call may be: shared between inputs, which is allowed;
 * shared with an output, which is not; and structs that are longer than the library knows them. And
 * what must be true of a call that is refused.
 */
#ifndef FUZZ_MEMORY_H
#define FUZZ_MEMORY_H

#include <attention/sdpa.h>

#include "fuzz_cases.h"
#include "support/random_tensor.h"

/* An input of a fuzzer as the case it stands for, and the bytes that are left. */
typedef struct fuzz_input {
    fuzz_bytes bytes;
    const factor_set *set;
    factor_case chosen;
    uint64_t seed;
} fuzz_input;

/* The tensors of attn_sdpa_params, the last three are outputs. */
enum {
    OPTION_MASK,
    OPTION_BIAS,
    OPTION_QUERY_OFFSET,
    OPTION_KEY_LENGTHS,
    OPTION_ALIBI_SLOPES,
    OPTION_SINKS,
    OPTION_MASK_START,
    OPTION_POSITION_BIAS,
    OPTION_BLOCK_MASK,
    OPTION_LSE,
    OPTION_WEIGHTS,
    OPTION_SCORES,
    FUZZ_OPTIONS
};

/* Whether those options whose data are read before a plan turns out to be too large are where the
 * case has them: `options` are the copies. */
int fuzz_are_read_safely(const attn_sdpa_params *params, const attn_tensor *options);

/* Points the options at copies of themselves, which may be spoiled. */
void fuzz_own_options(attn_sdpa_params *params, attn_tensor *copies);

/* Makes `view` a part of `whole` with the shape of `part`: the axes from `first_shorter` on may be
 * shorter than those of `whole`, the ones before may not. 0 if there is no such part, or if it is
 * of another type. */
int fuzz_share(const attn_tensor *part, const attn_tensor *whole, int32_t first_shorter,
               attn_tensor *view);

/* The elements of `whole` that `part` has an index for. */
void fuzz_copy_part(const attn_tensor *part, const attn_tensor *whole);

/* Moves an output that the bytes choose to where it shares at least a byte with another of the
 * tensors: first come the outputs, all of which may be moved, then the inputs. Zeroed ones, which
 * the call does not have, and empty ones are left out. 0 if no two are left. */
int fuzz_overlap(fuzz_bytes *bytes, attn_tensor *const *tensors, int num_outputs, int num_tensors);

/* Where a workspace of `needed` bytes shares at least a byte with one of the tensors, often at its
 * own first or last one; NULL if there is no tensor. */
void *fuzz_workspace(fuzz_bytes *bytes, attn_tensor *const *tensors, int num_tensors,
                     size_t needed);

/* Makes one number of an attention's options odd, but for those of its tensors. */
void fuzz_spoil_options(fuzz_bytes *bytes, attn_sdpa_params *params);

/* One longer struct of each at a time. */
enum fuzz_place { PLACE_PARAMS, PLACE_ATTENTION, PLACE_CONFIG, NUM_PLACES };
enum { LONGEST_TAIL = 64 };

/* A copy of a struct that begins with struct_size, `more` bytes longer than it. The tail is zero
 * but for the byte `used`; -1: none. Behind it are less than 8 bytes that are not zero, which keep
 * the struct aligned, then a page that may not be touched. Valid until the place's next one. */
void *fuzz_lengthen(enum fuzz_place place, const void *known, size_t known_bytes, size_t more,
                    int used);

/* The length of a tail, and the byte of it that is used, half of the time none. */
size_t fuzz_tail(fuzz_bytes *bytes, int *used);

/* Ends the program unless a call with data ended as it was said to without: refused with the
 * status `asked`, or for what only data show, and nothing in the pool was written. */
void fuzz_check_refused(const fuzz_input *input, const tensor_pool *pool, attn_status asked,
                        attn_status got);

#endif
