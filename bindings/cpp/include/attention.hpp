/* SPDX-License-Identifier: BSD-3-Clause
 *
 * attention.hpp: libattention in C++17. A header over the C interface, which is the manual: what a
 * function computes, its shapes and its numerics stand in attention/sdpa.h and multihead.h.
 *
 *   tensor<T>    a view of memory somebody else owns; tensor<const T> for what is only read
 *   context      threads, engine and kernels
 *   attend       scaled dot-product attention
 *   multihead    a layer: sizes and parameters
 *   error        what is thrown for every status but ATTN_OK
 */
#ifndef ATTENTION_HPP
#define ATTENTION_HPP

#include <attention/attention.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace attention {

/* One line that names the argument, what was expected and what was found; `code` is the status. */
class error : public std::runtime_error {
  public:
    explicit error(attn_status status) : std::runtime_error(attn_last_error()), code_(status) {
    }

    attn_status code() const noexcept {
        return code_;
    }
    const char *name() const noexcept {
        return attn_status_name(code_);
    }

  private:
    attn_status code_;
};

/* Throws unless the status is ATTN_OK. */
inline void check(attn_status status) {
    if (status != ATTN_OK) {
        throw error(status);
    }
}

/* ---- tensors ---- */

template <class T> constexpr std::int32_t dtype_of() {
    using element = std::remove_const_t<T>;
    static_assert(std::is_same_v<element, float> || std::is_same_v<element, double> ||
                      std::is_same_v<element, bool> || std::is_same_v<element, std::int64_t>,
                  "elements are float, double, bool or std::int64_t");
    static_assert(sizeof(bool) == 1, "a bool is a byte");
    if constexpr (std::is_same_v<element, float>) {
        return ATTN_DTYPE_FLOAT32;
    } else if constexpr (std::is_same_v<element, double>) {
        return ATTN_DTYPE_FLOAT64;
    } else if constexpr (std::is_same_v<element, bool>) {
        return ATTN_DTYPE_BOOL;
    } else {
        return ATTN_DTYPE_INT64;
    }
}

/* A view: address, shape, strides in elements. Copying one copies no element. */
template <class T> class tensor {
  public:
    using sizes = std::vector<std::int64_t>;

    /* Contiguous memory, last axis fastest. */
    tensor(T *data, const sizes &shape) {
        check(attn_tensor_init(&view_, address_of(data), dtype_of<T>(), rank_of(shape),
                               shape.data()));
    }

    /* Any layout. */
    tensor(T *data, const sizes &shape, const sizes &strides) {
        if (shape.size() != strides.size()) {
            throw std::invalid_argument("tensor: expected as many strides as axes");
        }
        check(attn_tensor_init_strided(&view_, address_of(data), dtype_of<T>(), rank_of(shape),
                                       shape.data(), strides.data()));
    }

    /* What may be written may be read. */
    template <class U, class = std::enable_if_t<std::is_same_v<T, const U>>>
    tensor(const tensor<U> &other) : view_(*other.c_view()) {
    }

    tensor transposed(std::int32_t axis_a, std::int32_t axis_b) const {
        tensor made = *this;
        check(attn_tensor_transpose(&view_, axis_a, axis_b, &made.view_));
        return made;
    }

    tensor sliced(std::int32_t axis, std::int64_t start, std::int64_t length,
                  std::int64_t step = 1) const {
        tensor made = *this;
        check(attn_tensor_slice(&view_, axis, start, length, step, &made.view_));
        return made;
    }

    /* (..., L, num_heads * head_dim) as (..., num_heads, L, head_dim). */
    tensor split_heads(std::int64_t num_heads) const {
        tensor made = *this;
        check(attn_tensor_split_heads(&view_, num_heads, &made.view_));
        return made;
    }

    std::int32_t rank() const noexcept {
        return view_.rank;
    }
    std::int64_t size(std::int32_t axis) const {
        return view_.shape[axis < 0 ? axis + view_.rank : axis];
    }
    std::int64_t count() const {
        std::int64_t elements = 0;
        check(attn_tensor_count(&view_, &elements));
        return elements;
    }
    T *data() const noexcept {
        return static_cast<T *>(view_.data);
    }
    const attn_tensor *c_view() const noexcept {
        return &view_;
    }

  private:
    /* The C interface has one type of view; it writes through outputs only. */
    static void *address_of(T *data) {
        return const_cast<void *>(static_cast<const void *>(data));
    }
    static std::int32_t rank_of(const sizes &shape) {
        return shape.size() > ATTN_MAX_RANK ? ATTN_MAX_RANK + 1
                                            : static_cast<std::int32_t>(shape.size());
    }

    attn_tensor view_;
};

/* A mask and what it means. */
class mask {
  public:
    /* True: the position takes part, as in scaled_dot_product_attention. */
    static mask include(const tensor<const bool> &flags) {
        return {*flags.c_view(), ATTN_MASK_BOOL_INCLUDE};
    }
    /* True: the position is left out, as in nn.MultiheadAttention. */
    static mask exclude(const tensor<const bool> &flags) {
        return {*flags.c_view(), ATTN_MASK_BOOL_EXCLUDE};
    }
    /* Added to the scores; -inf leaves a position out. */
    template <class T> static mask additive(const tensor<T> &bias) {
        static_assert(std::is_floating_point_v<T>, "a bias is of floating point");
        return {*bias.c_view(), ATTN_MASK_ADDITIVE};
    }

    const attn_tensor *c_view() const noexcept {
        return &view_;
    }
    std::int32_t kind() const noexcept {
        return kind_;
    }

  private:
    mask(const attn_tensor &view, std::int32_t kind) : view_(view), kind_(kind) {
    }

    attn_tensor view_;
    std::int32_t kind_;
};

/* ---- contexts ---- */

struct context_options {
    std::int32_t num_threads = 0; /* 0: the CPUs of this process */
    std::int32_t engine = ATTN_ENGINE_AUTO;
    std::int32_t gemm = ATTN_GEMM_DEFAULT;
    std::string kernels; /* empty: the best */
};

/* Any number of threads may use one at once. */
class context {
  public:
    explicit context(const context_options &options = {}) {
        attn_context_params params{};
        params.struct_size = sizeof params;
        params.num_threads = options.num_threads;
        params.engine = options.engine;
        params.gemm = options.gemm;
        params.kernels = options.kernels.empty() ? nullptr : options.kernels.c_str();
        attn_context *made = nullptr;
        check(attn_context_create(&params, &made));
        handle_.reset(made);
    }

    attn_context *c_handle() const noexcept {
        return handle_.get();
    }

  private:
    struct destroy {
        void operator()(attn_context *handle) const noexcept {
            attn_context_destroy(handle);
        }
    };
    std::unique_ptr<attn_context, destroy> handle_;
};

/* ---- scaled dot-product attention ---- */

struct window {
    std::int64_t left = -1; /* keys before a row's position; -1: all */
    std::int64_t right = -1;
};

/* attn_sdpa_params; T is the type of query. */
template <class T> struct attend_options {
    std::optional<attention::mask> mask;
    bool is_causal = false;
    bool enable_gqa = false;
    std::optional<double> scale; /* else 1 / sqrt(E) */
    double softcap = 0;
    std::optional<attention::window> window;
    std::int32_t normalizer = ATTN_NORMALIZER_SOFTMAX;
    std::optional<tensor<const std::int64_t>> query_offset, key_lengths;
    std::optional<tensor<const T>> alibi_slopes, sinks;

    std::optional<tensor<T>> lse;     /* out: (..., Hq, L) */
    std::optional<tensor<T>> weights; /* out: (..., Hq, L, S), or their mean */
    bool average_weights = false;
};

namespace detail {

template <class T> const attn_tensor *view_of(const std::optional<T> &present) {
    return present ? present->c_view() : nullptr;
}

template <class T> attn_sdpa_params params_of(const attend_options<T> &options) {
    attn_sdpa_params params{};
    params.struct_size = sizeof params;
    params.is_causal = options.is_causal;
    params.softcap = options.softcap;
    params.normalizer = options.normalizer;
    params.mask = view_of(options.mask);
    params.mask_kind = options.mask ? options.mask->kind() : ATTN_MASK_NONE;
    params.query_offset = view_of(options.query_offset);
    params.key_lengths = view_of(options.key_lengths);
    params.alibi_slopes = view_of(options.alibi_slopes);
    params.sinks = view_of(options.sinks);
    params.lse = view_of(options.lse);
    params.weights = view_of(options.weights);
    params.flags = (options.enable_gqa ? ATTN_SDPA_ENABLE_GQA : 0) |
                   (options.average_weights ? ATTN_SDPA_AVERAGE_WEIGHTS : 0) |
                   (options.scale ? ATTN_SDPA_SET_SCALE : 0) |
                   (options.window ? ATTN_SDPA_SET_WINDOW : 0);
    params.scale = options.scale.value_or(0);
    if (options.window) {
        params.window_left = options.window->left;
        params.window_right = options.window->right;
    }
    return params;
}

inline attn_context *handle_of(const context *chosen) {
    return chosen == nullptr ? nullptr : chosen->c_handle();
}

} // namespace detail

/* attn_sdpa: query (..., Hq, L, E), key (..., Hk, S, E), value (..., Hv, S, Ev), output (..., Hq,
 * L, Ev). */
template <class T>
void attend(const tensor<const T> &query, const tensor<const T> &key, const tensor<const T> &value,
            const tensor<T> &output, const attend_options<T> &options = {},
            const context *chosen = nullptr) {
    const attn_sdpa_params params = detail::params_of(options);
    check(attn_sdpa(detail::handle_of(chosen), query.c_view(), key.c_view(), value.c_view(),
                    &params, output.c_view(), nullptr, 0));
}

/* ---- multi-head attention ---- */

/* attn_mha_config: zeros are PyTorch's defaults. */
struct multihead_config {
    std::int64_t embed_dim = 0, num_heads = 0;
    std::int64_t qdim = 0, kdim = 0, vdim = 0;
    std::int64_t head_dim = 0, value_head_dim = 0, num_kv_heads = 0;
    bool bias = true, add_bias_kv = false, add_zero_attn = false, batch_first = false;
};

template <class T> struct forward_options {
    std::optional<mask> key_padding_mask, attn_mask;
    bool is_causal = false;
    std::optional<tensor<T>> attn_weights; /* out: (N, L, T), or one matrix for each head */
    bool average_attn_weights = true;
    std::optional<attend_options<T>> attention; /* of the attention inside */
};

/* nn.MultiheadAttention in evaluation mode, T its type. Forward calls may run at once. */
template <class T> class multihead {
    static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>,
                  "a layer is of float or double");

  public:
    explicit multihead(const multihead_config &config) {
        attn_mha_config sizes{};
        sizes.struct_size = sizeof sizes;
        sizes.embed_dim = config.embed_dim;
        sizes.num_heads = config.num_heads;
        sizes.qdim = config.qdim;
        sizes.kdim = config.kdim;
        sizes.vdim = config.vdim;
        sizes.head_dim = config.head_dim;
        sizes.value_head_dim = config.value_head_dim;
        sizes.num_kv_heads = config.num_kv_heads;
        sizes.dtype = dtype_of<T>();
        sizes.bias = config.bias ? ATTN_ON : ATTN_OFF;
        sizes.add_bias_kv = config.add_bias_kv;
        sizes.add_zero_attn = config.add_zero_attn;
        sizes.batch_first = config.batch_first;
        attn_mha *made = nullptr;
        check(attn_mha_create(nullptr, &sizes, &made));
        handle_.reset(made);
    }

    /* Names of the parameters as in PyTorch's state_dict, and their shapes. */
    std::vector<std::pair<std::string, std::vector<std::int64_t>>> parameters() const {
        std::vector<std::pair<std::string, std::vector<std::int64_t>>> found;
        std::int64_t count = 0;
        check(attn_mha_parameter_count(handle_.get(), &count));
        for (std::int64_t i = 0; i < count; ++i) {
            const char *name = nullptr;
            attn_tensor shape;
            check(attn_mha_parameter_describe(handle_.get(), i, &name, &shape));
            found.emplace_back(name,
                               std::vector<std::int64_t>(shape.shape, shape.shape + shape.rank));
        }
        return found;
    }

    /* Copies a parameter in; float and double are converted. */
    template <class U> void load(const std::string &name, const tensor<U> &values) {
        check(attn_mha_load_parameter(handle_.get(), name.c_str(), values.c_view()));
    }

    /* Copies a parameter out. */
    void read(const std::string &name, const tensor<T> &values) const {
        check(attn_mha_read_parameter(handle_.get(), name.c_str(), values.c_view()));
    }

    /* Fresh random parameters. */
    void initialize(std::uint64_t seed) {
        check(attn_mha_init_parameters(handle_.get(), seed));
    }

    void forward(const tensor<const T> &query, const tensor<const T> &key,
                 const tensor<const T> &value, const tensor<T> &output,
                 const forward_options<T> &options = {}, const context *chosen = nullptr) const {
        attn_mha_params params{};
        attn_sdpa_params inside{};
        params.struct_size = sizeof params;
        params.is_causal = options.is_causal;
        params.average_attn_weights = options.average_attn_weights ? ATTN_ON : ATTN_OFF;
        params.key_padding_mask = detail::view_of(options.key_padding_mask);
        params.attn_mask = detail::view_of(options.attn_mask);
        params.attn_weights = detail::view_of(options.attn_weights);
        if (options.key_padding_mask) {
            params.key_padding_mask_kind = options.key_padding_mask->kind();
        }
        if (options.attn_mask) {
            params.attn_mask_kind = options.attn_mask->kind();
        }
        if (options.attention) {
            inside = detail::params_of(*options.attention);
            params.attention = &inside;
        }
        check(attn_mha_forward(detail::handle_of(chosen), handle_.get(), query.c_view(),
                               key.c_view(), value.c_view(), &params, output.c_view(), nullptr, 0));
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
