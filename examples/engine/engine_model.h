/* SPDX-License-Identifier: BSD-3-Clause
 *
 * engine_model.h: the weights of a decoder of Llama's shape: of a checkpoint, or made up.
 */
#ifndef ENGINE_MODEL_H
#define ENGINE_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct engine_config {
    int64_t num_layers;
    int64_t num_heads;
    int64_t num_kv_heads;
    int64_t head_dim;
    int64_t hidden_size;
    int64_t intermediate_size;
    int64_t vocabulary_size;
    double norm_epsilon;
    double rope_base;
    bool ties_head; /* logits are products with the embedding where there is no other weight */
} engine_config;

/* Matrices are (output features, input features), row by row, as torch.nn.Linear has them. What a
 * model does not have is NULL: Llama has neither biases nor norms of queries and keys, Qwen 2 has
 * biases, Qwen 3 has norms. */
typedef struct engine_layer {
    float *attention_norm; /* (hidden_size) */
    float *query_weight;   /* (num_heads * head_dim, hidden_size) */
    float *query_bias;
    float *key_weight; /* (num_kv_heads * head_dim, hidden_size) */
    float *key_bias;
    float *value_weight; /* likewise */
    float *value_bias;
    float *query_norm; /* (head_dim) */
    float *key_norm;
    float *output_weight; /* (hidden_size, num_heads * head_dim) */
    float *mlp_norm;      /* (hidden_size) */
    float *gate_weight;   /* (intermediate_size, hidden_size) */
    float *up_weight;     /* likewise */
    float *down_weight;   /* (hidden_size, intermediate_size) */
} engine_layer;

typedef struct engine_model {
    engine_config config;
    float *embedding; /* (vocabulary_size, hidden_size) */
    float *norm;      /* (hidden_size) */
    float *head;      /* as embedding, and that itself where a model ties them */
    engine_layer *layers;
} engine_model;

/* Reads config.json and every .safetensors file of a folder as Hugging Face's transformers saves
 * them: Llama, Mistral, Qwen 2, Qwen 3. 0, or -1 with one line in `error`: what differs from these
 * in a way that would change numbers is refused. */
int engine_model_load(engine_model *model, const char *folder, char *error, size_t error_bytes);

/* Numbers that look like chance, always the same ones. 0, or -1 where memory is out. */
int engine_model_make_up(engine_model *model, const engine_config *config);

/* NULL and a model of which nothing was loaded are allowed. */
void engine_model_free(engine_model *model);

#endif
