/* SPDX-License-Identifier: BSD-3-Clause
 *
 * kv.hpp: where the keys and values of sequences lie: in a cache that grows, one behind the other,
 * or in pages. attention/kv.h says which row of memory has which key.
 */
#ifndef ATTENTION_KV_HPP
#define ATTENTION_KV_HPP

#include <attention/kv.h>

#include <optional>

#include "context.hpp"
#include "tensor.hpp"

namespace attention {

/* attn_kv, a view as its tensors are: key (batch axes, Hk, C, E), with starts (Hk, total, E), with
 * page_table (pages, Hk, page, E); value likewise. Values of std::int8_t, std::uint8_t, int4x2 and
 * uint4x2 mean (value - zero) * scale; the scale has as many axes as key, each length divides key's
 * (in values), and the zero likewise. */
template <class Rows, class Scales> struct kv_places {
    Rows key, value;
    std::optional<index_input> page_table, page_starts; /* (batch axes, M), or (P) and (B + 1) */
    std::optional<index_input> starts;                  /* (B + 1) */
    std::optional<index_input> lengths;                 /* rows in use of a sequence; else all */
    std::optional<Scales> key_scale, value_scale;       /* of integers; else 1 */
    std::optional<Scales> key_zero, value_zero;         /* likewise; else 0, unsigned 128 or 8 */

    kv_places(const Rows &keys, const Rows &values) : key(keys), value(values) {
    }
};

/* Keys, or values, of a cache beside queries of type T. */
template <class T>
using stored_keys_of = std::conditional_t<
    is_one_of<T, double>, input<double>,
    with_halves<input, float, std::int8_t, std::uint8_t, int4x2, uint4x2, q8_0, q4_0>>;

/* What queries of type T attend to. */
template <class T> using kv_of = kv_places<stored_keys_of<T>, with_halves<input, float>>;

/* What new rows are stored in. A scale, and a zero, of each row is written with it; a coarser one
 * is read. */
using kv_storage =
    kv_places<with_halves<result, float, double, std::int8_t, std::uint8_t, int4x2, uint4x2, q8_0>,
              with_halves<result, float>>;

/* attn_kv_append_params: without options as many new rows for each sequence, at the end of its rows
 * in use. */
struct append_options {
    std::optional<index_input> starts;    /* (B + 1): the new rows of sequences, in (H, total, E) */
    std::optional<index_input> positions; /* (batch axes, L) or (total): where they go */
};

namespace detail {

/* Points to the tensors of `places`. */
template <class Rows, class Scales> attn_kv kv_view_of(const kv_places<Rows, Scales> &places) {
    attn_kv kv{};
    kv.struct_size = sizeof kv;
    kv.key = places.key.c_view();
    kv.value = places.value.c_view();
    kv.page_table = view_of(places.page_table);
    kv.page_starts = view_of(places.page_starts);
    kv.starts = view_of(places.starts);
    kv.lengths = view_of(places.lengths);
    kv.key_scale = view_of(places.key_scale);
    kv.value_scale = view_of(places.value_scale);
    kv.key_zero = view_of(places.key_zero);
    kv.value_zero = view_of(places.value_zero);
    return kv;
}

} // namespace detail

/* attn_kv_append: stores new rows, converted, key (batch axes, Hk, L, E) and value (batch axes, Hv,
 * L, Ev); kv's lengths count them already. */
inline void kv_append(const kv_storage &kv, const any_float_input &key,
                      const any_float_input &value, const append_options &options = {},
                      const context *chosen = nullptr) {
    const attn_kv places = detail::kv_view_of(kv);
    attn_kv_append_params params{};
    params.struct_size = sizeof params;
    params.starts = detail::view_of(options.starts);
    params.positions = detail::view_of(options.positions);
    check(
        attn_kv_append(detail::handle_of(chosen), &places, key.c_view(), value.c_view(), &params));
}

} // namespace attention

#endif
