/* SPDX-License-Identifier: BSD-3-Clause
 *
 * 07_cplusplus.cpp: the library from C++17: handles that free themselves, statuses as exceptions,
 * tensors over std::vector.
 *
 * With a single key the softmax has one weight, 1, so the output does not depend on the query. That
 * is what is checked.
 */
#include <attention/attention.h>

#include <cmath>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

struct destroy {
    void operator()(attn_context *context) const {
        attn_context_destroy(context);
    }
    void operator()(attn_mha *layer) const {
        attn_mha_destroy(layer);
    }
};

using context_handle = std::unique_ptr<attn_context, destroy>;
using layer_handle = std::unique_ptr<attn_mha, destroy>;

void check(attn_status status) {
    if (status != ATTN_OK) {
        throw std::runtime_error(std::string(attn_status_name(status)) + ": " + attn_last_error());
    }
}

context_handle make_context(int32_t num_threads) {
    attn_context_config config{};
    config.struct_size = sizeof config;
    config.num_threads = num_threads;
    attn_context *context = nullptr;
    check(attn_context_create(&config, &context));
    return context_handle(context);
}

layer_handle make_layer(attn_context *context, int64_t embed_dim, int64_t num_heads) {
    attn_mha_config config{};
    config.struct_size = sizeof config;
    config.embed_dim = embed_dim;
    config.num_heads = num_heads;
    attn_mha *created = nullptr;
    check(attn_mha_create(context, &config, &created));
    layer_handle layer(created);
    attn_mha_init_params init{};
    init.struct_size = sizeof init;
    init.seed = 7;
    check(attn_mha_init_parameters(nullptr, created, &init));
    return layer;
}

attn_tensor view(std::vector<float> &data, std::initializer_list<int64_t> shape) {
    attn_tensor tensor;
    check(attn_tensor_init(&tensor, data.data(), ATTN_DTYPE_FLOAT32,
                           static_cast<int32_t>(shape.size()), shape.begin()));
    return tensor;
}

} // namespace

int main() try {
    const context_handle context = make_context(2);
    const layer_handle layer = make_layer(context.get(), 4, 2);

    std::vector<float> query_data{1, 2, 3, 4, -4, 3, -2, 1}, memory_data{0.5f, -1, 2, 0.25f},
        output_data(8);
    const attn_tensor query = view(query_data, {2, 4}), memory = view(memory_data, {1, 4}),
                      output = view(output_data, {2, 4});
    check(attn_mha_forward(context.get(), layer.get(), &query, &memory, &memory, nullptr, &output,
                           nullptr, 0));

    std::cout << "Two different queries over one key get the same output:\n";
    for (std::size_t row = 0; row < 2; row++) {
        for (std::size_t feature = 0; feature < 4; feature++) {
            std::cout << ' ' << output_data[4 * row + feature];
            if (!(std::abs(output_data[feature] - output_data[4 * row + feature]) < 1e-6f)) {
                throw std::runtime_error("the output depends on the query");
            }
        }
        std::cout << '\n';
    }

    const attn_status status = attn_mha_forward(context.get(), layer.get(), &query, &memory,
                                                nullptr, nullptr, &output, nullptr, 0);
    std::cout << "Without a value: " << attn_status_name(status) << ", \"" << attn_last_error()
              << "\"\n";
    if (status != ATTN_ERROR_NULL) {
        throw std::runtime_error("a missing value was not reported");
    }
    return 0;
} catch (const std::exception &error) {
    std::cerr << error.what() << '\n';
    return 1;
}
