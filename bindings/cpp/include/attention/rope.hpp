/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rope.hpp: rotary positions of queries and keys.
 */
#ifndef ATTENTION_ROPE_HPP
#define ATTENTION_ROPE_HPP

#include <attention/rope.h>

#include <cstdint>
#include <optional>

#include "context.hpp"
#include "tensor.hpp"

namespace attention {

/* attn_rope_params; T is the type of input. */
template <class T> struct rope_options {
    std::int64_t rotary_dim = 0; /* so many features are rotated; 0: all */
    double base = 0;             /* 0: 10000 */
    double magnitude = 0;        /* 0: 1 */
    bool interleaved = false;    /* pairs are features (2 i, 2 i + 1) instead of halves */
    bool inverse = false;        /* by the negative angle */

    std::optional<any_float_input> frequencies; /* (R / 2): the turns, instead of base */
    std::optional<keys_of<T>> cos, sin;         /* instead of base and frequencies */

    std::optional<index_input> positions; /* broadcastable to (batch axes, L) */
    std::optional<index_input> lengths;   /* over the batch axes: rows, those of input the last */
};

namespace detail {

/* Points to the tensors of `options`. */
template <class T> attn_rope_params params_of(const rope_options<T> &options) {
    attn_rope_params params{};
    params.struct_size = sizeof params;
    params.rotary_dim = options.rotary_dim;
    params.base = options.base;
    params.magnitude = options.magnitude;
    params.interleaved = options.interleaved;
    params.inverse = options.inverse;
    params.frequencies = view_of(options.frequencies);
    params.cos = view_of(options.cos);
    params.sin = view_of(options.sin);
    params.positions = view_of(options.positions);
    params.lengths = view_of(options.lengths);
    return params;
}

} // namespace detail

/* attn_rope: input and output (batch axes, H, L, E); output may be input. */
template <class T>
void rope(const tensor<const T> &input, const result_of<T> &output,
          const rope_options<T> &options = {}, const context *chosen = nullptr) {
    const attn_rope_params params = detail::params_of(options);
    check(attn_rope(detail::handle_of(chosen), input.c_view(), &params, output.c_view()));
}

} // namespace attention

#endif
