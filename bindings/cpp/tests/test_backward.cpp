/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_backward.cpp: gradients against differences of the forward call, in double.
 */
#include <array>
#include <cmath>

#include <attention.hpp>

#include "wrapper_checks.hpp"

namespace {

using attention::tensor;

constexpr std::int64_t num_keys = 5;
constexpr double step = 1e-4;

const attention::sizes query_shape{heads, rows, features}, key_shape{heads, num_keys, features},
    mask_shape{rows, num_keys}, lse_shape{heads, rows};

std::vector<double> wide(std::int64_t count) {
    const std::vector<float> made = numbers(count);
    return {made.begin(), made.end()};
}

/* Query, key, value, mask. */
using inputs = std::array<std::vector<double>, 4>;

inputs make_inputs() {
    return {wide(heads * rows * features), wide(heads * num_keys * features),
            wide(heads * num_keys * features), wide(rows * num_keys)};
}

/* A forward call and what it wrote. */
struct attended {
    tensor<const double> query, key, value;
    attention::attend_options<double> options;
    std::vector<double> output, lse;

    explicit attended(const inputs &of)
        : query(of[0].data(), query_shape), key(of[1].data(), key_shape),
          value(of[2].data(), key_shape), output(of[0].size()),
          lse(static_cast<std::size_t>(heads * rows)) {
        options.is_causal = true;
        options.mask = attention::mask::additive(tensor<const double>(of[3].data(), mask_shape));
        options.lse = tensor<double>(lse.data(), lse_shape);
        attention::attend<double>(query, key, value, output_view(), options);
    }
    attended(const attended &) = delete;
    attended &operator=(const attended &) = delete;

    tensor<double> output_view() {
        return {output.data(), query_shape};
    }
};

double weighed(const std::vector<double> &values, const std::vector<double> &by) {
    double sum = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
        sum += values[i] * by[i];
    }
    return sum;
}

/* What the gradients are of. */
double loss(const inputs &of, const std::vector<double> &of_output,
            const std::vector<double> &of_lse) {
    const attended made(of);
    return weighed(made.output, of_output) + weighed(made.lse, of_lse);
}

void gradients_are_differences() {
    const inputs of = make_inputs();
    attended made(of);
    const std::vector<double> of_output = wide(heads * rows * features);
    const std::vector<double> of_lse = wide(heads * rows);
    inputs found = of;
    for (int times = 1; times <= 2; ++times) {
        attention::attend_gradients<double> wanted;
        wanted.accumulate = times == 2;
        wanted.lse = tensor<const double>(of_lse.data(), lse_shape);
        wanted.query = tensor<double>(found[0].data(), query_shape);
        wanted.key = tensor<double>(found[1].data(), key_shape);
        wanted.value = tensor<double>(found[2].data(), key_shape);
        wanted.mask = tensor<double>(found[3].data(), mask_shape);
        attention::attend_backward<double>(made.query, made.key, made.value, made.output_view(),
                                           {of_output.data(), query_shape}, wanted, made.options);
        for (std::size_t which = 0; which < of.size(); ++which) {
            for (std::size_t i = 0; i < of[which].size(); ++i) {
                inputs moved = of;
                moved[which][i] += step;
                const double above = loss(moved, of_output, of_lse);
                moved[which][i] -= 2 * step;
                const double below = loss(moved, of_output, of_lse);
                const double expected = times * (above - below) / (2 * step);
                require(std::fabs(found[which][i] - expected) < 1e-6,
                        "gradient " + std::to_string(which) + ", element " + std::to_string(i));
            }
        }
    }
}

/* In the cache's shape, and 0 past its length. */
void gradients_lie_where_caches_do() {
    const inputs of = make_inputs();
    const std::int64_t length = 2;
    const tensor<const double> query(of[0].data(), query_shape), key(of[1].data(), key_shape);
    attention::kv_of<double> kv(key, key);
    kv.lengths = attention::index_input(&length, {});
    std::vector<double> output(of[0].size()), lse(static_cast<std::size_t>(heads * rows)),
        of_key(of[1].size(), 7);
    const tensor<double> made(output.data(), query_shape);
    attention::attend_options<double> options;
    options.lse = tensor<double>(lse.data(), lse_shape);
    attention::attend<double>(query, kv, made, options);
    attention::attend_gradients<double> wanted;
    wanted.key = tensor<double>(of_key.data(), key_shape);
    attention::attend_backward<double>(query, kv, made, made, wanted, options);
    for (std::size_t i = 0; i < of_key.size(); ++i) {
        const auto row = static_cast<std::int64_t>(i) / features % num_keys;
        require((of_key[i] == 0) == (row >= length), "element " + std::to_string(i));
    }
}

void refusals_name_the_gradient() {
    const inputs of = make_inputs();
    attended made(of);
    attention::attend_gradients<double> wanted;
    const tensor<const double> gradient(made.output.data(), query_shape);
    std::vector<double> of_sinks(static_cast<std::size_t>(heads));
    wanted.sinks = tensor<double>(of_sinks.data(), {heads});
    require_error(
        [&] {
            attention::attend_backward<double>(made.query, made.key, made.value, gradient, gradient,
                                               wanted, made.options);
        },
        ATTN_ERROR_VALUE, "gradients.sinks: expected NULL without sinks");
}

void explain_tells_what_runs() {
    const inputs of = make_inputs();
    attended made(of);
    attention::attend_gradients<double> wanted;
    const tensor<const double> gradient(made.output.data(), query_shape);
    const auto explain = [&] {
        return attention::explain_backward<double>(made.query, made.key, made.value, gradient,
                                                   gradient, wanted, made.options);
    };
    require(explain().num_items == 0, "nothing is wanted");
    std::vector<double> of_query(made.output.size());
    wanted.query = tensor<double>(of_query.data(), query_shape);
    const attn_sdpa_backward_report report = explain();
    require(report.num_items > 0 && report.workspace_bytes > 0 && report.reason != nullptr,
            "a report");
    const attention::kv_of<double> kv(made.key, made.value);
    require(attention::explain_backward<double>(made.query, kv, gradient, gradient, wanted,
                                                made.options)
                    .num_items > 0,
            "a report of a cache");
}

} // namespace

int main() {
    return run_tests("gradients",
                     {
                         {"gradients_are_differences", gradients_are_differences},
                         {"gradients_lie_where_caches_do", gradients_lie_where_caches_do},
                         {"refusals_name_the_gradient", refusals_name_the_gradient},
                         {"explain_tells_what_runs", explain_tells_what_runs},
                     });
}
