/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_layer_backward.cpp: what a layer's gradients are taken from, and how they are asked for; their
 * numbers are those of the exported cases.
 */
#include <cmath>

#include <attention.hpp>

#include "wrapper_checks.hpp"

namespace {

using attention::tensor;
using options_type = attention::forward_options<double>;
using saved_type = attention::saved_forward<double>;
using wanted_type = attention::multihead_gradients<double>;

constexpr double step = 1e-4;
const attention::sizes shape{rows, embed_dim}, mask_shape{rows, rows}, lse_shape{heads, rows};

std::vector<double> wide(std::int64_t count) {
    const std::vector<float> made = numbers(count);
    return {made.begin(), made.end()};
}

const std::vector<double> tokens = wide(rows * embed_dim);
const tensor<const double> x(tokens.data(), shape);

attention::multihead<double> make_layer() {
    attention::multihead_config config;
    config.embed_dim = embed_dim;
    config.num_heads = heads;
    attention::multihead<double> layer(config);
    layer.initialize(7);
    return layer;
}

void a_call_that_saves_computes_what_forward_does() {
    const auto layer = make_layer();
    std::vector<double> output(tokens.size()), same(tokens.size());
    options_type options;
    options.attention.is_causal = true;
    layer.forward(x, x, x, {output.data(), shape}, options);
    const saved_type saved(layer, x, x, x, {same.data(), shape}, options);
    require(output == same, "the same bits");
}

/* What the gradients below are of. */
double loss(const attention::multihead<double> &layer, const std::vector<double> &mask,
            const std::vector<double> &of_lse) {
    std::vector<double> output(tokens.size()), lse(of_lse.size());
    options_type options;
    options.attention.mask =
        attention::mask::additive(tensor<const double>(mask.data(), mask_shape));
    options.attention.lse = tensor<double>(lse.data(), lse_shape);
    layer.forward(x, x, x, {output.data(), shape}, options);
    double sum = 0;
    for (std::size_t i = 0; i < output.size(); ++i) {
        sum += output[i] * tokens[i];
    }
    for (std::size_t i = 0; i < lse.size(); ++i) {
        sum += lse[i] * of_lse[i];
    }
    return sum;
}

void gradients_of_a_mask_and_lse_are_differences() {
    const auto layer = make_layer();
    const std::vector<double> mask = wide(rows * rows), of_lse = wide(heads * rows);
    std::vector<double> output(tokens.size()), found(mask.size());
    options_type options;
    options.attention.mask =
        attention::mask::additive(tensor<const double>(mask.data(), mask_shape));
    const saved_type saved(layer, x, x, x, {output.data(), shape}, options);
    wanted_type wanted;
    wanted.attention.lse = tensor<const double>(of_lse.data(), lse_shape);
    wanted.attention.mask = tensor<double>(found.data(), mask_shape);
    saved.backward(x, wanted);
    for (std::size_t i = 0; i < mask.size(); ++i) {
        std::vector<double> moved = mask;
        moved[i] += step;
        const double above = loss(layer, moved, of_lse);
        moved[i] -= 2 * step;
        const double expected = (above - loss(layer, moved, of_lse)) / (2 * step);
        require(std::fabs(found[i] - expected) < 1e-6, "element " + std::to_string(i));
    }
}

/* Each has its own memory, and owns its options; moved, it is the same call. */
void calls_do_not_mix_and_gradients_add_up() {
    const auto layer = make_layer();
    std::vector<double> output(tokens.size()), of_query(tokens.size()), of_bias(embed_dim);
    wanted_type wanted;
    wanted.query = tensor<double>(of_query.data(), shape);
    wanted.parameters.emplace("out_proj.bias", tensor<double>(of_bias.data(), {embed_dim}));
    options_type options;
    saved_type first(layer, x, x, x, {output.data(), shape}, options);
    first.backward(x, wanted);
    const std::vector<double> alone = of_query, bias_alone = of_bias;
    options.attention.is_causal = true;
    const saved_type second(layer, x, x, x, {output.data(), shape}, options);
    const saved_type moved = std::move(first);
    moved.backward(x, wanted);
    require(of_query == alone && of_bias == bias_alone, "the first call's");
    wanted.accumulate = true;
    moved.backward(x, wanted);
    for (std::size_t i = 0; i < alone.size(); ++i) {
        require(std::fabs(of_query[i] - 2 * alone[i]) < 1e-12, "twice");
    }
}

/* The status and the beginning of the line that `run` fails with. */
template <class Run> void require_refusal(Run run, attn_status code, const std::string &beginning) {
    try {
        run();
    } catch (const attention::error &refusal) {
        require(refusal.code() == code && std::string(refusal.what()).rfind(beginning, 0) == 0,
                refusal.what());
        return;
    }
    throw std::logic_error("no failure: " + beginning);
}

void refusals_name_what_is_wrong() {
    const auto layer = make_layer();
    std::vector<double> output(tokens.size()), room(tokens.size());
    const tensor<double> made(output.data(), shape);
    const saved_type saved(layer, x, x, x, made);
    wanted_type unknown, sinks;
    unknown.parameters.emplace("bias_k", tensor<double>(room.data(), {embed_dim}));
    require_refusal([&] { saved.backward(x, unknown); }, ATTN_ERROR_PARAMETER,
                    "gradients.bias_k: ");
    sinks.attention.sinks = tensor<double>(room.data(), {heads});
    require_refusal([&] { saved.backward(x, sinks); }, ATTN_ERROR_VALUE,
                    "gradients.attention.sinks: ");
    const std::int64_t length = rows;
    const tensor<double> cached(room.data(), {heads, rows, features});
    options_type options;
    options.cache.emplace(cached, cached);
    options.cache->lengths = attention::index_input(&length, {});
    require_refusal([&] { saved_type(layer, x, x, x, made, options); }, ATTN_ERROR_UNSUPPORTED,
                    "cache: ");
}

/* There is no way to leave it out here. */
void the_library_refuses_a_call_that_saved_nothing() {
    const auto layer = make_layer();
    attn_mha_params params{};
    params.struct_size = sizeof params;
    attn_mha_gradients gradients{};
    gradients.struct_size = sizeof gradients;
    gradients.output = x.c_view();
    require_refusal(
        [&] {
            attention::check(attn_mha_backward(nullptr, layer.c_handle(), x.c_view(), x.c_view(),
                                               x.c_view(), &params, &gradients, nullptr, 0));
        },
        ATTN_ERROR_NULL, "saved: ");
}

} // namespace

int main() {
    return run_tests(
        "gradients of a layer",
        {
            {"a_call_that_saves_computes_what_forward_does",
             a_call_that_saves_computes_what_forward_does},
            {"gradients_of_a_mask_and_lse_are_differences",
             gradients_of_a_mask_and_lse_are_differences},
            {"calls_do_not_mix_and_gradients_add_up", calls_do_not_mix_and_gradients_add_up},
            {"refusals_name_what_is_wrong", refusals_name_what_is_wrong},
            {"the_library_refuses_a_call_that_saved_nothing",
             the_library_refuses_a_call_that_saved_nothing},
        });
}
