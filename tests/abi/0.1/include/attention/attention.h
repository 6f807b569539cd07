/* SPDX-License-Identifier: BSD-3-Clause
 *
 * attention.h: everything, and a one-page tour. It declares nothing of its own.
 *
 *   status.h      every call returns a status; attn_last_error() says in one line what was wrong
 *   tensor.h      attn_tensor: a view of your memory; nothing is owned or copied
 *   context.h     threads, memory, kernels; NULL means the defaults
 *   softmax.h     mask kinds and the masked row softmax
 *   rms_norm.h    attn_rms_norm: normalisation of queries and keys
 *   rope.h        attn_rope: rotary positions of queries and keys
 *   kv.h          attn_kv: where keys and values of sequences lie; attn_kv_append
 *   sdpa.h        attn_sdpa: attention on query, key, value
 *   backward.h    attn_sdpa_backward: the gradients of attention
 *   merge.h       attn_sdpa_merge: attention over keys that were attended in parts
 *   multihead.h   attn_mha: torch.nn.MultiheadAttention and its generalisations
 *   multihead_backward.h  attn_mha_backward: the gradients of such a layer
 *   selftest.h    attn_selftest: whether this machine and its BLAS compute what they should
 *   version.h     which version this is
 *
 * The shortest program that attends (one head, 2 queries over 3 keys of 4 features):
 *
 *     float q[2][4] = {...}, k[3][4] = {...}, v[3][4] = {...}, out[2][4];
 *     attn_tensor query, key, value, output;
 *     int64_t query_shape[] = {2, 4}, key_shape[] = {3, 4};
 *     if (attn_tensor_init(&query, q, ATTN_DTYPE_FLOAT32, 2, query_shape)
 *         || attn_tensor_init(&key, k, ATTN_DTYPE_FLOAT32, 2, key_shape)
 *         || attn_tensor_init(&value, v, ATTN_DTYPE_FLOAT32, 2, key_shape)
 *         || attn_tensor_init(&output, out, ATTN_DTYPE_FLOAT32, 2, query_shape)
 *         || attn_sdpa(NULL, &query, &key, &value, NULL, &output, NULL, 0))
 *         fprintf(stderr, "%s\n", attn_last_error());
 *
 * Options go into a zeroed struct whose first field is its size:
 *
 *     attn_sdpa_params params = {.struct_size = sizeof params, .is_causal = 1};
 *
 * Rules that hold everywhere. Counts and strides are elements (int64_t), sizes in bytes end in
 * _bytes. Enums and booleans (0 or 1) travel as int32_t. A zeroed option is PyTorch's default. A
 * struct_size of 0, below the first release's or above 4096 is an error (ATTN_ERROR_VALUE). A
 * smaller struct than this version's leaves the newer options at their defaults. A larger one is
 * accepted if what this version does not know is zero, else ATTN_ERROR_UNSUPPORTED; in a struct
 * that the library fills it becomes zero. A bit, enum value, boolean, dtype or reserved field above
 * what this version knows is ATTN_ERROR_UNSUPPORTED too, so that a program built for a later
 * release can tell it from a mistake (negative values, contradictions: ATTN_ERROR_VALUE);
 * attn_sdpa_explain and attn_mha_explain ask without running. Memory the library returns is freed
 * by attn_*_destroy only.
 */
#ifndef ATTENTION_ATTENTION_H
#define ATTENTION_ATTENTION_H

#include <attention/backward.h>
#include <attention/context.h>
#include <attention/export.h>
#include <attention/kv.h>
#include <attention/merge.h>
#include <attention/multihead.h>
#include <attention/multihead_backward.h>
#include <attention/rms_norm.h>
#include <attention/rope.h>
#include <attention/sdpa.h>
#include <attention/selftest.h>
#include <attention/softmax.h>
#include <attention/status.h>
#include <attention/tensor.h>
#include <attention/version.h>

#endif
