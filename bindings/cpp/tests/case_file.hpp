/* SPDX-License-Identifier: BSD-3-Clause
 *
 * case_file.hpp: reads the case files that the library's build exports (tests/interop/README.md).
 */
#ifndef CASE_FILE_HPP
#define CASE_FILE_HPP

#include <cstdint>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

struct case_tensor {
    std::string dtype;
    std::vector<std::int64_t> shape;
    std::vector<char> bytes;
    double tolerance = 0;

    std::int64_t count() const {
        std::int64_t product = 1;
        for (const std::int64_t length : shape) {
            product *= length;
        }
        return product;
    }
};

struct case_file {
    std::string call;
    std::map<std::string, std::string> options;
    std::map<std::string, case_tensor> tensors, expected;
    std::int32_t error_code = 0;
    std::string error_text;

    explicit case_file(const std::string &path) : file_(path, std::ios::binary) {
        std::string line;
        while (std::getline(file_, line)) {
            read_record(line);
        }
    }

  private:
    void read_record(const std::string &line) {
        std::istringstream words(line);
        std::string record, name;
        words >> record >> name;
        if (record == "call") {
            call = name;
        } else if (record == "option") {
            std::getline(words >> std::ws, options[name]);
        } else if (record == "tensor") {
            read_elements(words, tensors[name]);
        } else if (record == "expect") {
            words >> expected[name].tolerance;
            read_elements(words, expected[name]);
        } else if (record == "error") {
            error_code = std::stoi(name);
            std::getline(words >> std::ws, error_text);
        } else {
            throw std::runtime_error("unknown record: " + line);
        }
    }

    void read_elements(std::istringstream &words, case_tensor &tensor) {
        static const std::map<std::string, std::int64_t> bytes = {
            {"float32", 4}, {"float64", 8}, {"bfloat16", 2}, {"float16", 2},
            {"bool", 1},    {"int64", 8},   {"int32", 4},    {"uint8", 1}};
        std::size_t rank = 0;
        words >> tensor.dtype >> rank;
        tensor.shape.resize(rank);
        for (std::int64_t &length : tensor.shape) {
            words >> length;
        }
        tensor.bytes.resize(static_cast<std::size_t>(tensor.count() * bytes.at(tensor.dtype)));
        file_.read(tensor.bytes.data(), static_cast<std::streamsize>(tensor.bytes.size()));
        if (!file_) {
            throw std::runtime_error("the file ends within a tensor");
        }
    }

    std::ifstream file_;
};

#endif
