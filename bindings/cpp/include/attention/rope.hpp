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

/* attn_rope: input and output (batch axes, H, L, E); output may be input. */
template <class T>
void rope(const tensor<const T> &input, const result_of<T> &output,
          const rope_options<T> &options = {}, const context *chosen = nullptr) {
    attn_rope_params params{};
    params.struct_size = sizeof params;
    params.rotary_dim = options.rotary_dim;
    params.base = options.base;
    params.magnitude = options.magnitude;
    params.interleaved = options.interleaved;
    params.inverse = options.inverse;
    params.frequencies = detail::view_of(options.frequencies);
    params.cos = detail::view_of(options.cos);
    params.sin = detail::view_of(options.sin);
    params.positions = detail::view_of(options.positions);
    params.lengths = detail::view_of(options.lengths);
    check(attn_rope(detail::handle_of(chosen), input.c_view(), &params, output.c_view()));
}

} // namespace attention

#endif
