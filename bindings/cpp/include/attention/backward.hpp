/* SPDX-License-Identifier: BSD-3-Clause
 *
 * backward.hpp: the gradients of scaled dot-product attention.
 */
#ifndef ATTENTION_BACKWARD_HPP
#define ATTENTION_BACKWARD_HPP

#include <attention/backward.h>

#include <optional>

#include "context.hpp"
#include "sdpa.hpp"
#include "tensor.hpp"

namespace attention {

/* Where the gradients of keys and values, and those of options beside them, are stored. */
template <class T>
using key_gradient_of =
    std::conditional_t<is_one_of<T, double>, tensor<double>, with_halves<result, float>>;
template <class T> using option_gradient_of = result<T, float>;

/* attn_sdpa_gradients but output's; T is the type of query. A gradient has the shape of what it is
 * of. */
template <class T> struct attend_gradients {
    bool accumulate = false; /* what is wanted is added to what is there */

    std::optional<tensor<const score_of<T>>> lse; /* given; softmax only */
    std::optional<float_input<T>> weights;        /* given: of those that the call returned */

    std::optional<result_of<T>> query; /* out, and so are all others */
    std::optional<key_gradient_of<T>> key, value;
    std::optional<option_gradient_of<T>> mask, bias, position_bias, alibi_slopes, sinks;
};

namespace detail {

template <class T>
attn_sdpa_gradients gradients_of(const attn_tensor *gradient, const attend_gradients<T> &wanted) {
    attn_sdpa_gradients gradients{};
    gradients.struct_size = sizeof gradients;
    gradients.accumulate = wanted.accumulate;
    gradients.output = gradient;
    gradients.lse = view_of(wanted.lse);
    gradients.weights = view_of(wanted.weights);
    gradients.query = view_of(wanted.query);
    gradients.key = view_of(wanted.key);
    gradients.value = view_of(wanted.value);
    gradients.mask = view_of(wanted.mask);
    gradients.bias = view_of(wanted.bias);
    gradients.position_bias = view_of(wanted.position_bias);
    gradients.alibi_slopes = view_of(wanted.alibi_slopes);
    gradients.sinks = view_of(wanted.sinks);
    return gradients;
}

} // namespace detail

/* attn_sdpa_backward: `output` and, for softmax, `options.lse` are what attend wrote, with these
 * arguments and options; `gradient` is output's. */
template <class T>
void attend_backward(const tensor<const T> &query, const keys_of<T> &key, const keys_of<T> &value,
                     const float_input<T> &output, const float_input<T> &gradient,
                     const attend_gradients<T> &wanted, const attend_options<T> &options = {},
                     const context *chosen = nullptr) {
    const attn_sdpa_params params = detail::params_of(options);
    const attn_sdpa_gradients gradients = detail::gradients_of(gradient.c_view(), wanted);
    check(attn_sdpa_backward(detail::handle_of(chosen), query.c_view(), key.c_view(),
                             value.c_view(), &params, output.c_view(), &gradients, nullptr, 0));
}

/* The same with keys and values in a cache or ragged, where their gradients lie likewise. */
template <class T>
void attend_backward(const tensor<const T> &query, const kv_of<T> &kv, const float_input<T> &output,
                     const float_input<T> &gradient, const attend_gradients<T> &wanted,
                     const attend_options<T> &options = {}, const context *chosen = nullptr) {
    const detail::kv_params<T> call(kv, options);
    const attn_sdpa_gradients gradients = detail::gradients_of(gradient.c_view(), wanted);
    check(attn_sdpa_backward(detail::handle_of(chosen), query.c_view(), nullptr, nullptr,
                             &call.params, output.c_view(), &gradients, nullptr, 0));
}

/* What attend_backward would run for the same arguments, and why. */
template <class T>
attn_sdpa_backward_report
explain_backward(const tensor<const T> &query, const keys_of<T> &key, const keys_of<T> &value,
                 const float_input<T> &output, const float_input<T> &gradient,
                 const attend_gradients<T> &wanted, const attend_options<T> &options = {},
                 const context *chosen = nullptr) {
    const attn_sdpa_params params = detail::params_of(options);
    const attn_sdpa_gradients gradients = detail::gradients_of(gradient.c_view(), wanted);
    attn_sdpa_backward_report report{};
    report.struct_size = sizeof report;
    check(attn_sdpa_backward_explain(detail::handle_of(chosen), query.c_view(), key.c_view(),
                                     value.c_view(), &params, output.c_view(), &gradients,
                                     &report));
    return report;
}

template <class T>
attn_sdpa_backward_report
explain_backward(const tensor<const T> &query, const kv_of<T> &kv, const float_input<T> &output,
                 const float_input<T> &gradient, const attend_gradients<T> &wanted,
                 const attend_options<T> &options = {}, const context *chosen = nullptr) {
    const detail::kv_params<T> call(kv, options);
    const attn_sdpa_gradients gradients = detail::gradients_of(gradient.c_view(), wanted);
    attn_sdpa_backward_report report{};
    report.struct_size = sizeof report;
    check(attn_sdpa_backward_explain(detail::handle_of(chosen), query.c_view(), nullptr, nullptr,
                                     &call.params, output.c_view(), &gradients, &report));
    return report;
}

} // namespace attention

#endif
