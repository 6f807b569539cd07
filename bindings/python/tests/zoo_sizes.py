# SPDX-License-Identifier: BSD-3-Clause
"""What is known of settings of transformers' configurations: by their names, and of a few types."""

LAYERS = 2
WIDTH, HEADS, GROUPS = 32, 4, 2
VOCABULARY = 128
IMAGE, PATCH = 32, 8
# What widths are divided by where their ratios are kept.
DIVISOR = 8

# The first that matches a name says what becomes of a whole number above it.
RULES = [
    (r"(\w*vocab\w*|num_classes|num_labels|codebook_size)", VOCABULARY),
    (r"num_feat_extract_layers", 7),
    (r"(mamba_d_head|mamba_head_dim)$", 16),
    (r"\w*heads|n_head", HEADS),
    (r"(num_\w*layers|n_layers?|\w*_layers|depth|num_blocks|layers)$", LAYERS),
    (r"((qk_nope_|qk_rope_|v_)?head_dim|d_kv|kv_channels|head_size|d_head)$", 8),
    (r"(\w*lora_rank|index_head_dim|dt_rank|time_step_rank)$", 16),
    (r"(num_experts_per_tok\w*|moe_topk|top_k_experts|experts_per_token|num_selected|moe_k)", 2),
    (r"(n_routed_experts|num_experts|num_local_experts|moe_num_experts|num_routed_experts)$", 4),
    (r"(n_group|num_expert_group|topk_group|n_shared_experts|num_shared_experts)$", 1),
    (r"(sliding_window|local_attention|attention_window|attention_chunk_size|window_size)$", 4),
    (r"(max_\w*position\w*|n_positions|n_ctx|max_seq_len\w*|max_\w*length|seq_length)$", 64),
    (r"(\w*intermediate_size|\w*ffn\w*|n_inner|d_ff|mlp_hidden\w*|d_inner|feed_forward\w*)$", 48),
    (r"(d_model|d_latents|\w*hidden_size|hidden_dim|embed_dim|embedding_size|n_embd|dim)$", WIDTH),
    (r"(pooler_output_size|\w*_dimension|upsample_groups|(base|output)_channels)$", WIDTH),
    (r"(\w*_dim|\w*_hidden|\w*_width|projection_size|word_embed\w*|\w*_channels_list)$", WIDTH),
    (r"(\w*img_size|\w*image_size)$", IMAGE),
    (r"(patch_size|\w*patch_size)$", PATCH),
    (r"(num_filters|n_filters)$", 4),
    (r"(num_queries|num_query_tokens|query_length|latent_query_num|\w*_latents)$", 4),
    (r"(mamba_n_groups|n_groups)$", 2),
    (r"(ssm_\w*|state_size|mamba_d_state)$", 8),
    (r"(num_mel_bins|n_mels|feature_size|input_feat_per_channel)$", 16),
]  # fmt: skip
# Settings of a type, of a whole configuration or of a part, without which there is no model.
SETTLED = {
    "esm": {"vocab_size": VOCABULARY, "pad_token_id": 1, "mask_token_id": 32},
    "autoformer": {"prediction_length": 4},
    "informer": {"prediction_length": 4},
    "time_series_transformer": {"prediction_length": 4},
    "nemotron": {"num_key_value_heads": 2},
    "codegen": {"rotary_dim": 4},
    "gptj": {"rotary_dim": 4},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "bamba": {"attn_layer_indices": [1]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "gemma4_assistant": {"hidden_size_per_layer_input": 0},
    "chameleon": {"vocabulary_map": {"<image>": 5}},
    "emu3": {"vocabulary_map": {"<image>": 5}, "pad_token_id": 0},
    "dory": {
        "num_hidden_layers": 6,
        "n_input_layers": 2,
        "n_recurrent_layers": 2,
        "n_output_layers": 2,
        "layer_types": [*["sliding_attention", "mlp"] * 2, "full_attention", "mlp"],
    },
    "dots3_note_text": {"head_dim": 16},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}
    },
    "efficientnet": {"width_coefficient": 0.1, "depth_coefficient": 0.1, "hidden_dim": 128},
    "align_vision_model": {"width_coefficient": 0.1, "depth_coefficient": 0.1, "hidden_dim": 128},
    "align": {"projection_dim": 8},
    "zamba": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "attention_hidden_size": 2 * WIDTH,
        "attention_head_dim": 16,
    },
    "zamba2": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "attention_head_dim": 16,
    },
    "tvp": {"visual_prompt_size": 4},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "seggpt": {"image_size": [2 * IMAGE, IMAGE]},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "llama4_vision_model": {"intermediate_size": 4 * WIDTH},
    "granite4_vision": {"deepstack_layer_map": [[0, 0]]},
    "dbrx": {
        "attn_config": {
            "model_type": "dbrx",
            "rope_theta": 1e4,
            "kv_n_heads": GROUPS,
            "clip_qkv": 8,
        },
    },
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
    },
    "xmod": {"default_language": "en_XX", "languages": ["en_XX"]},
}
# Settings that a default configuration leaves open and its model does not.
OPEN = {
    "head_dim": 8,
    "layer_types": ["full_attention"] * LAYERS,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "moe_intermediate_size": 48,
    "mlp_layer_types": ["dense", "sparse"],
    "n_group": 1,
    "topk_group": 1,
    "pad_token_id": 0,
    "sliding_window": 4,
    "image_token_id": 5,
    "image_token_index": 5,
    "video_token_index": 5,
    "top_k_experts": 2,
    "shared_experts_intermediate_size": 48,
}
# In the place of a backbone of the library timm.
RESNET = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 16, 24, 32],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
}
