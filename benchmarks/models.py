"""Which architectures can be used: a tiny model of each, with random weights, is loaded.

`python -m benchmarks.report` writes what came of it into docs/models.md.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from latentgym.errors import UsageError
from latentgym.lm import LatentLM
from latentgym.text.tokenizers import ByteTokenizer

_COMMON: dict[str, Any] = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 256,
    "bos_token_id": 257,
    "eos_token_id": 258,
}
_MOE: dict[str, Any] = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
_MLA: dict[str, Any] = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
}
_WINDOW = {"sliding_window": 8}  # fewer than are read
_BY_LAYER = {"layer_types": ["sliding_attention", "full_attention"], **_WINDOW}
_HEAD = {"head_dim": 8}
# What is special of an architecture is set so that it changes a tiny model, too.
_GRANITE = {
    "embedding_multiplier": 3.0,
    "logits_scaling": 2.0,
    "attention_multiplier": 0.3,
    "residual_multiplier": 0.5,
}
_CAPS = {"attn_logit_softcapping": 0.5, "final_logit_softcapping": 2.0}

_ROBERTA = {"pad_token_id": 1, "is_decoder": True}

# By model type, with what differs from the common sizes.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "afmoe": {**_MOE, **_HEAD, **_BY_LAYER},
    "apertus": {},
    "arcee": {**_HEAD},
    "aria_text": {**_HEAD, "moe_num_experts": 4, "moe_topk": 2},
    "bert": {},
    "bert-generation": {"is_decoder": True},
    "bitnet": {},
    "bloom": {},
    "codegen": {},
    "cohere": {"logit_scale": 0.25},
    "cohere2": {**_HEAD, **_BY_LAYER, "logit_scale": 0.25},
    "ctrl": {"dff": 32},
    "cwm": {**_HEAD, **_BY_LAYER},
    "deepseek_v2": {**_MOE, **_MLA},
    "deepseek_v3": {**_MOE, **_MLA, "n_group": 1, "topk_group": 1},
    "diffllama": {},
    "doge": {},
    "electra": {},
    "ernie4_5": {**_HEAD},
    "ernie4_5_moe": {**_MOE, "moe_num_experts": 4, "moe_k": 2},
    "exaone4": {**_BY_LAYER},
    "exaone_moe": {**_MOE, **_BY_LAYER, "n_group": 1, "topk_group": 1},
    "falcon": {},
    "falcon_h1": {},
    "flex_olmo": {**_MOE},
    "gemma": {**_HEAD},
    "gemma2": {**_HEAD, **_BY_LAYER, **_CAPS, "query_pre_attn_scalar": 3},
    "gemma3_text": {**_HEAD, **_BY_LAYER, "query_pre_attn_scalar": 3},
    "gemma3n_text": {
        **_HEAD,
        **_BY_LAYER,
        "vocab_size_per_layer_input": 259,
        "hidden_size_per_layer_input": 8,
        "num_kv_shared_layers": 0,
        "laurel_rank": 8,
        "activation_sparsity_pattern": [0.0, 0.0],
    },
    "glm": {**_HEAD},
    "glm4": {**_HEAD},
    "glm4_moe": {**_MOE, **_HEAD},
    "glm4_moe_lite": {**_MOE, **_MLA},
    "gpt2": {},
    "gpt_bigcode": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gpt_neox": {},
    "gpt_oss": {**_MOE, **_HEAD, **_BY_LAYER},
    "gptj": {},
    "granite": {**_GRANITE},
    "granitemoe": {**_MOE, **_GRANITE},
    "granitemoeshared": {**_MOE, **_GRANITE},
    "helium": {**_HEAD},
    "hunyuan_v1_dense": {**_HEAD},
    "hunyuan_v1_moe": {**_MOE, **_HEAD, "moe_topk": 2},
    "hyperclovax": {"logits_scaling": 2.0},
    "jais2": {**_HEAD},
    "jamba": {},
    "jetmoe": {**_MOE},
    "lfm2": {"layer_types": ["full_attention", "conv"]},
    "llama": {},
    "llama4_text": {**_MOE, **_HEAD},
    "mamba": {},
    "minicpm3": {**_MLA},
    "minimax": {**_MOE, **_HEAD},
    "minimax_m2": {**_MOE, **_HEAD},
    "ministral": {**_HEAD, **_BY_LAYER},
    "mistral": {**_HEAD, **_WINDOW},
    "mixtral": {**_MOE},
    "modernbert-decoder": {**_BY_LAYER},
    "moshi": {"num_codebooks": 1},
    "mpt": {},
    "nanochat": {"final_logit_softcapping": 2.0},
    "nemotron": {},
    "olmo": {},
    "olmo2": {},
    "olmo3": {**_BY_LAYER},
    "olmoe": {**_MOE},
    "opt": {"ffn_dim": 32, "word_embed_proj_dim": 16},
    "persimmon": {},
    "phi": {},
    "phi3": {**_WINDOW},
    "phimoe": {**_MOE},
    "qwen2": {**_BY_LAYER, "use_sliding_window": True},
    "qwen2_moe": {**_MOE},
    "qwen3": {**_HEAD},
    "qwen3_moe": {**_MOE, **_HEAD},
    "recurrent_gemma": {},
    "roberta": {**_ROBERTA},
    "rwkv": {},
    "seed_oss": {**_HEAD},
    "smollm3": {},
    "stablelm": {},
    "starcoder2": {**_WINDOW},
    "vaultgemma": {**_HEAD, **_BY_LAYER, **_CAPS},
    "xglm": {"ffn_dim": 32, "attention_heads": 4, "pad_token_id": 1},
    "xlm-roberta": {**_ROBERTA},
}


def build(name: str) -> Any:
    """A model of that architecture whose weights are random, and none of them near 0.

    As models come, some parts do nothing and what is read changes little.
    """
    config = AutoConfig.for_model(name, **{**_COMMON, **ARCHITECTURES[name]})
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        auto: Any = AutoModelForCausalLM
        model = auto.from_config(config).float()
        for parameter in model.parameters():
            parameter.mul_(3).add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


@functools.cache
def loaded(name: str) -> LatentLM | UsageError:
    """The model as the library takes it, or why it refuses it."""
    try:
        return LatentLM(build(name), ByteTokenizer(), name)
    except UsageError as error:
        return error


def section() -> str:
    """The part of docs/models.md that says what came of it."""
    found = {name: loaded(name) for name in ARCHITECTURES}
    works = [f"`{name}`" for name, lm in found.items() if isinstance(lm, LatentLM)]
    refused = [
        f"| `{name}` | {str(error).partition(';')[0]} |"
        for name, error in found.items()
        if isinstance(error, UsageError)
    ]
    return "\n".join(
        [
            f"With transformers {transformers.__version__} these {len(works)} of {len(found)} "
            f"architectures work: {', '.join(works)}.",
            "",
            "The others are refused:",
            "",
            "| architecture | what is said |",
            "| --- | --- |",
            *refused,
        ]
    )


SECTIONS = {"models": section}
