/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_wrapper.cpp: what the headers add to the C interface. The last line is a summary.
 */
#include <atomic>
#include <cmath>
#include <thread>

#include <attention.hpp>

#include "wrapper_checks.hpp"

namespace {

using attention::attend_options;
using attention::context;
using attention::context_config;
using attention::forward_options;
using attention::mask;
using attention::multihead;
using attention::sizes;
using attention::tensor;

const std::vector<float> elements = numbers(heads * rows * features);
const tensor<const float> tokens(elements.data(), {heads, rows, features});

std::vector<float> attended(const attend_options<float> &options) {
    std::vector<float> output = room(tokens.shape());
    attention::attend(tokens, tokens, tokens, tensor<float>(output.data(), tokens.shape()),
                      options);
    return output;
}

void views_are_rearranged_in_place() {
    const tensor<const float> packed(elements.data(), {rows, embed_dim});
    const auto split = packed.split_heads(heads);
    require(split.shape() == sizes{heads, rows, features}, "split_heads");
    require(split.merge_heads().shape() == packed.shape(), "merge_heads");
    const auto head = split.selected(0, 1);
    require(head.shape() == sizes{rows, features}, "selected: its shape");
    require(head.data() == elements.data() + features, "selected: its data");
    require_error([&] { (void)split.selected(0, heads); }, ATTN_ERROR_VALUE,
                  "index: expected a position within axis 0 of length 2, got 2");
}

void bias_is_added_like_an_additive_mask() {
    const std::vector<float> added = numbers(heads * rows * rows);
    const tensor<const float> view(added.data(), {heads, rows, rows});
    attend_options<float> masked, biased;
    masked.mask = mask::additive(view);
    biased.bias = view;
    const std::vector<float> expected = attended(masked);
    require(attended(biased) == expected, "a bias is no additive mask");
    require(expected != attended({}), "the mask changes nothing");
}

void align_end_stands_for_an_offset() {
    const std::vector<float> last = numbers(features);
    const tensor<const float> query(last.data(), {1, features});
    const tensor<const float> keys = tokens.selected(0, 0);
    const std::int32_t offset = rows - 1;
    attend_options<float> aligned, placed;
    aligned.is_causal = placed.is_causal = aligned.align_end = true;
    placed.query_offset = tensor<const std::int32_t>(&offset, {});
    std::vector<float> output(features), expected(features);
    const tensor<float> to(output.data(), {1, features}), to_expected(expected.data(), to.shape());
    attention::attend(query, keys, keys, to, aligned);
    attention::attend(query, keys, keys, to_expected, placed);
    require(output == expected, "align_end is no offset of S - L");
    placed.align_end = true;
    require_error([&] { attention::attend(query, keys, keys, to, placed); }, ATTN_ERROR_VALUE,
                  "query_offset: expected NULL beside align_end, which sets it");
}

/* Weights of a view's rank, in memory that describe_outputs measured. */
template <class Call>
void require_mean(const attention::output_shapes &shapes, std::int64_t num_heads, Call call) {
    std::vector<float> weights = room(shapes.weights), averaged = room(shapes.averaged_weights);
    call(tensor<float>(weights.data(), shapes.weights));
    call(tensor<float>(averaged.data(), shapes.averaged_weights));
    require(weights.size() == averaged.size() * static_cast<std::size_t>(num_heads),
            "one matrix for each head");
    float largest = 0;
    for (std::size_t i = 0; i < averaged.size(); ++i) {
        const float mean = (weights[i] + weights[i + averaged.size()]) / 2;
        require(std::fabs(mean - averaged[i]) < 1e-6F, "a weight is not the mean");
        largest = std::fmax(largest, mean);
    }
    require(largest > 0, "no weights");
}

void weights_are_averaged_by_their_rank() {
    attend_options<float> options;
    const auto shapes = attention::describe_outputs(tokens, tokens, tokens, options);
    require(shapes.output == tokens.shape() && shapes.lse == sizes{heads, rows}, "output, lse");
    require(shapes.weights == sizes{heads, rows, rows}, "weights");
    require(shapes.averaged_weights == sizes{rows, rows}, "averaged_weights");
    require_mean(shapes, heads, [&](const tensor<float> &weights) {
        options.weights = weights;
        (void)attended(options);
    });
    options.normalizer = ATTN_NORMALIZER_LINEAR;
    require(attention::describe_outputs(tokens, tokens, tokens, options).lse.empty(),
            "linear attention has no lse");
}

multihead<float> make_layer(const context *chosen = nullptr) {
    attention::multihead_config config;
    config.embed_dim = embed_dim;
    config.num_heads = heads;
    config.bias = false;
    multihead<float> layer(config, chosen);
    layer.initialize(1, chosen);
    return layer;
}

void layer_is_described_and_read() {
    const auto layer = make_layer();
    const auto config = layer.config();
    require(config.head_dim == features && config.kdim == embed_dim && !config.bias, "config");
    require(layer.parameters().front() ==
                std::pair<std::string, sizes>("in_proj_weight", {3 * embed_dim, embed_dim}),
            "parameters");
    std::vector<float> values = room({embed_dim, embed_dim});
    const tensor<float> to(values.data(), {embed_dim, embed_dim});
    layer.read("out_proj.weight", to);
    auto other = make_layer();
    other.initialize(2);
    other.load("out_proj.weight", to);
    std::vector<float> again = room(to.shape());
    other.read("out_proj.weight", tensor<float>(again.data(), to.shape()));
    require(values == again && values != room(to.shape()), "what is loaded is read");
}

void layer_passes_options_to_its_attention() {
    const auto layer = make_layer();
    const tensor<const float> x(elements.data(), {rows, embed_dim});
    std::vector<float> output = room(x.shape());
    const tensor<float> to(output.data(), x.shape());
    forward_options<float> options;
    const auto shapes = layer.describe_outputs(x, x, x, options);
    require(shapes.output == x.shape() && shapes.weights == sizes{heads, rows, rows}, "shapes");
    require_mean(shapes, heads, [&](const tensor<float> &weights) {
        options.attention.weights = weights;
        layer.forward(x, x, x, to, options);
    });
    const auto report = layer.explain(x, x, x, to, options);
    require(report.layer.workspace_bytes > 0 && report.attention.engine == ATTN_ENGINE_FUSED &&
                report.attention.reason != nullptr && report.layer.attention == nullptr,
            "explain");
    options.attention.normalizer = 99;
    require_error([&] { layer.forward(x, x, x, to, options); }, ATTN_ERROR_UNSUPPORTED,
                  "attention.normalizer: expected a value of enum attn_normalizer, 0 to 2 in "
                  "this version, got 99");
}

/* Memory that counts what it gave, and gives none after `limit` pieces. */
class counting : public std::pmr::memory_resource {
  public:
    std::atomic<int> limit{1000}, live{0}, given{0};

  private:
    void *do_allocate(std::size_t bytes, std::size_t alignment) override {
        if (given >= limit) {
            throw std::bad_alloc();
        }
        ++live;
        ++given;
        return std::pmr::new_delete_resource()->allocate(bytes, alignment);
    }
    void do_deallocate(void *block, std::size_t bytes, std::size_t alignment) override {
        --live;
        std::pmr::new_delete_resource()->deallocate(block, bytes, alignment);
    }
    bool do_is_equal(const std::pmr::memory_resource &other) const noexcept override {
        return this == &other;
    }
};

void memory_is_that_of_the_context() {
    counting memory;
    {
        context_config config;
        config.memory = &memory;
        config.num_threads = 2;
        const context made(config);
        const auto layer = make_layer(&made);
        attention::start(&made);
        require(memory.live > 0, "nothing was allocated");
        memory.limit = 0;
        std::vector<float> output = room(tokens.shape());
        const tensor<float> to(output.data(), tokens.shape());
        try {
            attention::attend(tokens, tokens, tokens, to, {}, &made);
            require(false, "attended without memory");
        } catch (const attention::error &refusal) {
            require(refusal.code() == ATTN_ERROR_MEMORY, refusal.what());
        }
    }
    require(memory.live == 0, "memory is lost");
}

void context_tells_what_it_runs_with() {
    context_config config;
    config.num_threads = 2;
    config.gemm = ATTN_GEMM_NATIVE;
    config.float32_weights = true;
    const context made(config);
    const attn_context_info info = attention::describe(&made);
    require(info.num_threads == 2 && info.attention_gemm == ATTN_GEMM_NATIVE, "describe");
    require(attention::describe().num_threads >= 1, "the default context");
    config.engine = 99;
    require_error([&] { context refused(config); }, ATTN_ERROR_UNSUPPORTED,
                  "engine: expected a value of enum attn_engine, 0 to 2 in this version, got 99");
}

/* A thread for every other task, counting the tasks. */
class every_other : public attention::thread_pool {
  public:
    std::atomic<std::int64_t> tasks{0};
    bool refuses = false;

    bool run(std::int64_t count, const std::function<void(std::int64_t)> &task) noexcept override {
        if (refuses) {
            return false;
        }
        tasks += count;
        const auto run_from = [&](std::int64_t first) {
            for (std::int64_t i = first; i < count; i += 2) {
                task(i);
            }
        };
        std::thread other(run_from, 1);
        run_from(0);
        other.join();
        return true;
    }
};

void work_is_done_by_the_thread_pool() {
    every_other pool;
    context_config config;
    config.pool = &pool;
    config.parallel_for_width = 3;
    const context made(config);
    require(attention::describe(&made).num_threads == 3, "the width of the pool");
    const std::vector<float> many = numbers(512 * features);
    const tensor<const float> x(many.data(), {512, features});
    std::vector<float> output = room(x.shape()), expected = room(x.shape());
    const tensor<float> to(output.data(), x.shape());
    attention::attend(x, x, x, tensor<float>(expected.data(), x.shape()));
    attention::attend(x, x, x, to, {}, &made);
    require(output == expected && pool.tasks > 1, "the pool computes otherwise");
    pool.refuses = true;
    try {
        attention::attend(x, x, x, to, {}, &made);
        require(false, "attended without threads");
    } catch (const attention::error &refusal) {
        require(refusal.code() == ATTN_ERROR_THREAD, refusal.what());
    }
}

void selftest_tells_of_each_check() {
    std::vector<std::string> told;
    attention::selftest(nullptr, [&](const char *name, attn_status status, const char *detail) {
        require(status == ATTN_OK && *detail == '\0', detail);
        told.emplace_back(name);
    });
    require(told.size() >= 4, "checks are missing");
    bool is_thrown = false;
    try {
        attention::selftest(nullptr, [](const char *, attn_status, const char *) { throw 1; });
    } catch (int) {
        is_thrown = true;
    }
    require(is_thrown, "what a visitor throws is lost");
}

} // namespace

int main() {
    return run_tests("wrapper", {
        {"views_are_rearranged_in_place", views_are_rearranged_in_place},
        {"bias_is_added_like_an_additive_mask", bias_is_added_like_an_additive_mask},
        {"align_end_stands_for_an_offset", align_end_stands_for_an_offset},
        {"weights_are_averaged_by_their_rank", weights_are_averaged_by_their_rank},
        {"layer_is_described_and_read", layer_is_described_and_read},
        {"layer_passes_options_to_its_attention", layer_passes_options_to_its_attention},
        {"memory_is_that_of_the_context", memory_is_that_of_the_context},
        {"context_tells_what_it_runs_with", context_tells_what_it_runs_with},
        {"work_is_done_by_the_thread_pool", work_is_done_by_the_thread_pool},
        {"selftest_tells_of_each_check", selftest_tells_of_each_check},
    });
}
