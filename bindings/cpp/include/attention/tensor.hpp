/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tensor.hpp: views of the caller's memory, masks, and the exception of every call.
 */
#ifndef ATTENTION_TENSOR_HPP
#define ATTENTION_TENSOR_HPP

#include <attention/softmax.h>
#include <attention/status.h>
#include <attention/tensor.h>

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "float16.hpp"
#include "packed_elements.hpp"

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

/* Whether T, const or not, is one of these. */
template <class T, class... Elements>
inline constexpr bool is_one_of = (std::is_same_v<std::remove_const_t<T>, Elements> || ...);

#ifdef ATTENTION_HAS_STDFLOAT
template <class T> inline constexpr bool is_bfloat16 = is_one_of<T, bfloat16, std::bfloat16_t>;
template <class T> inline constexpr bool is_float16 = is_one_of<T, float16, std::float16_t>;
#else
template <class T> inline constexpr bool is_bfloat16 = is_one_of<T, bfloat16>;
template <class T> inline constexpr bool is_float16 = is_one_of<T, float16>;
#endif

/* Whether T has 16 bits. */
template <class T> inline constexpr bool is_half = is_bfloat16<T> || is_float16<T>;

template <class T> constexpr std::int32_t dtype_of() {
    static_assert(is_half<T> || is_one_of<T, float, double, bool, std::int64_t, std::int32_t,
                                          std::int8_t, std::uint8_t, int4x2, uint4x2, q8_0, q4_0>,
                  "elements are float, double, bfloat16, float16, bool, std::int64_t, "
                  "std::int32_t, std::int8_t, std::uint8_t, int4x2, uint4x2, q8_0 or q4_0");
    static_assert(sizeof(bool) == 1, "a bool is a byte");
    if constexpr (is_one_of<T, float>) {
        return ATTN_DTYPE_FLOAT32;
    } else if constexpr (is_one_of<T, double>) {
        return ATTN_DTYPE_FLOAT64;
    } else if constexpr (is_bfloat16<T>) {
        return ATTN_DTYPE_BFLOAT16;
    } else if constexpr (is_float16<T>) {
        return ATTN_DTYPE_FLOAT16;
    } else if constexpr (is_one_of<T, bool>) {
        return ATTN_DTYPE_BOOL;
    } else if constexpr (is_one_of<T, std::int64_t>) {
        return ATTN_DTYPE_INT64;
    } else if constexpr (is_one_of<T, std::int8_t>) {
        return ATTN_DTYPE_INT8;
    } else if constexpr (is_one_of<T, std::uint8_t>) {
        return ATTN_DTYPE_UINT8;
    } else if constexpr (is_one_of<T, int4x2>) {
        return ATTN_DTYPE_INT4X2;
    } else if constexpr (is_one_of<T, uint4x2>) {
        return ATTN_DTYPE_UINT4X2;
    } else if constexpr (is_one_of<T, q8_0>) {
        return ATTN_DTYPE_Q8_0;
    } else if constexpr (is_one_of<T, q4_0>) {
        return ATTN_DTYPE_Q4_0;
    } else {
        return ATTN_DTYPE_INT32;
    }
}

using sizes = std::vector<std::int64_t>;

/* A view: address, shape, strides in elements. Copying one copies no element; none keeps the memory. */
template <class T> class tensor {
  public:
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
        return derived(attn_tensor_transpose, axis_a, axis_b);
    }

    tensor sliced(std::int32_t axis, std::int64_t start, std::int64_t length,
                  std::int64_t step = 1) const {
        return derived(attn_tensor_slice, axis, start, length, step);
    }

    /* One position of an axis, without the axis. */
    tensor selected(std::int32_t axis, std::int64_t index) const {
        return derived(attn_tensor_select, axis, index);
    }

    /* (..., L, num_heads * head_dim) as (..., num_heads, L, head_dim). */
    tensor split_heads(std::int64_t num_heads) const {
        return derived(attn_tensor_split_heads, num_heads);
    }

    /* Its inverse, if the heads lie head_dim features apart. */
    tensor merge_heads() const {
        return derived(attn_tensor_merge_heads);
    }

    sizes shape() const {
        return {view_.shape, view_.shape + view_.rank};
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
    template <class Function, class... Arguments>
    tensor derived(Function function, Arguments... arguments) const {
        tensor made = *this;
        check(function(&view_, arguments..., &made.view_));
        return made;
    }
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

/* An input of one of several element types; every tensor of them becomes one. */
template <class... Elements> class input {
  public:
    template <class T, class = std::enable_if_t<is_one_of<T, Elements...>>>
    input(const tensor<T> &other) : view_(*other.c_view()) {
    }
    template <class T, class = std::enable_if_t<is_one_of<T, Elements...>>>
    input(T *data, const sizes &shape) : input(tensor<T>(data, shape)) {
    }

    const attn_tensor *c_view() const noexcept {
        return &view_;
    }

  private:
    attn_tensor view_;
};

/* An output of one of several element types; every writable tensor of them becomes one. */
template <class... Elements> class result {
  public:
    template <class T, class = std::enable_if_t<is_one_of<T, Elements...> && !std::is_const_v<T>>>
    result(const tensor<T> &other) : view_(*other.c_view()) {
    }
    template <class T, class = std::enable_if_t<is_one_of<T, Elements...> && !std::is_const_v<T>>>
    result(T *data, const sizes &shape) : result(tensor<T>(data, shape)) {
    }

    const attn_tensor *c_view() const noexcept {
        return &view_;
    }

  private:
    attn_tensor view_;
};

/* View of the others and of everything that has 16 bits. */
#ifdef ATTENTION_HAS_STDFLOAT
template <template <class...> class View, class... Others>
using with_halves = View<Others..., bfloat16, float16, std::bfloat16_t, std::float16_t>;
#else
template <template <class...> class View, class... Others>
using with_halves = View<Others..., bfloat16, float16>;
#endif

/* Masks, parameters. */
using any_float_input = with_halves<input, float, double>;
using any_float_result = with_halves<result, float, double>;

/* Positions and lengths. */
using index_input = input<std::int64_t, std::int32_t>;

/* What is added to the scores of queries of type T. */
template <class T> using float_input = input<T, float>;

/* What the scores of queries of type T are, and lse. */
template <class T> using score_of = std::conditional_t<is_half<T>, float, T>;

/* Keys, or values, beside queries of type T. */
template <class T>
using keys_of = std::conditional_t<is_one_of<T, double>, input<double>, with_halves<input, float>>;

/* Outputs and weights of queries of type T: of that type or the scores'. */
template <class T> using result_of = std::conditional_t<is_half<T>, result<T, float>, tensor<T>>;

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
    static mask additive(const any_float_input &values) {
        return {*values.c_view(), ATTN_MASK_ADDITIVE};
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

namespace detail {

template <class View> const attn_tensor *view_of(const std::optional<View> &present) {
    return present ? present->c_view() : nullptr;
}

inline sizes shape_of(const attn_tensor &view) {
    return {view.shape, view.shape + view.rank};
}

} // namespace detail

} // namespace attention

#endif
