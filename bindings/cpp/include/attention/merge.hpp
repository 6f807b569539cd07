/* SPDX-License-Identifier: BSD-3-Clause
 *
 * merge.hpp: attention over keys that were attended in parts, put together again.
 */
#ifndef ATTENTION_MERGE_HPP
#define ATTENTION_MERGE_HPP

#include <attention/merge.h>

#include <cstdint>
#include <optional>
#include <type_traits>
#include <vector>

#include "context.hpp"
#include "tensor.hpp"

namespace attention {

/* What attend made of some of the keys. Score is double where that has double, else float. */
template <class Score> struct partial_result {
    keys_of<Score> output; /* (..., L, Ev) */

    /* (..., L); none in any part: the outputs are added as they are, as those of the sigmoid and
     * linear normalizers are */
    std::optional<tensor<const Score>> lse;
};

/* Where merge stores: double, or float, bfloat16 or float16. */
template <class Score>
using merged_of =
    std::conditional_t<is_one_of<Score, double>, tensor<double>, with_halves<result, float>>;

/* attn_merge_params. */
template <class Score> struct merge_options {
    std::optional<keys_of<Score>> sinks; /* (Hq) or (1): one more logit, that no part has counted */

    std::optional<tensor<Score>> lse; /* out: (..., L) */
};

namespace detail {

/* The parts as the two arrays of the C interface. */
template <class Score> struct parts_of {
    std::vector<attn_tensor> outputs, lses;

    explicit parts_of(const std::vector<partial_result<Score>> &parts) {
        bool has_lse = false;
        for (const auto &part : parts) {
            outputs.push_back(*part.output.c_view());
            lses.push_back(part.lse ? *part.lse->c_view() : attn_tensor{});
            has_lse = has_lse || part.lse;
        }
        if (!has_lse) {
            lses.clear();
        }
    }
};

} // namespace detail

/* attn_sdpa_merge: output and options.lse may be those of parts. */
template <class Score>
void merge(const std::vector<partial_result<Score>> &parts, const merged_of<Score> &output,
           const merge_options<Score> &options = {}, const context *chosen = nullptr) {
    const detail::parts_of<Score> made(parts);
    attn_merge_params params{};
    params.struct_size = sizeof params;
    params.sinks = detail::view_of(options.sinks);
    check(attn_sdpa_merge(detail::handle_of(chosen), static_cast<std::int64_t>(parts.size()),
                          made.outputs.data(), made.lses.empty() ? nullptr : made.lses.data(),
                          &params, output.c_view(), detail::view_of(options.lse)));
}

} // namespace attention

#endif
