"""Writes configs.json: model configurations and what transformers 5.18 makes of them (needs torch, no weights).

Run: python regenerate_configs.py
"""

import json
from pathlib import Path

import torch
import transformers
from transformers.models.deepseek_v2 import modeling_deepseek_v2 as v2
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as v3
from transformers.models.glm4_moe_lite import modeling_glm4_moe_lite as glm
from transformers.models.youtu import modeling_youtu as youtu

# model_type: configuration, rotary embedding, decoder layer
CLASSES = {
    "deepseek_v2": (transformers.DeepseekV2Config, v2.DeepseekV2RotaryEmbedding, v2.DeepseekV2DecoderLayer),
    "deepseek_v3": (transformers.DeepseekV3Config, v3.DeepseekV3RotaryEmbedding, v3.DeepseekV3DecoderLayer),
    # Kimi-K2 has DeepSeek-V3's architecture and no class of its own.
    "kimi_k2": (transformers.DeepseekV3Config, v3.DeepseekV3RotaryEmbedding, v3.DeepseekV3DecoderLayer),
    "glm4_moe_lite": (transformers.Glm4MoeLiteConfig, glm.Glm4MoeLiteRotaryEmbedding, glm.Glm4MoeLiteDecoderLayer),
    "youtu": (transformers.YoutuConfig, youtu.YoutuRotaryEmbedding, youtu.YoutuDecoderLayer),
}


def yarn(factor, mscale, original=4096, **more):
    return dict(
        type="yarn", factor=factor, mscale=mscale, mscale_all_dim=mscale, beta_fast=32, beta_slow=1,
        original_max_position_embeddings=original, **more,
    )


def sizes(model_type, vocab, hidden, layers, heads, **more):
    return dict(
        model_type=model_type, vocab_size=vocab, hidden_size=hidden, num_hidden_layers=layers,
        num_attention_heads=heads, **more,
    )


LITE = sizes("deepseek_v2", 102400, 2048, 27, 16, q_lora_rank=None, n_routed_experts=64, num_experts_per_tok=6,
             n_shared_experts=2, moe_intermediate_size=1408, intermediate_size=10944, first_k_dense_replace=1,
             topk_method="greedy", n_group=1, topk_group=1, max_position_embeddings=163840, rope_theta=10000,
             rope_scaling=yarn(40, 0.707), scoring_func="softmax", moe_layer_freq=1, norm_topk_prob=False,
             bos_token_id=100000, eos_token_id=100001)
V3 = sizes("deepseek_v3", 129280, 7168, 61, 128, max_position_embeddings=163840, rope_theta=10000,
           rope_scaling=yarn(40, 1.0), scoring_func="sigmoid", topk_method="noaux_tc", first_k_dense_replace=3)
TINY = dict(vocab=1000, hidden=256, layers=4, heads=4)


def tiny_v3(**more):
    return sizes("deepseek_v3", *TINY.values(), max_position_embeddings=4096, **more)


CASES = {
    "DeepSeek-V2-Lite": LITE,
    "DeepSeek-V2": sizes(
        "deepseek_v2", 102400, 5120, 60, 128, q_lora_rank=1536, n_routed_experts=160, num_experts_per_tok=6,
        n_shared_experts=2, moe_intermediate_size=1536, intermediate_size=12288, first_k_dense_replace=1,
        topk_method="group_limited_greedy", n_group=8, topk_group=3, routed_scaling_factor=16.0,
        max_position_embeddings=163840, rope_theta=10000, rope_scaling=yarn(40, 0.707), norm_topk_prob=True),
    "DeepSeek-V3": V3,
    "Kimi-K2": sizes(
        "kimi_k2", 163840, 7168, 61, 64, n_routed_experts=384, n_group=1, topk_group=1, routed_scaling_factor=2.827,
        first_k_dense_replace=1, max_position_embeddings=131072, rope_theta=50000.0,
        rope_scaling=dict(yarn(32.0, 1.0), beta_fast=1.0, beta_slow=1.0)),
    "Moonlight": sizes(
        "deepseek_v3", 163840, 2048, 27, 16, q_lora_rank=None, n_routed_experts=64, num_experts_per_tok=6,
        n_shared_experts=2, moe_intermediate_size=1408, intermediate_size=11264, first_k_dense_replace=1, n_group=1,
        topk_group=1, routed_scaling_factor=2.446, max_position_embeddings=8192, rope_theta=50000.0,
        rms_norm_eps=1e-5),
    "GLM-4.7-Flash": sizes(
        "glm4_moe_lite", 154880, 2048, 47, 20, rope_theta=1000000, partial_rotary_factor=1.0, rope_scaling=None,
        first_k_dense_replace=1, eos_token_id=[154820, 154827, 154829], head_dim=64, topk_method="noaux_tc"),
    "Youtu": sizes("youtu", 128256, 2048, 32, 16, rope_theta=1600000.0),
    "V2 defaults": sizes("deepseek_v2", *TINY.values(), num_experts_per_tok=2),
    "V3 defaults": sizes("deepseek_v3", *TINY.values()),
    "GLM defaults": sizes("glm4_moe_lite", *TINY.values()),
    "Youtu defaults": sizes("youtu", *TINY.values()),
    "GLM, layers listed": sizes("glm4_moe_lite", *TINY.values(), mlp_layer_types=["dense", "sparse", "dense", "sparse"]),
    "all layers dense": tiny_v3(first_k_dense_replace=9),
    "new form": tiny_v3(rope_parameters=dict(
        rope_type="yarn", rope_theta=5e4, factor=8, original_max_position_embeddings=512, mscale=1, mscale_all_dim=1)),
    "new form, default": tiny_v3(rope_parameters=dict(rope_type="default", rope_theta=123456.0)),
    "empty old form": tiny_v3(rope_scaling={}, rope_theta=3e4, rope_parameters=dict(rope_type="default", rope_theta=7e4)),
    "old form first": tiny_v3(rope_scaling=dict(type="default"), rope_theta=3e4,
                              rope_parameters=dict(rope_type="yarn", factor=4)),
    "yarn without mscale": tiny_v3(rope_scaling=dict(type="yarn", factor=4, original_max_position_embeddings=1024)),
    "mscale alone": tiny_v3(rope_scaling=dict(
        type="yarn", factor=4, original_max_position_embeddings=1024, mscale=0.5)),
    "mscale_all_dim alone": tiny_v3(rope_scaling=dict(
        type="yarn", factor=4, original_max_position_embeddings=1024, mscale_all_dim=0.5)),
    "mscales differ": tiny_v3(rope_scaling=dict(
        type="yarn", factor=4, original_max_position_embeddings=1024, mscale=1.5, mscale_all_dim=0.5)),
    "attention_factor": tiny_v3(rope_scaling=yarn(4, 0.7, 1024, attention_factor=1.25)),
    "not truncated": tiny_v3(rope_scaling=yarn(4, 0.7, 1024, truncate=False)),
    "betas 0 and null": tiny_v3(rope_scaling=dict(yarn(4, 0.7, 1024), beta_fast=0, beta_slow=None)),
    "betas equal": tiny_v3(rope_scaling=dict(yarn(4, 0.7, 1024, truncate=False), beta_fast=2, beta_slow=2)),
    "factor below 1": tiny_v3(rope_scaling=yarn(0.5, 1.0, 1024)),
    "no original length": tiny_v3(rope_scaling=dict(type="yarn", factor=4)),
    "original length outside": tiny_v3(rope_scaling=yarn(4, 0.7, 1024), original_max_position_embeddings=256),
    "wide rope": tiny_v3(rope_scaling=yarn(16, 0.7, 256), qk_rope_head_dim=96, qk_nope_head_dim=40, v_head_dim=24),
    "half-split": tiny_v3(rope_interleave=False),
    "V2 is always interleaved": dict(LITE, rope_interleave=False),
}

SIZES = ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "q_lora_rank", "kv_lora_rank",
         "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "intermediate_size", "max_position_embeddings",
         "rms_norm_eps", "tie_word_embeddings", "attention_bias", "bos_token_id", "eos_token_id"]


def expected(config_json):
    config_class, rotary_class, layer_class = CLASSES[config_json["model_type"]]
    config = config_class.from_dict(json.loads(json.dumps(config_json)))
    config._attn_implementation = "eager"
    rotary = rotary_class(config)
    with torch.device("meta"):
        layers = [layer_class(config, i) for i in range(config.num_hidden_layers)]
    result = {key: getattr(config, key) for key in SIZES}
    result["inverse_frequencies"] = rotary.inv_freq.tolist()
    result["attention_factor"] = rotary.attention_scaling
    result["softmax_scale"] = layers[0].self_attn.scaling
    result["lora_norm_eps"] = layers[0].self_attn.kv_a_layernorm.variance_epsilon
    result["interleaved"] = config_json["model_type"] == "deepseek_v2" or config.rope_interleave
    result["moe_layers"] = [hasattr(layer.mlp, "experts") for layer in layers]
    routed = [layer.mlp for layer in layers if hasattr(layer.mlp, "experts")]
    result["moe"] = moe(config, routed[0]) if routed else None
    return result


def moe(config, mlp):
    gate = mlp.gate
    return dict(
        experts=gate.weight.shape[0], top_k=gate.top_k, intermediate=mlp.experts.intermediate_dim,
        shared=mlp.shared_experts.intermediate_size // config.moe_intermediate_size,
        groups=gate.num_group, top_groups=gate.topk_group, scale=gate.routed_scaling_factor,
        normalize=getattr(gate, "norm_topk_prob", False), bias=hasattr(gate, "e_score_correction_bias"),
    )


cases = [dict(name=name, config=config, expected=expected(config)) for name, config in CASES.items()]
text = json.dumps(dict(reference=f"transformers {transformers.__version__}", cases=cases), indent=None)
Path(__file__).with_name("configs.json").write_text(text.replace('{"name"', '\n{"name"') + "\n")
