/* SPDX-License-Identifier: BSD-3-Clause
 *
 * attention.hpp: libattention in C++17. Headers over the C interface, which is the manual: what a
 * function computes, its shapes and its numerics stand in attention/sdpa.h and multihead.h.
 *
 *   attention/tensor.hpp      tensor<T>: a view of memory somebody else owns, tensor<const T> for
 *                             what is only read; mask; error: thrown for every status but ATTN_OK
 *   attention/context.hpp     context: threads, memory, engine and kernels; selftest
 *   attention/kv.hpp          kv_of, kv_storage: caches, ragged or paged; kv_append: into them
 *   attention/sdpa.hpp        attend: scaled dot-product attention
 *   attention/backward.hpp    attend_backward: its gradients
 *   attention/kv_cache.hpp    kv_cache: a cache that has its own memory
 *   attention/merge.hpp       merge: attention over keys that were attended in parts
 *   attention/rope.hpp        rope: rotary positions
 *   attention/rms_norm.hpp    rms_norm: normalised queries and keys
 *   attention/multihead.hpp   multihead: a layer of sizes and parameters
 *   attention/multihead_backward.hpp   saved_forward: its gradients
 */
#ifndef ATTENTION_HPP
#define ATTENTION_HPP

#include "attention/backward.hpp"
#include "attention/context.hpp"
#include "attention/float16.hpp"
#include "attention/kv.hpp"
#include "attention/kv_cache.hpp"
#include "attention/merge.hpp"
#include "attention/multihead.hpp"
#include "attention/multihead_backward.hpp"
#include "attention/rms_norm.hpp"
#include "attention/rope.hpp"
#include "attention/sdpa.hpp"
#include "attention/tensor.hpp"

#endif
