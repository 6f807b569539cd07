/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_halves.cpp: numbers of 16 bits: their conversion, attention on them, layers that keep them. The
 * last line is a summary.
 */
#include <cmath>

#include <attention.hpp>

#include "wrapper_checks.hpp"

namespace {

using attention::attend_options;
using attention::bfloat16;
using attention::float16;
using attention::multihead;
using attention::sizes;
using attention::tensor;

const std::vector<float> elements = numbers(heads * rows * features);
const tensor<const float> tokens(elements.data(), {heads, rows, features});

/* A number of every kind: each converts as the definition of its type says. */
void numbers_of_16_bits_are_the_nearest() {
    const std::pair<float, int> halves[] = {
        {1, 0x3c00},          {-2, 0xc000},         {-0.0F, 0x8000},      {65504, 0x7bff},
        {65519, 0x7bff},      {65520, 0x7c00},      {-INFINITY, 0xfc00},  {0x1p-24F, 1},
        {0x1p-25F, 0},        {0x1.8p-24F, 2},      {0x1p-14F, 0x400},    {0x1.ff8p-15F, 0x3ff},
        {0x1.ffcp-15F, 0x400}, {0x1.002p0F, 0x3c00}, {0x1.006p0F, 0x3c02}};
    for (const auto &[number, bits] : halves) {
        require(float16(number).bits == bits, "float16 of " + std::to_string(number));
    }
    const std::pair<float, int> uppers[] = {
        {1, 0x3f80},          {-2, 0xc000},           {0x1.01p0F, 0x3f80},       {0x1.03p0F, 0x3f82},
        {0x1.010002p0F, 0x3f81}, {0x1p-133F, 1},      {0x1.fffffep127F, 0x7f80}, {INFINITY, 0x7f80}};
    for (const auto &[number, bits] : uppers) {
        require(bfloat16(number).bits == bits, "bfloat16 of " + std::to_string(number));
    }
    require(std::isnan(static_cast<float>(float16(NAN))), "NaN as float16");
    require(std::isnan(static_cast<float>(bfloat16(NAN))), "NaN as bfloat16");
    for (int bits = 0; bits <= 0xffff; ++bits) {
        const auto half = float16::from_bits(static_cast<std::uint16_t>(bits));
        const auto upper = bfloat16::from_bits(static_cast<std::uint16_t>(bits));
        const float narrow = static_cast<float>(half), wide = static_cast<float>(upper);
        require(std::isnan(narrow) || float16(narrow).bits == bits, "float16 and back");
        require(std::isnan(wide) || bfloat16(wide).bits == bits, "bfloat16 and back");
    }
}

/* Half of a step of T at numbers up to `largest`, and what float32 is off by. */
template <class T> float tolerance_at(float largest) {
    const int digits = attention::is_bfloat16<T> ? 8 : 11;
    return std::ldexp(1.0F, std::ilogb(largest) - digits) + 1e-5F;
}

template <class T> std::vector<T> stored(const std::vector<float> &from) {
    return {from.begin(), from.end()};
}

template <class T> std::vector<float> widened(const std::vector<T> &from) {
    std::vector<float> made;
    for (const T number : from) {
        made.push_back(static_cast<float>(number));
    }
    return made;
}

template <class T>
void require_near(const std::vector<T> &found, const std::vector<float> &wanted) {
    const std::vector<float> wide = widened(found);
    float largest = 0;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        require(std::fabs(wide[i] - wanted[i]) <= tolerance_at<T>(std::fabs(wanted[i]) + 1e-5F),
                "expected " + std::to_string(wanted[i]) + ", got " + std::to_string(wide[i]));
        largest = std::fmax(largest, std::fabs(wanted[i]));
    }
    require(found.size() == wanted.size() && largest > 0, "nothing computed");
}

template <class T> void attend_in() {
    const sizes shape = {heads, rows, features};
    const std::vector<T> query = stored<T>(elements);
    const std::vector<float> wide = widened(query);
    const tensor<const float> wide_view(wide.data(), shape);
    std::vector<float> expected = room(shape), lse = room({heads, rows}), expected_lse = lse;
    attend_options<float> wide_options;
    wide_options.is_causal = true;
    wide_options.lse = tensor<float>(expected_lse.data(), {heads, rows});
    attention::attend(wide_view, wide_view, wide_view, tensor<float>(expected.data(), shape),
                      wide_options);

    const tensor<const T> view(query.data(), shape);
    std::vector<T> output(query.size());
    std::vector<float> unrounded = room(shape);
    attend_options<T> options;
    options.is_causal = true;
    options.lse = tensor<float>(lse.data(), {heads, rows});
    attention::attend(view, view, view, tensor<T>(output.data(), shape), options);
    require_near(output, expected);
    require(lse == expected_lse, "lse is not float32's");
    attention::attend(view, view, view, tensor<float>(unrounded.data(), shape), options);
    require(unrounded == expected, "an output of float32 is not what float32 computes");
}

void attention_in_16_bits_is_that_of_the_numbers() {
    attend_in<bfloat16>();
    attend_in<float16>();
}

void keys_and_values_may_be_of_other_types() {
    const sizes shape = tokens.shape();
    const std::vector<bfloat16> key = stored<bfloat16>(elements);
    std::vector<std::uint16_t> value;
    for (const float number : elements) {
        value.push_back(float16(number).bits);
    }
    const std::vector<float> wide_key = widened(key),
                             wide_value = widened(stored<float16>(elements));
    std::vector<float> output = room(shape), expected = room(shape);
    attention::attend(tokens, tensor<const float>(wide_key.data(), shape),
                      tensor<const float>(wide_value.data(), shape),
                      tensor<float>(expected.data(), shape));
    attention::attend(
        tokens, tensor<const bfloat16>(key.data(), shape),
        tensor<const float16>(attention::numbers_of<float16>(value.data()), shape),
        tensor<float>(output.data(), shape));
    require_near(output, expected);
    static_assert(!std::is_convertible_v<tensor<const float16>, attention::keys_of<double>> &&
                      !std::is_convertible_v<tensor<const double>, attention::keys_of<float16>>,
                  "float64 stands alone");
}

/* Of two keys; bfloat16 has no number within 0.0019 of the second's weight, e^(-77/256). */
void weights_stay_float32_where_a_context_asks() {
    const std::vector<bfloat16> query = stored<bfloat16>(std::vector<float>(8, 1)),
                                key = stored<bfloat16>({0, -77.0F / 256}),
                                value = stored<bfloat16>({0, 1});
    const float expected = 1 / (1 + std::exp(77.0F / 256));
    attention::context_config config;
    config.float32_weights = true;
    for (std::int32_t i = 0; attn_kernels_name(i) != nullptr; ++i) {
        config.kernels = attn_kernels_name(i);
        const attention::context context(config);
        std::vector<float> output = room({8, 1});
        attention::attend(tensor<const bfloat16>(query.data(), {8, 1}),
                          tensor<const bfloat16>(key.data(), {2, 1}),
                          tensor<const bfloat16>(value.data(), {2, 1}),
                          tensor<float>(output.data(), {8, 1}), {}, &context);
        for (const float number : output) {
            require(std::fabs(number - expected) <= 1e-5F,
                    config.kernels + ": got " + std::to_string(number));
        }
    }
}

template <class T> void forward_in(std::int32_t parameter_dtype) {
    attention::multihead_config config;
    config.embed_dim = embed_dim;
    config.num_heads = heads;
    config.parameter_dtype = parameter_dtype;
    multihead<T> layer(config);
    multihead<float> wide_layer(attention::multihead_config{embed_dim, heads});
    layer.initialize(1);
    for (const auto &[name, shape] : layer.parameters()) {
        std::vector<float> values = room(shape);
        std::vector<bfloat16> narrow(values.size());
        if (parameter_dtype == ATTN_DTYPE_BFLOAT16) {
            layer.read(name, {narrow.data(), shape});
            values = widened(narrow);
        } else {
            layer.read(name, {values.data(), shape});
        }
        wide_layer.load(name, {values.data(), shape});
    }
    require(layer.config().parameter_dtype == parameter_dtype, "parameter_dtype");

    const sizes shape = {rows, embed_dim};
    const std::vector<T> query = stored<T>(elements);
    const std::vector<float> wide = widened(query);
    std::vector<float> expected = room(shape);
    std::vector<T> output(query.size());
    const tensor<const T> x(query.data(), shape);
    const tensor<const float> wide_x(wide.data(), shape);
    layer.forward(x, x, x, tensor<T>(output.data(), shape));
    wide_layer.forward(wide_x, wide_x, wide_x, {expected.data(), shape});
    require_near(output, expected);
}

void layers_keep_and_compute_with_16_bits() {
    forward_in<bfloat16>(ATTN_DTYPE_BFLOAT16);
    forward_in<float16>(ATTN_DTYPE_FLOAT32);
    forward_in<float>(ATTN_DTYPE_BFLOAT16);
    attention::multihead_config config;
    config.embed_dim = embed_dim;
    config.num_heads = heads;
    config.parameter_dtype = ATTN_DTYPE_FLOAT16;
    require_error([&] { multihead<double> refused(config); }, ATTN_ERROR_DTYPE,
                  "parameter_dtype: expected float64, or 0, beside dtype float64, got float16");
}

} // namespace

int main() {
    return run_tests("16 bits", {
        {"numbers_of_16_bits_are_the_nearest", numbers_of_16_bits_are_the_nearest},
        {"attention_in_16_bits_is_that_of_the_numbers",
         attention_in_16_bits_is_that_of_the_numbers},
        {"keys_and_values_may_be_of_other_types", keys_and_values_may_be_of_other_types},
        {"weights_stay_float32_where_a_context_asks", weights_stay_float32_where_a_context_asks},
        {"layers_keep_and_compute_with_16_bits", layers_keep_and_compute_with_16_bits},
    });
}
