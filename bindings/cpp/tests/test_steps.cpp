/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_steps.cpp: scores, and what models do around attention: parts put together, positions,
 * normalisation.
 */
#include <cmath>
#include <limits>

#include <attention.hpp>

#include "wrapper_checks.hpp"

namespace {

using attention::bfloat16;
using attention::tensor;

constexpr std::int64_t num_keys = 5, key_split = 2;

const std::vector<float> query_elements = numbers(heads * rows * features),
                         key_elements = numbers(heads * num_keys * features);
const tensor<const float> query(query_elements.data(), {heads, rows, features}),
    key(key_elements.data(), {heads, num_keys, features});

void require_close(const std::vector<float> &found, const std::vector<float> &expected,
                   const std::string &what) {
    require(found.size() == expected.size(), what);
    for (std::size_t i = 0; i < found.size(); ++i) {
        require(std::fabs(found[i] - expected[i]) < 1e-5f, what);
    }
}

/* An output and its lse, of the keys from `start` on. */
struct attended {
    std::vector<float> output = room({heads, rows, features}), lse = room({heads, rows});

    attended(std::int64_t start, std::int64_t count, attention::attend_options<float> options = {}) {
        options.lse = lse_view();
        const auto seen = key.sliced(1, start, count);
        attention::attend(query, seen, seen, output_view(), options);
    }
    tensor<float> output_view() {
        return {output.data(), {heads, rows, features}};
    }
    tensor<float> lse_view() {
        return {lse.data(), {heads, rows}};
    }
    attention::partial_result<float> part() {
        return {output_view(), lse_view()};
    }
};

void parts_are_the_whole() {
    const std::vector<float> sinks{0.5f, -1};
    attention::attend_options<float> with_sinks;
    with_sinks.sinks = attention::float_input<float>(sinks.data(), {heads});
    const attended whole(0, num_keys, with_sinks);
    attended first(0, key_split), second(key_split, num_keys - key_split);

    attention::merge_options<float> options;
    options.sinks.emplace(sinks.data(), attention::sizes{heads});
    options.lse = first.lse_view();
    attention::merge<float>({first.part(), second.part()}, first.output_view(), options);
    require_close(first.output, whole.output, "outputs");
    require_close(first.lse, whole.lse, "lse");
}

void parts_without_lse_are_added() {
    const std::vector<float> one{1, 2};
    const std::vector<bfloat16> other{bfloat16(3), bfloat16(-1)};
    std::vector<double> sum{0.5, 3};
    std::vector<float> output(2);
    attention::merge<float>({{{one.data(), {1, 2}}, {}}, {{other.data(), {1, 2}}, {}}},
                            {output.data(), {1, 2}});
    require(output == std::vector<float>{4, 1}, "sum");
    attention::merge<double>({{tensor<const double>(sum.data(), {1, 2}), {}}},
                             tensor<double>(sum.data(), {1, 2}));
    require(sum == std::vector<double>{0.5, 3}, "one part in place");

    attended first(0, key_split);
    require_error(
        [&] {
            attention::merge<float>({first.part(), {first.output_view(), {}}}, first.output_view());
        },
        ATTN_ERROR_DTYPE, "lses[1]: expected a dtype of enum attn_dtype, got invalid");
    require_error([&] { attention::merge<float>({}, first.output_view()); }, ATTN_ERROR_VALUE,
                  "count: expected 1 and up, got 0");
}

void scores_are_told() {
    attention::attend_options<float> options;
    options.is_causal = true;
    options.scale = 2;
    const auto shape = attention::describe_outputs(query, key, key, options).scores;
    require(shape == attention::sizes{heads, rows, num_keys}, "shape of scores");
    std::vector<float> scaled = room(shape), masked = room(shape), output(query_elements.size());
    const tensor<float> to(output.data(), query.shape());
    options.scores = tensor<float>(scaled.data(), shape);
    attention::attend(query, key, key, to, options);
    options.scores = tensor<float>(masked.data(), shape);
    options.scores_stage = ATTN_SCORE_MASKED;
    attention::attend(query, key, key, to, options);

    for (std::int64_t i = 0; i < heads * rows * num_keys; ++i) {
        const std::int64_t head = i / (rows * num_keys), row = i / num_keys % rows,
                           column = i % num_keys;
        const float *q = query.data() + (head * rows + row) * features;
        const float *k = key.data() + (head * num_keys + column) * features;
        float product = 0;
        for (std::int64_t e = 0; e < features; ++e) {
            product += q[e] * k[e]; /* numbers() has few bits: exact */
        }
        const auto at = static_cast<std::size_t>(i);
        require(scaled[at] == 2 * product, "scaled scores");
        require(masked[at] == (column <= row ? 2 * product : -std::numeric_limits<float>::infinity()),
                "masked scores");
    }
}

void positions_turn_pairs() {
    const std::vector<float> input = numbers(2 * features), turns{1, 0.25f};
    const std::vector<std::int32_t> positions{7, -3};
    const attention::sizes shape{2, features};
    attention::rope_options<float> options;
    options.frequencies = attention::any_float_input(turns.data(), {2});
    options.positions = attention::index_input(positions.data(), {2});
    std::vector<float> output(input.size()), expected(input.size());
    const tensor<float> to(output.data(), shape);
    attention::rope(tensor<const float>(input.data(), shape), to, options);
    for (std::size_t row = 0; row < 2; ++row) {
        for (std::size_t i = 0; i < 2; ++i) {
            const float angle = static_cast<float>(positions[row]) * turns[i];
            const float x = input[4 * row + i], y = input[4 * row + i + 2];
            expected[4 * row + i] = x * std::cos(angle) - y * std::sin(angle);
            expected[4 * row + i + 2] = y * std::cos(angle) + x * std::sin(angle);
        }
    }
    require_close(output, expected, "rotated");
    options.inverse = true;
    attention::rope<float>(to, to, options);
    require_close(output, input, "rotated back");
}

void tables_are_taken_as_they_are() {
    const std::vector<float> input{1, 2, 3, 4, 5}, cosine{0, 1}, sine{1, 0};
    std::vector<float> output(5);
    attention::rope_options<float> options;
    options.rotary_dim = 4;
    options.interleaved = true;
    options.magnitude = 2;
    options.cos.emplace(cosine.data(), attention::sizes{1, 2});
    options.sin.emplace(sine.data(), attention::sizes{1, 2});
    attention::rope<float>({input.data(), {1, 5}}, {output.data(), {1, 5}}, options);
    require(output == std::vector<float>{-4, 2, 6, 8, 5}, "tables");
    options.rotary_dim = 3;
    require_error(
        [&] { attention::rope<float>({input.data(), {1, 5}}, {output.data(), {1, 5}}, options); },
        ATTN_ERROR_VALUE, "rotary_dim: expected an even number, 0 to E=5, got 3");
}

void rows_are_normalised() {
    const std::vector<bfloat16> input{bfloat16(3), bfloat16(4)};
    const std::vector<float> weight{0, 1};
    std::vector<float> output(2);
    attention::rms_norm_options<bfloat16> options;
    options.epsilon = 3.5; /* 12.5 + 3.5 is 16 */
    options.weight.emplace(weight.data(), attention::sizes{2});
    options.weight_offset = 1;
    attention::rms_norm<bfloat16>({input.data(), {1, 2}}, tensor<float>(output.data(), {1, 2}),
                                  options);
    require(output == std::vector<float>{0.75f, 2}, "normalised");
}

} // namespace

int main() {
    return run_tests("steps", {
        {"parts_are_the_whole", parts_are_the_whole},
        {"parts_without_lse_are_added", parts_without_lse_are_added},
        {"scores_are_told", scores_are_told},
        {"positions_turn_pairs", positions_turn_pairs},
        {"tables_are_taken_as_they_are", tables_are_taken_as_they_are},
        {"rows_are_normalised", rows_are_normalised},
    });
}
