/* SPDX-License-Identifier: BSD-3-Clause
 *
 * wrapper_checks.hpp: what the tests of the headers are made of.
 */
#ifndef WRAPPER_CHECKS_HPP
#define WRAPPER_CHECKS_HPP

#include <cstdint>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <attention.hpp>

inline constexpr std::int64_t heads = 2, rows = 3, features = 4, embed_dim = heads * features;

inline void require(bool holds, const std::string &what) {
    if (!holds) {
        throw std::logic_error(what);
    }
}

inline std::vector<float> numbers(std::int64_t count) {
    std::vector<float> made;
    for (std::int64_t i = 0; i < count; ++i) {
        made.push_back(static_cast<float>((i * 37 + 11) % 64) / 32 - 1);
    }
    return made;
}

inline std::vector<float> room(const attention::sizes &shape) {
    std::int64_t count = 1;
    for (const std::int64_t length : shape) {
        count *= length;
    }
    return std::vector<float>(static_cast<std::size_t>(count));
}

/* The status and the line of the failure that `run` ends with. */
template <class Run> void require_error(Run run, attn_status code, const std::string &text) {
    try {
        run();
    } catch (const attention::error &refusal) {
        require(refusal.code() == code && text == refusal.what(), std::string("expected '") + text +
                                                                      "', got " + refusal.name() +
                                                                      " '" + refusal.what() + "'");
        return;
    }
    throw std::logic_error("no failure: " + text);
}

/* The tests with their names. Prints a summary and returns what main does. */
using named_tests = std::vector<std::pair<const char *, void (*)()>>;

inline int run_tests(const char *what, const named_tests &tests) {
    int failures = 0;
    for (const auto &[name, test] : tests) {
        try {
            test();
        } catch (const std::exception &problem) {
            std::cout << name << ": " << problem.what() << '\n';
            failures += 1;
        }
    }
    std::cout << what << ": " << tests.size() << " tests, " << failures << " failures\n";
    return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
