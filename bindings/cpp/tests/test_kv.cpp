/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_kv.cpp: keys and values in caches, ragged and in pages, and ragged queries.
 */
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include <attention.hpp>

#include "wrapper_checks.hpp"

namespace {

using attention::attend_options;
using attention::kv_cache;
using attention::kv_of;
using attention::kv_storage;
using attention::tensor;

/* Three sequences: where their keys and their queries are, one behind the other. */
const std::vector<std::int64_t> key_starts{0, 5, 6, 13}, query_starts{0, 2, 3, 6};
constexpr std::int64_t sequences = 3, num_keys = 13, num_queries = 6, page = 4;

const std::vector<float> key_elements = numbers(heads * num_keys * features),
                         value_elements = [] {
                             auto made = numbers(heads * num_keys * features + 7);
                             made.erase(made.begin(), made.begin() + 7);
                             return made;
                         }(),
                         query_elements = numbers(heads * num_queries * features);
const tensor<const float> keys(key_elements.data(), {heads, num_keys, features}),
    values(value_elements.data(), keys.shape()),
    queries(query_elements.data(), {heads, num_queries, features});

tensor<const std::int64_t> view_of(const std::vector<std::int64_t> &numbers) {
    return {numbers.data(), {static_cast<std::int64_t>(numbers.size())}};
}

attend_options<float> decoding() {
    attend_options<float> options;
    options.is_causal = options.align_end = true;
    return options;
}

std::vector<float> attended(const kv_of<float> &kv) {
    auto options = decoding();
    options.query_starts = view_of(query_starts);
    std::vector<float> output = room(queries.shape());
    attention::attend(queries, kv, tensor<float>(output.data(), queries.shape()), options);
    return output;
}

/* The rows of sequence b. */
template <class T>
tensor<T> part(const tensor<T> &rows, const std::vector<std::int64_t> &starts, std::size_t b) {
    return rows.sliced(1, starts[b], starts[b + 1] - starts[b]);
}

std::vector<float> attended_one_by_one() {
    std::vector<float> output = room(queries.shape());
    const tensor<float> to(output.data(), queries.shape());
    for (std::size_t b = 0; b < sequences; ++b) {
        attention::attend(part(queries, query_starts, b), part(keys, key_starts, b),
                          part(values, key_starts, b), part(to, query_starts, b), decoding());
    }
    return output;
}

kv_of<float> ragged() {
    kv_of<float> kv(keys, values);
    kv.starts = view_of(key_starts);
    return kv;
}

/* Pages in no order; an entry that no key needs is no page. */
struct paged {
    std::vector<std::int32_t> table{3, 1, /**/ 5, -1, /**/ 0, 2};
    std::vector<std::int64_t> lengths{5, 1, 7};
    attention::sizes shape{6, heads, page, features};
    std::vector<float> key = room(shape), value = room(shape);

    template <class Kv> Kv places() {
        Kv kv(tensor<float>(key.data(), shape), tensor<float>(value.data(), shape));
        kv.page_table = tensor<const std::int32_t>(table.data(), {sequences, 2});
        kv.lengths = view_of(lengths);
        return kv;
    }
    void fill() {
        attention::append_options options;
        options.starts = view_of(key_starts);
        attention::kv_append(places<kv_storage>(), keys, values, options);
    }
};

void pages_are_ragged_rows_are_single_sequences() {
    const std::vector<float> expected = attended_one_by_one();
    require(expected != room(queries.shape()), "nothing is attended to");
    require(attended(ragged()) == expected, "ragged keys are others");
    paged pages;
    pages.fill();
    require(attended(pages.places<kv_of<float>>()) == expected, "keys in pages are others");
}

void positions_say_where_rows_go() {
    paged pages;
    const std::vector<std::int32_t> positions{2, -1, 6};
    attention::append_options options;
    options.positions = tensor<const std::int32_t>(positions.data(), {sequences, 1});
    const tensor<const float> rows(key_elements.data(), {sequences, heads, 1, features});
    attention::kv_append(pages.places<kv_storage>(), rows, rows, options);
    /* page 3 has rows 0 to 3 of sequence 0, page 2 rows 4 to 7 of sequence 2 */
    auto expected = room(pages.shape);
    for (const auto &[page_number, row, sequence] : {std::array{3, 2, 0}, std::array{2, 2, 2}}) {
        for (std::int64_t h = 0; h < heads; ++h) {
            const auto *from = rows.selected(0, sequence).selected(0, h).data();
            std::copy_n(from, features,
                        expected.begin() + ((page_number * heads + h) * page + row) * features);
        }
    }
    require(pages.key == expected && pages.value == expected, "rows went elsewhere");
}

void outputs_are_those_of_the_places() {
    auto options = decoding();
    options.query_starts = view_of(query_starts);
    const auto shapes = attention::describe_outputs(queries, ragged(), options);
    require(shapes.output == queries.shape() &&
                shapes.weights == attention::sizes{heads, num_queries, num_keys},
            "describe_outputs");
    std::vector<float> output = room(shapes.output);
    const auto report = attention::explain(
        queries, ragged(), tensor<float>(output.data(), shapes.output), options);
    require(report.engine == ATTN_ENGINE_FUSED, "explain");
}

void cache_grows_and_shrinks() {
    const attention::sizes shape{sequences, heads, 8, features};
    kv_cache<float> cache(shape, shape);
    const std::vector<std::int64_t> none(sequences);
    require(cache.lengths() == none, "a new cache is not empty");
    cache.append(keys, values, key_starts);
    require(cache.lengths() == std::vector<std::int64_t>{5, 1, 7}, "lengths");
    require(attended(cache.view<float>()) == attended_one_by_one(), "a cache is no pages");

    const auto first = tensor<const float>(key_elements.data(), {sequences, heads, 1, features});
    cache.append(first, first);
    require(cache.lengths() == std::vector<std::int64_t>{6, 2, 8}, "a row for each");
    require_error([&] { cache.append(first, first); }, ATTN_ERROR_VALUE,
                  "kv.lengths: expected 0 to S=8, got 9 at element 2");
    require(cache.lengths() == std::vector<std::int64_t>{6, 2, 8}, "a refused row is counted");
    for (std::size_t b = 0; b < sequences; ++b) {
        cache.truncate(b, cache.lengths()[b] - 1);
    }
    require(attended(cache.view<float>()) == attended_one_by_one(), "truncate");
}

void cache_attends_in_another_type() {
    kv_cache<attention::bfloat16> cache({1, heads, 4, features}, {1, heads, 4, features});
    const auto rows = keys.sliced(1, 0, 3);
    cache.append(tensor<const float>(rows.data(), {1, heads, 3, features},
                                     {0, num_keys * features, features, 1}),
                 tensor<const float>(rows.data(), {1, heads, 3, features},
                                     {0, num_keys * features, features, 1}));
    /* numbers() has few bits: they stay as they are */
    const auto query = queries.sliced(1, 0, 1);
    std::vector<float> output(heads * features), expected(heads * features);
    const attention::sizes shape{heads, 1, features};
    attention::attend(query, rows, rows, tensor<float>(expected.data(), shape));
    cache.attend(query, tensor<float>(output.data(), {1, heads, 1, features}));
    require(output == expected, "16 bits are other numbers");
}

/* Three rows of two heads, from 0 to 127 / 64: of int8 their scale is 1 / 64, and so they are
 * integers exactly. */
std::vector<float> exact_rows() {
    std::vector<float> made = numbers(heads * 3 * features);
    for (std::size_t i = 0; i < made.size(); ++i) {
        made[i] = i % features == 0 ? 127.0F / 64 : (made[i] + 1) / 2;
    }
    return made;
}

const attention::sizes three_rows{1, heads, 3, features}, one_row{1, heads, 1, features};

/* What one query attends to in places, or a cache's. */
std::vector<float> seen_by_one(const kv_of<float> &kv) {
    std::vector<float> output = room(one_row);
    attention::attend(tensor<const float>(query_elements.data(), one_row), kv,
                      tensor<float>(output.data(), one_row));
    return output;
}

/* Sums of weights times values that are off by half a scale each, beside what float32 rounds. */
void require_within(float half_scale, const std::vector<float> &found,
                    const std::vector<float> &expected) {
    require(expected != std::vector<float>(found.size()), "nothing is attended to");
    for (std::size_t i = 0; i < found.size(); ++i) {
        require(std::abs(found[i] - expected[i]) <= half_scale + 1e-6F, "integers are others");
    }
}

void integers_mean_numbers() {
    const std::vector<float> key = exact_rows();
    const tensor<const float> key_rows(key.data(), three_rows),
        value_rows(value_elements.data(), three_rows);
    const std::vector<float> expected = seen_by_one({key_rows, value_rows});

    const attention::sizes shape{1, heads, 4, features}, scale_shape{1, heads, 4, 1};
    std::vector<std::int8_t> stored_keys(heads * 4 * features), stored_values(stored_keys.size());
    std::vector<float> key_scales(heads * 4), value_scales(heads * 4);
    const std::vector<std::int64_t> lengths{3};
    kv_storage storage(tensor<std::int8_t>(stored_keys.data(), shape),
                       tensor<std::int8_t>(stored_values.data(), shape));
    storage.lengths = view_of(lengths);
    storage.key_scale.emplace(key_scales.data(), scale_shape);
    storage.value_scale.emplace(value_scales.data(), scale_shape);
    attention::kv_append(storage, key_rows, value_rows);
    for (std::size_t i = 0; i < key.size(); ++i) {
        const std::size_t row = i / features + i / (3 * features);
        const std::size_t at = row * features + i % features;
        require(static_cast<float>(stored_keys[at]) * key_scales[row] == key[i], "keys");
        const float value = static_cast<float>(stored_values[at]) * value_scales[row];
        require(std::abs(value - value_elements[i]) <= value_scales[row] * 0.50001F, "values");
    }

    kv_of<float> kv(tensor<const std::int8_t>(stored_keys.data(), shape),
                    tensor<const std::int8_t>(stored_values.data(), shape));
    kv.lengths = view_of(lengths);
    kv.key_scale.emplace(key_scales.data(), scale_shape);
    kv.value_scale.emplace(value_scales.data(), scale_shape);
    require_within(*std::max_element(value_scales.begin(), value_scales.end()) / 2,
                   seen_by_one(kv), expected);
    kv.key = key_rows;
    require_error([&] { (void)seen_by_one(kv); }, ATTN_ERROR_VALUE,
                  "kv.key_scale: expected NULL beside kv.key of float32, whose elements are not "
                  "scaled");
}

/* A cache of Element has keys exactly, integers times step from 0 to highest, and values from -1 to
 * 1, whose scale is at most `scale`. */
template <class Element>
void cache_is_near(std::int64_t values_in_element, int highest, float step, float scale) {
    const std::int64_t width = std::max(features, values_in_element);
    const attention::sizes shape{1, heads, 3, width}, row{1, heads, 1, width},
        room_shape{1, heads, 4, width / values_in_element};
    std::vector<float> key = room(shape);
    const std::vector<float> value = numbers(heads * 3 * width), query = numbers(heads * width);
    for (std::size_t i = 0; i < key.size(); ++i) {
        const bool is_first = i % static_cast<std::size_t>(width) == 0;
        key[i] = static_cast<float>(is_first ? highest : static_cast<int>(i) * 5 % highest) * step;
    }
    const tensor<const float> keys_in(key.data(), shape), values_in(value.data(), shape),
        query_in(query.data(), row);
    std::vector<float> expected = room(row), found = room(row);
    attention::attend(query_in, keys_in, values_in, tensor<float>(expected.data(), row));

    kv_cache<Element> cache(room_shape, room_shape);
    cache.append(keys_in.sliced(2, 0, 2), values_in.sliced(2, 0, 2));
    cache.append(keys_in.sliced(2, 2, 1), values_in.sliced(2, 2, 1));
    cache.attend(query_in, tensor<float>(found.data(), row));
    require_within(scale / 2, found, expected);
}

void caches_of_integers_are_near() {
    cache_is_near<std::int8_t>(1, 127, 1.0F / 64, 1.0F / 127);
    cache_is_near<std::uint8_t>(1, 255, 1.0F / 128, 2.0F / 255);
    cache_is_near<attention::int4x2>(2, 7, 1.0F / 4, 1.0F / 7);
    cache_is_near<attention::uint4x2>(2, 15, 1.0F / 8, 2.0F / 15);
    /* its scale is rounded to float16 afterwards, which moves a value of 1 by 1 / 2048 at most */
    cache_is_near<attention::q8_0>(32, 127, 1.0F / 64, 1.0F / 127 + 1.0F / 1024);
    const kv_cache<std::uint8_t> unsigned_cache({1, 1, 4, 2}, {1, 1, 4, 2});
    const kv_cache<std::int8_t> signed_cache({1, 1, 4, 2}, {1, 1, 4, 2});
    require(unsigned_cache.view<float>().key_zero && !signed_cache.view<float>().key_zero, "zeros");
}

/* A block that a file of ggml's has: scale 1 and 32 values from -8 to 7. */
void blocks_of_four_bits_are_read() {
    attention::q4_0 block;
    block.scale = attention::float16(1);
    for (std::uint8_t i = 0; i < 16; ++i) {
        block.bits[i] = static_cast<std::uint8_t>(i | (15 - i) << 4);
    }
    const tensor<const attention::q4_0> stored(&block, {1, 1});
    const std::vector<float> query(32);
    std::vector<float> output(32);
    attention::attend(tensor<const float>(query.data(), {1, 32}), kv_of<float>(stored, stored),
                      tensor<float>(output.data(), {1, 32}));
    for (std::size_t i = 0; i < 16; ++i) {
        const auto number = static_cast<float>(i);
        require(output[i] == number - 8 && output[16 + i] == 7 - number, "a block's values");
    }
}

void what_does_not_fit_is_told() {
    auto kv = ragged();
    const std::vector<std::int64_t> starts{0, 5, 6, 14};
    kv.starts = view_of(starts);
    require_error([&] { (void)attended(kv); }, ATTN_ERROR_VALUE,
                  "kv.starts: expected 6 (the element before it) to 13, got 14 at element 3");
    const attention::sizes shape{sequences, heads, 8, features};
    kv_cache<float> cache(shape, shape);
    const auto largest = std::numeric_limits<std::int64_t>::max();
    require_error([&] { cache.append(keys, values, {0, largest, -largest, 13}); },
                  ATTN_ERROR_VALUE,
                  "starts: expected 0 (the element before it) to 13, got 9223372036854775807 at "
                  "element 1");
    require_error([&] { cache.append(keys, values, {0, 13}); }, ATTN_ERROR_SHAPE,
                  "starts: expected shape (B + 1 = 4), got (2)");
    require_error([&] { cache.append(keys.selected(0, 0).selected(0, 0), values); },
                  ATTN_ERROR_SHAPE, "key: expected shape (3, H=2, L, E=4), got (4)");
    require(cache.lengths() == std::vector<std::int64_t>(sequences), "lengths");
    bool is_refused = false;
    try {
        cache.truncate(0, 1);
    } catch (const std::out_of_range &) {
        is_refused = true;
    }
    require(is_refused, "truncated to more rows than there are");
}

} // namespace

int main() {
    return run_tests("kv", {
        {"pages_are_ragged_rows_are_single_sequences", pages_are_ragged_rows_are_single_sequences},
        {"positions_say_where_rows_go", positions_say_where_rows_go},
        {"outputs_are_those_of_the_places", outputs_are_those_of_the_places},
        {"cache_grows_and_shrinks", cache_grows_and_shrinks},
        {"cache_attends_in_another_type", cache_attends_in_another_type},
        {"integers_mean_numbers", integers_mean_numbers},
        {"caches_of_integers_are_near", caches_of_integers_are_near},
        {"blocks_of_four_bits_are_read", blocks_of_four_bits_are_read},
        {"what_does_not_fit_is_told", what_does_not_fit_is_told},
    });
}
