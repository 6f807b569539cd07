/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_layer_cache.cpp: a layer with a cache, rotation and norms: its steps are the whole.
 */
#include <attention/multihead.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "wrapper_checks.hpp"

namespace {

using attention::tensor;

constexpr std::int64_t rows = 5, embed_dim = 8, kv_heads = 1, head_dim = 4, room = 6;

attention::multihead_config config() {
    attention::multihead_config config;
    config.embed_dim = embed_dim;
    config.num_heads = 2;
    config.num_kv_heads = kv_heads;
    config.head_dim = head_dim;
    config.qk_norm = ATTN_QK_NORM_HEAD;
    config.qk_norm_epsilon = 1e-6;
    config.qk_norm_weight_offset = 1;
    return config;
}

std::vector<float> numbers(std::int64_t count) {
    std::vector<float> made(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < made.size(); ++i) {
        made[i] = static_cast<float>((i * 37 + 11) % 23) / 8 - 1;
    }
    return made;
}

void steps_are_the_whole() {
    attention::multihead<float> layer(config());
    layer.initialize(3);
    require(layer.config().qk_norm == ATTN_QK_NORM_HEAD, "qk_norm");
    require(layer.config().qk_norm_weight_offset == 1, "weight offset");
    const std::vector<float> input = numbers(rows * embed_dim);
    std::vector<float> whole(input.size()), output(input.size());
    attention::forward_options<float> options;
    options.attention.is_causal = true;
    options.rope.emplace();
    options.rope->base = 500;
    const tensor<const float> all(input.data(), {rows, embed_dim});
    layer.forward(all, all, all, tensor<float>(whole.data(), {rows, embed_dim}), options);

    std::vector<float> keys(kv_heads * room * head_dim), values(keys.size());
    std::int64_t length = 0;
    attention::kv_storage cache(tensor<float>(keys.data(), {kv_heads, room, head_dim}),
                                tensor<float>(values.data(), {kv_heads, room, head_dim}));
    cache.lengths.emplace(&length, attention::sizes{});
    options.cache = cache;
    for (const std::int64_t count : {std::int64_t{3}, std::int64_t{1}, std::int64_t{1}}) {
        const tensor<const float> part(input.data() + length * embed_dim, {count, embed_dim});
        const tensor<float> to(output.data() + length * embed_dim, {count, embed_dim});
        length += count;
        layer.forward(part, part, part, to, options);
    }
    for (std::size_t i = 0; i < whole.size(); ++i) {
        require(std::abs(whole[i] - output[i]) < 1e-5f, "steps");
    }

    /* What is there already is read again by the last row alone. */
    std::vector<float> again(embed_dim);
    layer.forward(tensor<const float>(input.data() + (rows - 1) * embed_dim, {1, embed_dim}),
                  tensor<float>(again.data(), {1, embed_dim}), options);
    for (std::size_t i = 0; i < again.size(); ++i) {
        require(std::abs(again[i] - output[(rows - 1) * embed_dim + i]) < 1e-5f, "read alone");
    }
    length = room + 1;
    require_error(
        [&] {
            layer.forward(all, tensor<float>(output.data(), {rows, embed_dim}), options);
        },
        ATTN_ERROR_VALUE, "cache.lengths: expected 0 to S=6, got 7 at element 0");
}

} // namespace

int main() {
    return run_tests("layer cache", {{"steps_are_the_whole", steps_are_the_whole}});
}
