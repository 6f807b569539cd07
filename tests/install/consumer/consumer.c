/* SPDX-License-Identifier: BSD-3-Clause
 *
 * consumer.c: a C program of the installed library. One query over two equal keys gets the mean of
 * the values, 2 and 4.
 */
#include <attention/attention.h>

#include <stdio.h>

int main(void) {
    float query_data[2] = {1, -1}, key_data[2][2] = {{3, 5}, {3, 5}}, value_data[2][1] = {{2}, {4}},
          output_data[1] = {0};
    const int64_t query_shape[] = {1, 2}, key_shape[] = {2, 2}, value_shape[] = {2, 1},
                  output_shape[] = {1, 1};
    attn_tensor query, key, value, output;

    if (attn_tensor_init(&query, query_data, ATTN_DTYPE_FLOAT32, 2, query_shape) != ATTN_OK ||
        attn_tensor_init(&key, key_data, ATTN_DTYPE_FLOAT32, 2, key_shape) != ATTN_OK ||
        attn_tensor_init(&value, value_data, ATTN_DTYPE_FLOAT32, 2, value_shape) != ATTN_OK ||
        attn_tensor_init(&output, output_data, ATTN_DTYPE_FLOAT32, 2, output_shape) != ATTN_OK ||
        attn_sdpa(NULL, &query, &key, &value, NULL, &output, NULL, 0) != ATTN_OK) {
        fprintf(stderr, "%s\n", attn_last_error());
        return 1;
    }
    printf("%s %.3f\n", attn_version_string(), (double)output_data[0]);
    return 0;
}
