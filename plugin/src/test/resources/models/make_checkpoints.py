#!/usr/bin/env python3
"""Tiny random checkpoints that between them use every rule of the model definitions, with goldens by HF transformers.

Needs torch, transformers 5.18, safetensors, tokenizers. Rewrites the folders tiny-* beside this script (those named on
the command line, or all but tiny-mla-v2-lite), each with golden.json: greedy continuations in float32, eager attention
and experts, in the form of examples/models/tiny-mla-v3/golden.json.
"""
import json
import pathlib
import shutil
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoConfig, AutoModelForCausalLM

here = pathlib.Path(__file__).resolve().parent
COMMON = dict(
    vocab_size=128, hidden_size=48, intermediate_size=64, moe_intermediate_size=24, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=4, kv_lora_rank=64, qk_nope_head_dim=16, qk_rope_head_dim=8,
    v_head_dim=24, max_position_embeddings=512, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    tie_word_embeddings=False, attention_bias=False, rms_norm_eps=1e-6, initializer_range=0.15,
)
YARN = dict(type="yarn", factor=8.0, original_max_position_embeddings=64, beta_fast=32, beta_slow=1)
MODELS = {
    # group_limited_greedy over the best expert of each group, low-rank queries, weights times 16, no normalisation
    "tiny-v2": dict(
        model_type="deepseek_v2", q_lora_rank=32, topk_method="group_limited_greedy", n_group=4, topk_group=2,
        n_routed_experts=16, num_experts_per_tok=3, n_shared_experts=2, routed_scaling_factor=4.0, norm_topk_prob=False,
        first_k_dense_replace=1, rope_theta=10000, rope_scaling=dict(YARN, mscale=0.707, mscale_all_dim=0.707),
    ),
    # Moonlight's: V3 without low-rank queries, without yarn, one group; biases, float16 weights, two dense layers
    "tiny-moonlight": dict(
        model_type="deepseek_v3", q_lora_rank=None, n_group=1, topk_group=1, n_routed_experts=8, num_experts_per_tok=3,
        n_shared_experts=1, routed_scaling_factor=2.446, norm_topk_prob=True, first_k_dense_replace=2,
        attention_bias=True, rope_theta=50000, dtype=torch.float16,
    ),
    # V3 with unequal mscales (cos and sin are scaled too), weights not normalised, tied embeddings, float32, shards,
    # the configuration in its new form, an end token in generation_config.json alone
    "tiny-v3-mscale": dict(
        model_type="deepseek_v3", q_lora_rank=24, n_group=4, topk_group=1, n_routed_experts=8, num_experts_per_tok=2,
        n_shared_experts=2, routed_scaling_factor=1.5, norm_topk_prob=False, first_k_dense_replace=0,
        tie_word_embeddings=True, dtype=torch.float32, shards=True, generation=dict(eos_token_id=[1, 77]),
        rope_parameters=dict(
            rope_type="yarn", rope_theta=10000.0, factor=8.0, original_max_position_embeddings=64, beta_fast=16,
            beta_slow=2, mscale=1.0, mscale_all_dim=0.5,
        ),
    ),
    # Kimi-K2's: one group, 1 < beta_fast; and a layer for multi-token prediction that nothing runs
    "tiny-k2": dict(
        model_type="kimi_k2", build_as="deepseek_v3", q_lora_rank=32, n_group=1, topk_group=1, n_routed_experts=12,
        num_experts_per_tok=4, n_shared_experts=1, routed_scaling_factor=2.827, norm_topk_prob=True,
        first_k_dense_replace=1, rope_theta=50000.0, mtp=True,
        rope_scaling=dict(YARN, beta_fast=1.0, mscale=1.0, mscale_all_dim=1.0),
    ),
    # GLM-4.7-Flash's: V3's router with its own layer types, nope and v wider
    "tiny-glm": dict(
        model_type="glm4_moe_lite", q_lora_rank=32, n_group=1, topk_group=1, n_routed_experts=8, num_experts_per_tok=2,
        n_shared_experts=1, routed_scaling_factor=1.8, norm_topk_prob=True, qk_nope_head_dim=24, v_head_dim=32,
        mlp_layer_types=["dense", "sparse", "sparse"], eos_token_id=[1, 5], rms_norm_eps=1e-5,
        rope_parameters=dict(rope_type="default", rope_theta=1000000.0),
    ),
    # FP8 weights with a scale a block of 16 x 16, ragged at the edges; the reference runs the dequantised weights
    "tiny-fp8": dict(
        model_type="deepseek_v3", q_lora_rank=24, n_group=2, topk_group=1, n_routed_experts=8, num_experts_per_tok=2,
        n_shared_experts=1, routed_scaling_factor=1.5, norm_topk_prob=True, first_k_dense_replace=1,
        hidden_size=40, rope_theta=10000.0, fp8_block=16,
    ),
    # Sizes that nothing divides, no shared experts, half-split RoPE, yarn with one mscale of two; and an LM head of its
    # own though the embeddings are tied: the head wins
    "tiny-odd": dict(
        model_type="deepseek_v3", vocab_size=101, hidden_size=21, intermediate_size=27, moe_intermediate_size=11,
        num_hidden_layers=2, num_attention_heads=5, num_key_value_heads=5, kv_lora_rank=19, qk_nope_head_dim=13,
        qk_rope_head_dim=6, v_head_dim=9, q_lora_rank=None, n_group=3, topk_group=2, n_routed_experts=9,
        num_experts_per_tok=2, n_shared_experts=0, routed_scaling_factor=1.0, norm_topk_prob=True,
        first_k_dense_replace=1, rope_interleave=False, rope_theta=500,
        rope_scaling=dict(YARN, mscale=1.0, mscale_all_dim=0), tie_word_embeddings=True, own_head=True,
    ),
}


def quantize(folder, block):
    """Rewrites the projections as e4m3 with weight_scale_inv; returns a folder with the float32 weights they stand for."""
    tensors = load_file(folder / "model.safetensors")
    plain = {name: tensor.float() for name, tensor in tensors.items()}
    for name in [n for n in tensors if n.endswith(("_proj.weight", "kv_a_proj_with_mqa.weight"))]:
        out, columns = plain[name].shape
        high, wide = -(-out // block), -(-columns // block)
        padded = torch.zeros(high * block, wide * block)
        padded[:out, :columns] = plain[name]
        tiles = padded.view(high, block, wide, block)
        scale = tiles.abs().amax((1, 3)) / 448
        q = (tiles / scale[:, None, :, None]).to(torch.float8_e4m3fn)
        plain[name] = (q.float() * scale[:, None, :, None]).view_as(padded)[:out, :columns].contiguous()
        tensors[name] = q.view(padded.shape)[:out, :columns].contiguous()
        tensors[name + "_scale_inv"] = scale.contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    reference = pathlib.Path(tempfile.mkdtemp())
    save_file(plain, reference / "model.safetensors", metadata={"format": "pt"})
    return reference


def build(name, spec):
    spec = {**COMMON, **spec}
    own_head = spec.pop("own_head", False)
    dtype, shards, mtp = spec.pop("dtype", torch.bfloat16), spec.pop("shards", False), spec.pop("mtp", False)
    model_type, generation = spec.pop("model_type"), spec.pop("generation", None)
    build_as, fp8_block = spec.pop("build_as", model_type), spec.pop("fp8_block", None)
    torch.manual_seed(20261121)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(build_as, **spec), dtype=torch.float32).eval()
    for key, value in model.named_buffers():
        if key.endswith("e_score_correction_bias"):
            value.copy_(torch.randn_like(value) * 0.2)
    for key, value in model.named_parameters():
        if "norm" in key:
            value.data.uniform_(0.5, 1.5)
        if key.endswith(".bias"):
            value.data.normal_(0, 0.1)
        if key.endswith("mlp.gate.weight"):
            value.data.normal_(0, 0.5)
    folder = here / name
    shutil.rmtree(folder, ignore_errors=True)
    model.to(dtype).save_pretrained(folder, max_shard_size="250KB" if shards else "1GB")
    reference = quantize(folder, fp8_block) if fp8_block else folder
    if own_head:
        tensors = load_file(folder / "model.safetensors")
        tensors["lm_head.weight"] = torch.randn_like(tensors["model.embed_tokens.weight"]) * 0.15
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    if mtp:
        tensors = load_file(folder / "model.safetensors")
        tensors["model.layers.3.eh_proj.weight"] = torch.randn(8, 8)
        tensors["model.layers.3.enorm.weight"] = torch.randn(8)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    # The config as its author wrote it, not as transformers rewrites it.
    spec.update(model_type=model_type, hidden_act="silu", torch_dtype=str(dtype).removeprefix("torch."))
    if model_type.startswith("deepseek_v3") or model_type == "kimi_k2":
        spec.update(scoring_func="sigmoid", topk_method="noaux_tc", moe_layer_freq=1)
    (reference / "config.json").write_text(json.dumps(spec, indent=1))
    if fp8_block:
        spec["quantization_config"] = dict(
            quant_method="fp8", fmt="e4m3", activation_scheme="dynamic", weight_block_size=[fp8_block, fp8_block]
        )
    (folder / "config.json").write_text(json.dumps(spec, indent=1))
    (folder / "generation_config.json").unlink(missing_ok=True)
    if generation:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    tokenizer = Tokenizer(WordLevel({f"w{i}": i for i in range(spec["vocab_size"])}, unk_token="w3"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    golden(folder, build_as, reference)


def golden(folder, build_as, reference):
    settings = json.loads((reference / "config.json").read_text())
    config = AutoConfig.for_model(build_as, **{k: v for k, v in settings.items() if k != "model_type"})
    model = AutoModelForCausalLM.from_pretrained(
        reference, config=config, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    ).eval()
    torch.manual_seed(7)
    generations = []
    for length in (1, 3, 17, 64, 65, 130):
        ids = torch.randint(3, config.vocab_size, (1, length))
        prompt, steps, out, gap = ids[0].tolist(), [], [], 1e9
        with torch.no_grad():
            for _ in range(24):
                log_p = model(ids).logits[0, -1].float().log_softmax(-1)
                top = log_p.topk(5)
                gap = min(gap, float(top.values[0] - top.values[1]))
                steps.append(dict(ids=top.indices.tolist(), logprobs=[round(v, 6) for v in top.values.tolist()]))
                out.append(int(top.indices[0]))
                ids = torch.cat([ids, top.indices[:1].view(1, 1)], 1)
        generations.append(dict(prompt_ids=prompt, output_ids=out, min_gap=round(gap, 6), steps=steps))
    data = dict(reference="transformers, float32, eager attention, greedy", generations=generations)
    (folder / "golden.json").write_text(json.dumps(data))
    print(folder.name, "smallest gap", min(g["min_gap"] for g in generations))


for name in sys.argv[1:] or MODELS:
    build(name, MODELS[name])
