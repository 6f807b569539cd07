/* SPDX-License-Identifier: BSD-3-Clause
 *
 * multihead.hpp: multi-head attention.
 */
#ifndef ATTENTION_MULTIHEAD_HPP
#define ATTENTION_MULTIHEAD_HPP

#include <attention/multihead.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "context.hpp"
#include "kv.hpp"
#include "rope.hpp"
#include "sdpa.hpp"
#include "tensor.hpp"

namespace attention {

/* attn_mha_config: zeros are PyTorch's defaults. */
struct multihead_config {
    std::int64_t embed_dim = 0, num_heads = 0;
    std::int64_t qdim = 0, kdim = 0, vdim = 0;
    std::int64_t head_dim = 0, value_head_dim = 0, num_kv_heads = 0;
    bool bias = true, add_bias_kv = false, add_zero_attn = false, batch_first = false;
    std::int32_t parameter_dtype = ATTN_DTYPE_INVALID; /* enum attn_dtype; else the layer's */
    std::int32_t qk_norm = ATTN_QK_NORM_NONE;          /* enum attn_qk_norm */
    double qk_norm_epsilon = 0, qk_norm_weight_offset = 0;
};

/* attn_mha_params: the layer's own mask, and the options of the attention inside. */
template <class T> struct forward_options {
    std::optional<mask> key_padding_mask; /* (N, S), unbatched (S) */
    attend_options<T> attention;          /* its weights (N, H, L, T), or (N, L, T): the mean */

    /* New keys and values are stored in it, at the end of the rows that its lengths count, and all
     * of it is attended to: (N, Hk, C, D), or in the other ways of kv_storage. */
    std::optional<kv_storage> cache;
    std::optional<rope_options<T>> rope; /* of projected queries and keys, before they are stored */
};

struct multihead_report {
    attn_mha_report layer; /* attention: nullptr */
    attn_sdpa_report attention;
};

namespace detail {

/* The structs of a call; one points to the others. */
template <class T> struct forward_params {
    attn_sdpa_params attention;
    attn_kv cache{};
    attn_rope_params rope{};
    attn_mha_params layer{};

    /* saved: where forward leaves what backward needs. */
    explicit forward_params(const forward_options<T> &options, void *saved = nullptr,
                            std::size_t saved_bytes = 0)
        : attention(params_of(options.attention)) {
        layer.struct_size = sizeof layer;
        layer.saved = saved;
        layer.saved_bytes = saved_bytes;
        layer.key_padding_mask = view_of(options.key_padding_mask);
        layer.key_padding_mask_kind =
            options.key_padding_mask ? options.key_padding_mask->kind() : ATTN_MASK_NONE;
        layer.attention = &attention;
        if (options.cache) {
            cache = kv_view_of(*options.cache);
            layer.cache = &cache;
        }
        if (options.rope) {
            rope = params_of(*options.rope);
            layer.rope = &rope;
        }
    }
    forward_params(const forward_params &) = delete;
    forward_params &operator=(const forward_params &) = delete;
};

} // namespace detail

/* nn.MultiheadAttention in evaluation mode, T its type. What is const may run at once; what is not
 * needs the layer alone. */
template <class T> class multihead {
    static_assert(is_half<T> || is_one_of<T, float, double>,
                  "a layer is of float, double, bfloat16 or float16");

  public:
    /* The layer's memory is the context's. */
    explicit multihead(const multihead_config &config, const context *chosen = nullptr) {
        attn_mha_config settings{};
        settings.struct_size = sizeof settings;
        settings.embed_dim = config.embed_dim;
        settings.num_heads = config.num_heads;
        settings.qdim = config.qdim;
        settings.kdim = config.kdim;
        settings.vdim = config.vdim;
        settings.head_dim = config.head_dim;
        settings.value_head_dim = config.value_head_dim;
        settings.num_kv_heads = config.num_kv_heads;
        settings.dtype = dtype_of<T>();
        settings.parameter_dtype = config.parameter_dtype;
        settings.no_bias = !config.bias;
        settings.add_bias_kv = config.add_bias_kv;
        settings.add_zero_attn = config.add_zero_attn;
        settings.batch_first = config.batch_first;
        settings.qk_norm = config.qk_norm;
        settings.qk_norm_epsilon = config.qk_norm_epsilon;
        settings.qk_norm_weight_offset = config.qk_norm_weight_offset;
        attn_mha *made = nullptr;
        check(attn_mha_create(detail::handle_of(chosen), &settings, &made));
        handle_.reset(made);
    }

    /* What the layer is, without zeros that stand for another size. */
    multihead_config config() const {
        attn_mha_config settings{};
        settings.struct_size = sizeof settings;
        check(attn_mha_describe(handle_.get(), &settings));
        multihead_config made;
        made.embed_dim = settings.embed_dim;
        made.num_heads = settings.num_heads;
        made.qdim = settings.qdim;
        made.kdim = settings.kdim;
        made.vdim = settings.vdim;
        made.head_dim = settings.head_dim;
        made.value_head_dim = settings.value_head_dim;
        made.num_kv_heads = settings.num_kv_heads;
        made.bias = settings.no_bias == 0;
        made.add_bias_kv = settings.add_bias_kv != 0;
        made.add_zero_attn = settings.add_zero_attn != 0;
        made.batch_first = settings.batch_first != 0;
        made.parameter_dtype = settings.parameter_dtype;
        made.qk_norm = settings.qk_norm;
        made.qk_norm_epsilon = settings.qk_norm_epsilon;
        made.qk_norm_weight_offset = settings.qk_norm_weight_offset;
        return made;
    }

    /* Names of the parameters as in PyTorch's state_dict, and their shapes. */
    std::vector<std::pair<std::string, sizes>> parameters() const {
        std::vector<std::pair<std::string, sizes>> found;
        std::int64_t count = 0;
        check(attn_mha_parameter_count(handle_.get(), &count));
        for (std::int64_t i = 0; i < count; ++i) {
            const char *name = nullptr;
            attn_tensor shape;
            check(attn_mha_parameter_describe(handle_.get(), i, &name, &shape));
            found.emplace_back(name, detail::shape_of(shape));
        }
        return found;
    }

    /* Copies a parameter in, converted to the type of the parameters. */
    void load(const std::string &name, const any_float_input &values,
              const context *chosen = nullptr) {
        check(attn_mha_load_parameter(detail::handle_of(chosen), handle_.get(), name.c_str(),
                                      values.c_view(), nullptr));
    }

    /* Uses the caller's memory, of the parameters' type, which must outlive the layer. */
    void bind(const std::string &name, const any_float_input &values) {
        check(attn_mha_bind_parameter(handle_.get(), name.c_str(), values.c_view()));
    }

    /* Copies a parameter out, as the parameters' type. */
    void read(const std::string &name, const any_float_result &values,
              const context *chosen = nullptr) const {
        check(attn_mha_read_parameter(detail::handle_of(chosen), handle_.get(), name.c_str(),
                                      values.c_view()));
    }

    /* Fresh random parameters. */
    void initialize(std::uint64_t seed, const context *chosen = nullptr) {
        attn_mha_init_params params{};
        params.struct_size = sizeof params;
        params.seed = seed;
        check(attn_mha_init_parameters(detail::handle_of(chosen), handle_.get(), &params));
    }

    void forward(const tensor<const T> &query, const tensor<const T> &key,
                 const tensor<const T> &value, const result_of<T> &output,
                 const forward_options<T> &options = {}, const context *chosen = nullptr) const {
        const detail::forward_params<T> params(options);
        check(attn_mha_forward(detail::handle_of(chosen), handle_.get(), query.c_view(),
                               key.c_view(), value.c_view(), &params.layer, output.c_view(),
                               nullptr, 0));
    }

    /* Reads options.cache alone: nothing is projected but query, and nothing stored. */
    void forward(const tensor<const T> &query, const result_of<T> &output,
                 const forward_options<T> &options, const context *chosen = nullptr) const {
        const detail::forward_params<T> params(options);
        check(attn_mha_forward(detail::handle_of(chosen), handle_.get(), query.c_view(), nullptr,
                               nullptr, &params.layer, output.c_view(), nullptr, 0));
    }

    /* For whoever allocates the outputs of forward; the options' own outputs are not looked at. */
    output_shapes describe_outputs(const tensor<const T> &query, const tensor<const T> &key,
                                   const tensor<const T> &value,
                                   const forward_options<T> &options = {}) const {
        const detail::forward_params<T> params(options);
        attn_mha_outputs outputs{};
        outputs.struct_size = sizeof outputs;
        check(attn_mha_describe_outputs(handle_.get(), query.c_view(), key.c_view(), value.c_view(),
                                        &params.layer, &outputs));
        return detail::shapes_of(outputs);
    }

    /* What forward would run for the same arguments, and why. */
    multihead_report explain(const tensor<const T> &query, const tensor<const T> &key,
                             const tensor<const T> &value, const result_of<T> &output,
                             const forward_options<T> &options = {},
                             const context *chosen = nullptr) const {
        const detail::forward_params<T> params(options);
        multihead_report report{};
        report.attention.struct_size = sizeof report.attention;
        report.layer.struct_size = sizeof report.layer;
        report.layer.attention = &report.attention;
        check(attn_mha_explain(detail::handle_of(chosen), handle_.get(), query.c_view(),
                               key.c_view(), value.c_view(), &params.layer, output.c_view(),
                               &report.layer));
        report.layer.attention = nullptr;
        return report;
    }

    const attn_mha *c_handle() const noexcept {
        return handle_.get();
    }

  private:
    struct destroy {
        void operator()(attn_mha *handle) const noexcept {
            attn_mha_destroy(handle);
        }
    };
    std::unique_ptr<attn_mha, destroy> handle_;
};

} // namespace attention

#endif
