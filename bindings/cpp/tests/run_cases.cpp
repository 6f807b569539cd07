/* SPDX-License-Identifier: BSD-3-Clause
 *
 * run_cases.cpp: the cases that every language runs, through attention.hpp.
 * Usage: run_cases <folder of cases>
 */
#include <cmath>
#include <iostream>
#include <iterator>
#include <set>
#include <sstream>

#include <attention.hpp>

#include "case_file.hpp"

namespace {

using attention::mask;
using attention::tensor;

template <class T> tensor<const T> view(const case_tensor &from) {
    return {reinterpret_cast<const T *>(from.bytes.data()), from.shape};
}

std::int64_t number(const case_file &made, const char *name, std::int64_t absent) {
    const auto found = made.options.find(name);
    return found == made.options.end() ? absent : std::stoll(found->second);
}

std::optional<double> real(const case_file &made, const char *name) {
    const auto found = made.options.find(name);
    return found == made.options.end() ? std::nullopt : std::optional(std::stod(found->second));
}

const std::map<std::string, std::int32_t> dtype_numbers = {
    {"float32", ATTN_DTYPE_FLOAT32},   {"float64", ATTN_DTYPE_FLOAT64},
    {"bfloat16", ATTN_DTYPE_BFLOAT16}, {"float16", ATTN_DTYPE_FLOAT16},
    {"int64", ATTN_DTYPE_INT64},       {"int32", ATTN_DTYPE_INT32},
    {"int8", ATTN_DTYPE_INT8}};

/* Sets `found` to the tensor, if the case has it, of the type that it has. */
template <class... Elements>
void find(std::optional<attention::input<Elements...>> &found, const case_file &made,
          const std::string &name) {
    const auto named = made.tensors.find(name);
    if (named == made.tensors.end()) {
        return;
    }
    const std::int32_t dtype = dtype_numbers.at(named->second.dtype);
    const auto take = [&](auto element) {
        using T = decltype(element);
        if (dtype == attention::dtype_of<T>()) {
            found = view<T>(named->second);
        }
    };
    (take(Elements{}), ...);
    if (!found) {
        throw std::runtime_error("not of the wrapper's types: " + name);
    }
}

template <class View> View require_input(const case_file &made, const std::string &name) {
    std::optional<View> found;
    find(found, made, name);
    return found.value();
}

/* Bool masks as the call has them, others are added. */
std::optional<mask> mask_of(const case_file &made, const char *name, bool is_included) {
    const auto found = made.tensors.find(name);
    if (found == made.tensors.end()) {
        return std::nullopt;
    }
    if (found->second.dtype == "bool") {
        const auto flags = view<bool>(found->second);
        return is_included ? mask::include(flags) : mask::exclude(flags);
    }
    return mask::additive(require_input<attention::any_float_input>(made, name));
}

/* Every option and tensor must be one that is handed on: of these words. */
void refuse_unknown(const case_file &made, const char *words) {
    std::istringstream text(words);
    const std::set<std::string> known{std::istream_iterator<std::string>(text), {}};
    const auto refuse = [&](const std::string &name) {
        if (known.count(name) == 0 && name.rfind("parameter.", 0) != 0 &&
            name.rfind("gradient.parameter.", 0) != 0) {
            throw std::runtime_error("unknown: " + name);
        }
    };
    for (const auto &option : made.options) {
        refuse(option.first);
    }
    for (const auto &one : made.tensors) {
        refuse(one.first);
    }
    for (const auto &one : made.expected) {
        refuse(one.first);
    }
}

/* Memory for the results of a call. */
template <class T> struct results {
    std::map<std::string, std::vector<T>> values;

    tensor<T> make(const std::string &name, const std::vector<std::int64_t> &shape) {
        std::size_t count = 1;
        for (const std::int64_t length : shape) {
            count *= static_cast<std::size_t>(length);
        }
        return {values.insert_or_assign(name, std::vector<T>(count)).first->second.data(), shape};
    }

    std::optional<tensor<T>> make_expected(const case_file &made, const char *name) {
        const auto found = made.expected.find(name);
        return found == made.expected.end() ? std::nullopt
                                            : std::optional(make(name, found->second.shape));
    }

    /* A call to be refused gets the shape of query with `features` columns. */
    tensor<T> make_main(const case_file &made, const char *name, std::int64_t features) {
        if (const auto expected = make_expected(made, name)) {
            return *expected;
        }
        std::vector<std::int64_t> shape = made.tensors.at("query").shape;
        shape.back() = features;
        return make(name, shape);
    }
};

template <class T> attention::attend_options<T> sdpa_options(const case_file &made) {
    static const std::map<std::string, std::int32_t> normalizers = {
        {"softmax", ATTN_NORMALIZER_SOFTMAX},
        {"sigmoid", ATTN_NORMALIZER_SIGMOID},
        {"linear", ATTN_NORMALIZER_LINEAR}};
    attention::attend_options<T> options;
    options.mask = mask_of(made, "attn_mask", true);
    find(options.bias, made, "bias");
    options.is_causal = number(made, "is_causal", 0) != 0;
    options.align_end = number(made, "align_end", 0) != 0;
    options.enable_gqa = number(made, "enable_gqa", 0) != 0;
    options.scale = real(made, "scale");
    options.softcap = real(made, "softcap").value_or(0);
    if (made.options.count("window_left") != 0) {
        options.window =
            attention::window{number(made, "window_left", -1), number(made, "window_right", -1)};
    }
    if (made.options.count("normalizer") != 0) {
        options.normalizer = normalizers.at(made.options.at("normalizer"));
    }
    find(options.query_offset, made, "query_offset");
    find(options.key_lengths, made, "key_lengths");
    find(options.alibi_slopes, made, "alibi_slopes");
    find(options.sinks, made, "sinks");
    find(options.mask_start, made, "mask_start");
    find(options.position_bias, made, "position_bias");
    if (made.tensors.count("block_mask") != 0) {
        options.block_mask =
            attention::block_mask{view<std::uint8_t>(made.tensors.at("block_mask")),
                                  number(made, "block_rows", 0), number(made, "block_columns", 0)};
    }
    if (const auto probability = real(made, "dropout_probability")) {
        attention::dropout &dropout = options.dropout.emplace(*probability);
        dropout.seed = static_cast<std::uint64_t>(number(made, "dropout_seed", 0));
        dropout.offset = static_cast<std::uint64_t>(number(made, "dropout_offset", 0));
        dropout.batch = number(made, "dropout_batch", 0);
        dropout.head = number(made, "dropout_head", 0);
        dropout.row = number(made, "dropout_row", 0);
        dropout.column = number(made, "dropout_column", 0);
    }
    return options;
}

/* The gradients of a call that wrote `output` and options.lse. */
template <class T>
void go_back(const case_file &made, const tensor<T> &output,
             const attention::attend_options<T> &options, results<T> &room) {
    using keys = attention::keys_of<T>;
    attention::attend_gradients<T> wanted;
    wanted.query = room.make_expected(made, "gradient.query");
    wanted.key = room.make_expected(made, "gradient.key");
    wanted.value = room.make_expected(made, "gradient.value");
    wanted.mask = room.make_expected(made, "gradient.attn_mask");
    attention::attend_backward<T>(view<T>(made.tensors.at("query")),
                                  require_input<keys>(made, "key"),
                                  require_input<keys>(made, "value"), output,
                                  view<T>(made.tensors.at("gradient.output")), wanted, options);
}

template <class T>
void run_sdpa(const case_file &made, results<T> &room, results<attention::score_of<T>> &scores) {
    refuse_unknown(made, "query key value attn_mask bias query_offset key_lengths sinks "
                         "alibi_slopes is_causal align_end scale enable_gqa window_left "
                         "window_right softcap normalizer output lse weights mask_start "
                         "position_bias block_mask block_rows block_columns dropout_probability "
                         "dropout_seed dropout_offset dropout_batch dropout_head dropout_row "
                         "dropout_column gradient.output gradient.query gradient.key "
                         "gradient.value gradient.attn_mask");
    attention::attend_options<T> options = sdpa_options<T>(made);
    options.lse = scores.make_expected(made, "lse");
    options.weights = room.make_expected(made, "weights");
    const auto output = room.make_main(made, "output", made.tensors.at("value").shape.back());
    using keys = attention::keys_of<T>;
    const auto query = view<T>(made.tensors.at("query"));
    const auto key = require_input<keys>(made, "key"), value = require_input<keys>(made, "value");
    if (made.tensors.count("gradient.output") == 0) {
        return attention::attend(query, key, value, output, options);
    }
    results<attention::score_of<T>> unexpected;
    if (!options.lse) {
        const auto shapes = attention::describe_outputs(query, key, value, options);
        options.lse = unexpected.make("lse", shapes.lse);
    }
    attention::attend(query, key, value, output, options);
    go_back(made, output, options, room);
}

template <class T> attention::multihead<T> make_layer(const case_file &made) {
    attention::multihead_config config;
    config.embed_dim = number(made, "embed_dim", 0);
    config.num_heads = number(made, "num_heads", 0);
    config.qdim = number(made, "qdim", 0);
    config.kdim = number(made, "kdim", 0);
    config.vdim = number(made, "vdim", 0);
    config.head_dim = number(made, "head_dim", 0);
    config.value_head_dim = number(made, "value_head_dim", 0);
    config.num_kv_heads = number(made, "num_kv_heads", 0);
    config.bias = number(made, "no_bias", 0) == 0;
    config.add_bias_kv = number(made, "add_bias_kv", 0) != 0;
    config.add_zero_attn = number(made, "add_zero_attn", 0) != 0;
    config.batch_first = number(made, "batch_first", 0) != 0;
    if (made.options.count("parameter_dtype") != 0) {
        config.parameter_dtype = dtype_numbers.at(made.options.at("parameter_dtype"));
    }
    attention::multihead<T> layer(config);
    const std::string prefix = "parameter.";
    for (const auto &[name, unused] : made.tensors) {
        (void)unused;
        if (name.rfind(prefix, 0) == 0) {
            layer.load(name.substr(prefix.size()),
                       require_input<attention::any_float_input>(made, name));
        }
    }
    return layer;
}

template <class T> void run_mha(const case_file &made, results<T> &room) {
    refuse_unknown(made, "query key value attn_mask bias key_padding_mask embed_dim num_heads "
                         "kdim vdim qdim head_dim value_head_dim num_kv_heads no_bias "
                         "add_bias_kv add_zero_attn batch_first is_causal need_weights "
                         "average_attn_weights attn_output attn_weights parameter_dtype "
                         "gradient.attn_output gradient.attn_weights gradient.query gradient.key "
                         "gradient.value gradient.attn_mask");
    const auto layer = make_layer<T>(made);
    attention::forward_options<T> options;
    options.key_padding_mask = mask_of(made, "key_padding_mask", false);
    options.attention.mask = mask_of(made, "attn_mask", false);
    find(options.attention.bias, made, "bias");
    options.attention.is_causal = number(made, "is_causal", 0) != 0;
    options.attention.weights = room.make_expected(made, "attn_weights");
    const auto output = room.make_main(made, "attn_output", number(made, "embed_dim", 0));
    const auto query = view<T>(made.tensors.at("query")), key = view<T>(made.tensors.at("key")),
               value = view<T>(made.tensors.at("value"));
    if (made.tensors.count("gradient.attn_output") == 0) {
        return layer.forward(query, key, value, output, options);
    }
    const attention::saved_forward<T> saved(layer, query, key, value, output, options);
    attention::multihead_gradients<T> wanted;
    find(wanted.attention.weights, made, "gradient.attn_weights");
    wanted.query = room.make_expected(made, "gradient.query");
    wanted.key = room.make_expected(made, "gradient.key");
    wanted.value = room.make_expected(made, "gradient.value");
    wanted.attention.mask = room.make_expected(made, "gradient.attn_mask");
    const std::string prefix = "gradient.parameter.";
    for (const auto &[name, unused] : made.expected) {
        (void)unused;
        if (name.rfind(prefix, 0) == 0) {
            wanted.parameters.emplace(name.substr(prefix.size()),
                                      *room.make_expected(made, name.c_str()));
        }
    }
    saved.backward(view<T>(made.tensors.at("gradient.attn_output")), wanted);
}

bool is_near(double actual, double expected, double tolerance) {
    if (std::isnan(expected) || std::isinf(expected)) {
        return std::isnan(expected) ? std::isnan(actual) : actual == expected;
    }
    return std::fabs(actual - expected) <= tolerance;
}

template <class T> double wide(T number) {
    if constexpr (attention::is_half<T>) {
        return static_cast<double>(static_cast<float>(number));
    } else {
        return number;
    }
}

/* What was computed of everything that is expected; how many results that are. */
template <class T> std::size_t compare(const case_file &made, const results<T> &room) {
    for (const auto &[name, found] : room.values) {
        const case_tensor &expected = made.expected.at(name);
        const auto wanted = view<double>(expected);
        for (std::size_t i = 0; i < found.size(); ++i) {
            if (!is_near(wide(found[i]), wanted.data()[i], expected.tolerance)) {
                throw std::runtime_error(name + "[" + std::to_string(i) + "]: expected " +
                                         std::to_string(wanted.data()[i]) + ", got " +
                                         std::to_string(wide(found[i])));
            }
        }
    }
    return room.values.size();
}

/* T is the type of query. */
template <class T> void run_typed(const case_file &made) {
    results<T> room;
    results<attention::score_of<T>> scores;
    if (made.call == "sdpa") {
        run_sdpa<T>(made, room, scores);
    } else if (made.call == "mha") {
        run_mha<T>(made, room);
    } else {
        throw std::runtime_error("unknown call: " + made.call);
    }
    if (made.error_code != 0) {
        throw std::runtime_error("expected the error: " + made.error_text);
    }
    if (compare(made, room) + compare(made, scores) != made.expected.size()) {
        throw std::runtime_error("not computed: one of what is expected");
    }
}

void run(const case_file &made) {
    try {
        switch (dtype_numbers.at(made.tensors.at("query").dtype)) {
        case ATTN_DTYPE_FLOAT64:
            return run_typed<double>(made);
        case ATTN_DTYPE_BFLOAT16:
            return run_typed<attention::bfloat16>(made);
        case ATTN_DTYPE_FLOAT16:
            return run_typed<attention::float16>(made);
        default:
            return run_typed<float>(made);
        }
    } catch (const attention::error &refusal) {
        if (refusal.code() != made.error_code || refusal.what() != made.error_text) {
            throw;
        }
    }
}

/* What C++ finds at compile time: key of a type that query has none beside. */
bool is_refused_by_the_compiler(const case_file &made) {
    return made.error_code == ATTN_ERROR_DTYPE &&
           made.tensors.at("query").dtype != made.tensors.at("key").dtype;
}

} // namespace

int main(int argc, char **argv) {
    if (argc != 2) {
        std::cerr << "usage: run_cases <folder of cases>\n";
        return 2;
    }
    const std::string folder = argv[1];
    std::ifstream list(folder + "/cases.txt");
    std::string name;
    int cases = 0, errors = 0, failures = 0;
    while (std::getline(list, name)) {
        const case_file made(folder + "/" + name + ".case");
        if (is_refused_by_the_compiler(made)) {
            std::cout << name << ": not run: the wrapper's types refuse it\n";
            continue;
        }
        (made.error_code == 0 ? cases : errors) += 1;
        try {
            run(made);
        } catch (const std::exception &problem) {
            std::cout << name << ": " << problem.what() << '\n';
            failures += 1;
        }
    }
    std::cout << "cpp: " << cases << " cases, " << errors << " errors, " << failures
              << " failures\n";
    return failures == 0 && cases >= 60 && errors >= 5 ? 0 : 1;
}
