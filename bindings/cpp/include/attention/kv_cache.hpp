/* SPDX-License-Identifier: BSD-3-Clause
 *
 * kv_cache.hpp: a cache that has its own memory.
 */
#ifndef ATTENTION_KV_CACHE_HPP
#define ATTENTION_KV_CACHE_HPP

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "kv.hpp"
#include "sdpa.hpp"

namespace attention {

/* Keys and values of B sequences, stored as T, with room for C rows of each. Rows of std::int8_t
 * and int4x2 have a scale each, of std::uint8_t and uint4x2 a scale and a zero: what is attended to
 * is off by half a scale at most. append and truncate need the cache alone; what is const may run
 * at once. */
template <class T> class kv_cache {
    static constexpr bool has_zeros = is_one_of<T, std::uint8_t, uint4x2>;
    static constexpr bool has_scales = has_zeros || is_one_of<T, std::int8_t, int4x2>;
    static_assert(is_half<T> || has_scales || is_one_of<T, float, double, q8_0>,
                  "a cache is of float, double, bfloat16, float16, std::int8_t, std::uint8_t, "
                  "int4x2, uint4x2 or q8_0");

  public:
    /* (B, Hk, C, E) and (B, Hv, C, Ev), E and Ev in elements; all of it is allocated now. */
    kv_cache(const sizes &key_shape, const sizes &value_shape)
        : key_(key_shape), value_(value_shape), lengths_(static_cast<std::size_t>(key_shape[0])) {
    }

    /* L new rows for each sequence, (B, Hk, L, E) and (B, Hv, L, Ev), converted to T. The cache
     * stays as it was if this throws. */
    void append(const any_float_input &key, const any_float_input &value,
                const context *chosen = nullptr) {
        const attn_tensor &rows = *key.c_view();
        const std::int64_t count = rows.rank < 2 ? 0 : rows.shape[rows.rank - 2];
        std::vector<std::int64_t> grown = lengths_;
        for (std::int64_t &length : grown) {
            length = sum_of(length, count, 0);
        }
        store(grown, key, value, {}, chosen);
    }

    /* The new rows of sequence b are rows starts[b] to starts[b + 1] - 1 of key (Hk, total, E) and
     * value (Hv, total, Ev). */
    void append(const any_float_input &key, const any_float_input &value,
                const std::vector<std::int64_t> &starts, const context *chosen = nullptr) {
        std::vector<std::int64_t> grown = lengths_;
        for (std::size_t b = 0; b < grown.size() && b + 1 < starts.size(); ++b) {
            grown[b] = sum_of(grown[b], starts[b + 1], starts[b]);
        }
        append_options options;
        options.starts.emplace(starts.data(), sizes{static_cast<std::int64_t>(starts.size())});
        store(grown, key, value, options, chosen);
    }

    /* query (B, Hq, L, E), or with query_starts (Hq, total, E), attends to the rows in use. */
    template <class Query>
    void attend(const tensor<const Query> &query, const result_of<Query> &output,
                const attend_options<Query> &options = {}, const context *chosen = nullptr) const {
        attention::attend<Query>(query, view<Query>(), output, options, chosen);
    }

    /* What queries of type Query attend to, until the cache changes. */
    template <class Query> kv_of<Query> view() const {
        return places<kv_of<Query>, const T, const float>(key_, value_, lengths_);
    }

    /* Rows in use of each sequence. */
    const std::vector<std::int64_t> &lengths() const noexcept {
        return lengths_;
    }

    /* Forgets the rows of a sequence from `length` on. */
    void truncate(std::size_t sequence, std::int64_t length) {
        std::int64_t &current = lengths_.at(sequence);
        if (length < 0 || length > current) {
            throw std::out_of_range("length: expected 0 to as many rows as are in use");
        }
        current = length;
    }

  private:
    /* The memory of keys, or of values; the scales and zeros are empty where T has none. */
    struct stored_rows {
        explicit stored_rows(const sizes &rows_shape)
            : shape(rows_shape), elements(elements_of(rows_shape)), scale_shape(rows_shape) {
            scale_shape.back() = 1;
            scales.resize(has_scales ? elements_of(scale_shape) : 0);
            zeros.resize(has_zeros ? elements_of(scale_shape) : 0);
        }

        sizes shape;
        std::vector<T> elements;
        sizes scale_shape;
        std::vector<float> scales, zeros;
    };

    /* The view of both, const or not as Element, Scale and Rows are. */
    template <class Kv, class Element, class Scale, class Rows>
    static Kv places(Rows &key, Rows &value, const std::vector<std::int64_t> &lengths) {
        Kv kv(tensor<Element>(key.elements.data(), key.shape),
              tensor<Element>(value.elements.data(), value.shape));
        kv.lengths = lengths_view(lengths);
        if constexpr (has_scales) {
            kv.key_scale.emplace(tensor<Scale>(key.scales.data(), key.scale_shape));
            kv.value_scale.emplace(tensor<Scale>(value.scales.data(), value.scale_shape));
        }
        if constexpr (has_zeros) {
            kv.key_zero.emplace(tensor<Scale>(key.zeros.data(), key.scale_shape));
            kv.value_zero.emplace(tensor<Scale>(value.zeros.data(), value.scale_shape));
        }
        return kv;
    }

    void store(std::vector<std::int64_t> &grown, const any_float_input &key,
               const any_float_input &value, const append_options &options, const context *chosen) {
        kv_append(places<kv_storage, T, float>(key_, value_, grown), key, value, options, chosen);
        lengths_.swap(grown);
    }

    static std::size_t elements_of(const sizes &shape) {
        if (shape.size() != 4) {
            throw std::invalid_argument("kv_cache: expected shapes of 4 axes, (B, H, C, E)");
        }
        return static_cast<std::size_t>(tensor<T>(nullptr, shape).count());
    }
    static index_input lengths_view(const std::vector<std::int64_t> &lengths) {
        return {lengths.data(), sizes{static_cast<std::int64_t>(lengths.size())}};
    }
    /* Of any numbers: the library refuses what is no length. */
    static std::int64_t sum_of(std::int64_t length, std::int64_t end, std::int64_t begin) {
        return static_cast<std::int64_t>(static_cast<std::uint64_t>(length) +
                                         static_cast<std::uint64_t>(end) -
                                         static_cast<std::uint64_t>(begin));
    }

    stored_rows key_, value_;
    std::vector<std::int64_t> lengths_;
};

} // namespace attention

#endif
