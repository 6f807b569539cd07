/* SPDX-License-Identifier: BSD-3-Clause
 *
 * multihead_backward.hpp: the gradients of a multi-head attention layer.
 */
#ifndef ATTENTION_MULTIHEAD_BACKWARD_HPP
#define ATTENTION_MULTIHEAD_BACKWARD_HPP

#include <attention/multihead_backward.h>

#include <cstddef>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "backward.hpp"
#include "context.hpp"
#include "multihead.hpp"
#include "tensor.hpp"

namespace attention {

/* attn_mha_gradients but output's; T is the layer's type. A gradient has the shape of what it is of. */
template <class T> struct multihead_gradients {
    bool accumulate = false; /* what is wanted is added to what is there */

    std::optional<result_of<T>> query, key, value;      /* out, which may not overlap */
    std::map<std::string, any_float_result> parameters; /* out, by PyTorch's names */

    /* Of the attention inside: given are lse's and weights', out are those of its options. Its query,
     * key, value and accumulate stay as they are: those above count. */
    attend_gradients<T> attention;
};

/* A call of multihead<T>::forward and what its gradients need of it: memory of its own and views of the
 * arguments. Until the last call of backward the layer and what the views show are there, and as they
 * were. */
template <class T> class saved_forward {
  public:
    /* Attends, as forward does with these arguments. */
    saved_forward(const multihead<T> &layer, const tensor<const T> &query,
                  const tensor<const T> &key, const tensor<const T> &value,
                  const result_of<T> &output, const forward_options<T> &options = {},
                  const context *chosen = nullptr)
        : layer_(layer.c_handle()), query_(query), key_(key), value_(value), options_(options) {
        std::size_t bytes = 0;
        const detail::forward_params<T> asked(options_);
        check(attn_mha_saved_bytes(detail::handle_of(chosen), layer_, query_.c_view(),
                                   key_.c_view(), value_.c_view(), &asked.layer, &bytes));
        memory_.reset(::operator new(bytes, alignment));
        bytes_ = bytes;
        const detail::forward_params<T> params(options_, memory_.get(), bytes_);
        check(attn_mha_forward(detail::handle_of(chosen), layer_, query_.c_view(), key_.c_view(),
                               value_.c_view(), &params.layer, output.c_view(), nullptr, 0));
    }

    /* attn_mha_backward: `gradient` is output's. May run at once with others. */
    void backward(const float_input<T> &gradient, const multihead_gradients<T> &wanted,
                  const context *chosen = nullptr) const {
        const detail::forward_params<T> params(options_, memory_.get(), bytes_);
        const std::vector<attn_tensor> parameters = parameters_of(wanted);
        const attn_sdpa_gradients attention = detail::gradients_of(nullptr, wanted.attention);
        attn_mha_gradients gradients{};
        gradients.struct_size = sizeof gradients;
        gradients.accumulate = wanted.accumulate;
        gradients.output = gradient.c_view();
        gradients.query = detail::view_of(wanted.query);
        gradients.key = detail::view_of(wanted.key);
        gradients.value = detail::view_of(wanted.value);
        gradients.parameters = parameters.data();
        gradients.num_parameters = static_cast<std::int64_t>(parameters.size());
        gradients.attention = &attention;
        check(attn_mha_backward(detail::handle_of(chosen), layer_, query_.c_view(), key_.c_view(),
                                value_.c_view(), &params.layer, &gradients, nullptr, 0));
    }

  private:
    static constexpr std::align_val_t alignment{64};

    struct free_aligned {
        void operator()(void *memory) const noexcept {
            ::operator delete(memory, alignment);
        }
    };

    /* In the layer's order; without data where none is wanted. */
    std::vector<attn_tensor> parameters_of(const multihead_gradients<T> &wanted) const {
        std::int64_t count = 0;
        check(attn_mha_parameter_count(layer_, &count));
        std::vector<attn_tensor> views(static_cast<std::size_t>(count));
        auto left = wanted.parameters;
        for (std::size_t i = 0; i < views.size(); ++i) {
            const char *name = nullptr;
            check(attn_mha_parameter_describe(layer_, static_cast<std::int64_t>(i), &name,
                                              &views[i]));
            if (const auto taken = left.extract(name)) {
                views[i] = *taken.mapped().c_view();
            }
        }
        if (!left.empty()) {
            const std::string line =
                "gradients." + left.begin()->first + ": expected a parameter of the layer";
            check(attn_error_set(ATTN_ERROR_PARAMETER, line.c_str()));
        }
        return views;
    }

    const attn_mha *layer_;
    tensor<const T> query_, key_, value_;
    forward_options<T> options_;
    std::unique_ptr<void, free_aligned> memory_;
    std::size_t bytes_ = 0;
};

} // namespace attention

#endif
