/* SPDX-License-Identifier: BSD-3-Clause
 *
 * engine_cache.c: the keys and values of several sequences in pages.
 */
#include "engine_cache.h"

#include <stdlib.h>

static int create_tensor(attn_tensor *tensor, int32_t dtype, const int64_t *shape) {
    int64_t count;
    if (attn_tensor_init(tensor, NULL, dtype, 4, shape) != ATTN_OK ||
        attn_tensor_count(tensor, &count) != ATTN_OK) {
        return -1;
    }
    tensor->data = calloc((size_t)count, attn_dtype_size_bytes(dtype));
    return tensor->data == NULL ? -1 : 0;
}

static int create_pool(engine_pool *pool, int32_t dtype, const int64_t *shape, bool has_scales) {
    const int64_t one_a_row[] = {shape[0], shape[1], shape[2], 1};
    return create_tensor(&pool->rows, dtype, shape) != 0 ||
                   (has_scales && create_tensor(&pool->scales, ATTN_DTYPE_FLOAT32, one_a_row) != 0)
               ? -1
               : 0;
}

int engine_cache_create(engine_cache *cache, const engine_config *config, int64_t num_sequences,
                        int64_t most_rows, int32_t dtype) {
    const int64_t pages = (most_rows + ENGINE_PAGE_ROWS - 1) / ENGINE_PAGE_ROWS;
    const int64_t shape[] = {num_sequences * pages, config->num_kv_heads, ENGINE_PAGE_ROWS,
                             config->head_dim};
    const size_t layers = (size_t)config->num_layers;
    *cache = (engine_cache){
        .num_layers = config->num_layers,
        .num_sequences = num_sequences,
        .most_pages = pages,
        .has_scales = dtype != ATTN_DTYPE_FLOAT32,
        .keys = calloc(layers, sizeof *cache->keys),
        .values = calloc(layers, sizeof *cache->values),
        .lengths = calloc((size_t)num_sequences, sizeof *cache->lengths),
        .page_table = calloc((size_t)(num_sequences * pages), sizeof *cache->page_table),
    };
    int status = cache->keys == NULL || cache->values == NULL || cache->lengths == NULL ||
                         cache->page_table == NULL
                     ? -1
                     : 0;
    for (int64_t layer = 0; status == 0 && layer < config->num_layers; ++layer) {
        status = create_pool(&cache->keys[layer], dtype, shape, cache->has_scales) != 0 ||
                         create_pool(&cache->values[layer], dtype, shape, cache->has_scales) != 0
                     ? -1
                     : 0;
    }
    if (status != 0) {
        engine_cache_free(cache);
    }
    return status;
}

static int64_t pages_of(int64_t rows) {
    return (rows + ENGINE_PAGE_ROWS - 1) / ENGINE_PAGE_ROWS;
}

int engine_cache_grow(engine_cache *cache, int64_t sequence, int64_t rows) {
    int64_t *length = &cache->lengths[sequence];
    if (pages_of(*length + rows) > cache->most_pages) {
        return -1;
    }
    for (int64_t page = pages_of(*length); page < pages_of(*length + rows); ++page) {
        cache->page_table[sequence * cache->most_pages + page] = (int32_t)cache->pages_used++;
    }
    *length += rows;
    return 0;
}

static int64_t bytes_of_page(const attn_tensor *tensor) {
    return tensor->data == NULL ? 0
                                : tensor->shape[1] * tensor->shape[2] * tensor->shape[3] *
                                      (int64_t)attn_dtype_size_bytes(tensor->dtype);
}

int64_t engine_cache_bytes(const engine_cache *cache) {
    const engine_pool *pool = &cache->keys[0];
    return 2 * cache->num_layers * cache->pages_used *
           (bytes_of_page(&pool->rows) + bytes_of_page(&pool->scales));
}

void engine_cache_free(engine_cache *cache) {
    engine_pool *const pools[] = {cache->keys, cache->values};
    for (int i = 0; i < 2; ++i) {
        for (int64_t layer = 0; pools[i] != NULL && layer < cache->num_layers; ++layer) {
            free(pools[i][layer].rows.data);
            free(pools[i][layer].scales.data);
        }
        free(pools[i]);
    }
    free(cache->lengths);
    free(cache->page_table);
    *cache = (engine_cache){0};
}
