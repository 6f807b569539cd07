/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rms_norm.hpp: RMS normalisation of rows.
 */
#ifndef ATTENTION_RMS_NORM_HPP
#define ATTENTION_RMS_NORM_HPP

#include <attention/rms_norm.h>

#include <optional>

#include "context.hpp"
#include "tensor.hpp"

namespace attention {

/* attn_rms_norm_params; T is the type of input. */
template <class T> struct rms_norm_options {
    std::optional<keys_of<T>> weight; /* broadcastable to input's shape, mostly (E); none: 1 */
    double epsilon = 0;               /* 0: PyTorch's default */
    double weight_offset = 0;         /* added to weight: 1 where a model stores weight - 1 */
};

/* attn_rms_norm: input and output (..., E); output may be input. */
template <class T>
void rms_norm(const tensor<const T> &input, const result_of<T> &output,
              const rms_norm_options<T> &options = {}, const context *chosen = nullptr) {
    attn_rms_norm_params params{};
    params.struct_size = sizeof params;
    params.weight = detail::view_of(options.weight);
    params.epsilon = options.epsilon;
    params.weight_offset = options.weight_offset;
    check(attn_rms_norm(detail::handle_of(chosen), input.c_view(), &params, output.c_view()));
}

} // namespace attention

#endif
