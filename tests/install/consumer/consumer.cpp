/* SPDX-License-Identifier: BSD-3-Clause
 *
 * consumer.cpp: a C++ program of the installed library; the mean of 2 and 4 under the softmax of
 * two equal scores.
 */
#include <attention/attention.h>

#include <cstdio>

int main() {
    float scores_data[2] = {7, 7}, weights_data[2] = {0, 0};
    const int64_t shape[] = {1, 2};
    attn_tensor scores, weights;

    if (attn_tensor_init(&scores, scores_data, ATTN_DTYPE_FLOAT32, 2, shape) != ATTN_OK ||
        attn_tensor_init(&weights, weights_data, ATTN_DTYPE_FLOAT32, 2, shape) != ATTN_OK ||
        attn_softmax(nullptr, &scores, nullptr, &weights, nullptr, 0) != ATTN_OK) {
        std::fprintf(stderr, "%s\n", attn_last_error());
        return 1;
    }
    std::printf("%s %.3f\n", attn_version_string(),
                static_cast<double>(2 * weights_data[0] + 4 * weights_data[1]));
    return 0;
}
