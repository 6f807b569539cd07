/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa.hpp: scaled dot-product attention.
 */
#ifndef ATTENTION_SDPA_HPP
#define ATTENTION_SDPA_HPP

#include <attention/sdpa.h>

#include <cstdint>
#include <optional>

#include "context.hpp"
#include "kv.hpp"
#include "tensor.hpp"

namespace attention {

struct window {
    std::int64_t left = -1; /* keys before a row's position; -1: all */
    std::int64_t right = -1;
};

/* Which keys a row sees, by blocks of rows and keys: row i and key j meet in (i / rows, j / columns)
 * of `blocks`, broadcastable to (batch axes, Hq, rows of blocks, columns of blocks): each an
 * attn_block, 0 hidden and never read, 1 visible, 2 visible where attend_options.mask is. */
struct block_mask {
    tensor<const std::uint8_t> blocks;
    std::int64_t rows;    /* of a block */
    std::int64_t columns; /* likewise */

    const attn_tensor *c_view() const noexcept {
        return blocks.c_view();
    }
};

/* Which weights are dropped, each with this probability: attn_dropout, whose batch, head, row and
 * column, the place of a part in a larger problem, may be set too. */
struct dropout : attn_dropout {
    explicit dropout(double probability, std::uint64_t seed = 0, std::uint64_t offset = 0) noexcept
        : attn_dropout{} {
        this->struct_size = sizeof(attn_dropout);
        this->probability = probability;
        this->seed = seed;
        this->offset = offset;
    }
};

/* attn_sdpa_params; T is the type of query. */
template <class T> struct attend_options {
    std::optional<attention::mask> mask;
    std::optional<index_input> mask_start;       /* the key that mask's first column belongs to */
    std::optional<float_input<T>> bias;          /* added to the scores, beside any mask */
    std::optional<float_input<T>> position_bias; /* (Hq or 1, 2 R + 1), added by distance */
    std::optional<attention::block_mask> block_mask;
    std::optional<attention::dropout> dropout;
    bool is_causal = false;
    bool align_end = false; /* the last query stands at the last key */
    bool enable_gqa = false;
    std::optional<double> scale; /* else 1 / sqrt(E) */
    double softcap = 0;
    std::optional<attention::window> window;
    std::int32_t normalizer = ATTN_NORMALIZER_SOFTMAX;
    std::optional<index_input> query_offset, key_lengths;
    std::optional<float_input<T>> alibi_slopes, sinks;
    std::optional<index_input> query_starts; /* (B + 1): query is (Hq, total, E), ragged */

    std::optional<tensor<score_of<T>>> lse; /* out: (..., Hq, L) */
    std::optional<result_of<T>> weights; /* out: (..., Hq, L, S), or (..., L, S): the heads' mean */
    std::optional<tensor<score_of<T>>> scores; /* out: (..., Hq, L, S), those of scores_stage */
    std::int32_t scores_stage = ATTN_SCORE_SCALED;
};

/* What a call's outputs are shaped like. */
struct output_shapes {
    sizes output;
    sizes lse; /* empty where the normalizer has none */
    sizes weights;
    sizes averaged_weights;
    sizes scores;
};

namespace detail {

template <class T> attn_sdpa_params params_of(const attend_options<T> &options) {
    attn_sdpa_params params{};
    params.struct_size = sizeof params;
    params.is_causal = options.is_causal;
    params.align_end = options.align_end;
    params.enable_gqa = options.enable_gqa;
    params.softcap = options.softcap;
    params.normalizer = options.normalizer;
    params.mask = view_of(options.mask);
    params.mask_kind = options.mask ? options.mask->kind() : ATTN_MASK_NONE;
    params.mask_start = view_of(options.mask_start);
    params.bias = view_of(options.bias);
    params.position_bias = view_of(options.position_bias);
    params.block_mask = view_of(options.block_mask);
    params.block_rows = options.block_mask ? options.block_mask->rows : 0;
    params.block_columns = options.block_mask ? options.block_mask->columns : 0;
    params.dropout = options.dropout ? &*options.dropout : nullptr;
    params.query_offset = view_of(options.query_offset);
    params.key_lengths = view_of(options.key_lengths);
    params.alibi_slopes = view_of(options.alibi_slopes);
    params.sinks = view_of(options.sinks);
    params.query_starts = view_of(options.query_starts);
    params.lse = view_of(options.lse);
    params.weights = view_of(options.weights);
    params.scores = view_of(options.scores);
    params.scores_stage = options.scores_stage;
    if (options.scale) {
        params.set |= ATTN_SDPA_SET_SCALE;
        params.scale = *options.scale;
    }
    if (options.window) {
        params.set |= ATTN_SDPA_SET_WINDOW;
        params.window_left = options.window->left;
        params.window_right = options.window->right;
    }
    return params;
}

/* The structs of a call whose keys and values lie in `kv`; one points to the other. */
template <class T> struct kv_params {
    attn_kv places;
    attn_sdpa_params params;

    kv_params(const kv_of<T> &kv, const attend_options<T> &options)
        : places(kv_view_of(kv)), params(params_of(options)) {
        params.kv = &places;
    }
    kv_params(const kv_params &) = delete;
    kv_params &operator=(const kv_params &) = delete;
};

/* Of attn_sdpa_outputs or attn_mha_outputs. */
template <class Outputs> output_shapes shapes_of(const Outputs &outputs) {
    return {shape_of(outputs.output), shape_of(outputs.lse), shape_of(outputs.weights),
            shape_of(outputs.averaged_weights), shape_of(outputs.scores)};
}

} // namespace detail

/* attn_sdpa: query (..., Hq, L, E), key (..., Hk, S, E), value (..., Hv, S, Ev), output (..., Hq,
 * L, Ev). */
template <class T>
void attend(const tensor<const T> &query, const keys_of<T> &key, const keys_of<T> &value,
            const result_of<T> &output, const attend_options<T> &options = {},
            const context *chosen = nullptr) {
    const attn_sdpa_params params = detail::params_of(options);
    check(attn_sdpa(detail::handle_of(chosen), query.c_view(), key.c_view(), value.c_view(),
                    &params, output.c_view(), nullptr, 0));
}

/* The same with keys and values in a cache, ragged or in pages; S is as attention/sdpa.h says. */
template <class T>
void attend(const tensor<const T> &query, const kv_of<T> &kv, const result_of<T> &output,
            const attend_options<T> &options = {}, const context *chosen = nullptr) {
    const detail::kv_params<T> call(kv, options);
    check(attn_sdpa(detail::handle_of(chosen), query.c_view(), nullptr, nullptr, &call.params,
                    output.c_view(), nullptr, 0));
}

/* For whoever allocates the outputs of attend; the options' own outputs are not looked at. */
template <class T>
output_shapes describe_outputs(const tensor<const T> &query, const keys_of<T> &key,
                               const keys_of<T> &value, const attend_options<T> &options = {}) {
    const attn_sdpa_params params = detail::params_of(options);
    attn_sdpa_outputs outputs{};
    outputs.struct_size = sizeof outputs;
    check(attn_sdpa_describe_outputs(query.c_view(), key.c_view(), value.c_view(), &params,
                                     &outputs));
    return detail::shapes_of(outputs);
}

template <class T>
output_shapes describe_outputs(const tensor<const T> &query, const kv_of<T> &kv,
                               const attend_options<T> &options = {}) {
    const detail::kv_params<T> call(kv, options);
    attn_sdpa_outputs outputs{};
    outputs.struct_size = sizeof outputs;
    check(attn_sdpa_describe_outputs(query.c_view(), nullptr, nullptr, &call.params, &outputs));
    return detail::shapes_of(outputs);
}

/* What attend would run for the same arguments, and why. */
template <class T>
attn_sdpa_report explain(const tensor<const T> &query, const keys_of<T> &key,
                         const keys_of<T> &value, const result_of<T> &output,
                         const attend_options<T> &options = {}, const context *chosen = nullptr) {
    const attn_sdpa_params params = detail::params_of(options);
    attn_sdpa_report report{};
    report.struct_size = sizeof report;
    check(attn_sdpa_explain(detail::handle_of(chosen), query.c_view(), key.c_view(), value.c_view(),
                            &params, output.c_view(), &report));
    return report;
}

template <class T>
attn_sdpa_report explain(const tensor<const T> &query, const kv_of<T> &kv,
                         const result_of<T> &output, const attend_options<T> &options = {},
                         const context *chosen = nullptr) {
    const detail::kv_params<T> call(kv, options);
    attn_sdpa_report report{};
    report.struct_size = sizeof report;
    check(attn_sdpa_explain(detail::handle_of(chosen), query.c_view(), nullptr, nullptr,
                            &call.params, output.c_view(), &report));
    return report;
}

} // namespace attention

#endif
