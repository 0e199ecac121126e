"""The layers of Llama and its kin without their modules' own code, for reading step by step.

A step of a small model spends a fifth of its time between kernels: in the calls of modules, in
their arguments and outputs, and in masks that the cache has anyway. Where a model's blocks are
those of Llama the same operations are called here one after the other, with equal results bit for
bit; `is_lean` says whether they are, and everything else (hooks, sliding windows, blocks of another
kind) is left to the modules. Both are compared when a model is loaded.

Legend: N rows, n new positions, D width, H heads, K key-value heads, d head width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_BLOCKS = ("LlamaDecoderLayer", "Qwen2DecoderLayer")

Linear = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class _Block:
    """The parts of one block."""

    norm: tuple[Tensor, float]
    q: Linear
    k: Linear
    v: Linear
    o: Linear
    scaling: float
    mlp_norm: tuple[Tensor, float]
    gate: Linear
    up: Linear
    down: Linear
    activation: Linear


class LeanBlocks:
    """All blocks of a model, and the norm after them.

    Args:
        backbone: a model for which `is_lean` holds.
    """

    def __init__(self, backbone: Any) -> None:
        self._rotary = backbone.rotary_emb
        self._norm = _norm(backbone.norm)
        self._width: int = backbone.layers[0].self_attn.head_dim
        self._blocks = [_block(layer) for layer in backbone.layers]

    def __call__(self, x_NnD: Tensor, position_Nn: Tensor, cache: Any) -> Tensor:
        """Last hidden states, (N, n, D), as `LatentLM.extend` tells them."""
        n_rows, n, _ = x_NnD.shape
        heads = n_rows, n, -1, self._width
        cos, sin = self._rotary(x_NnD, position_ids=position_Nn)
        half = self._width // 2
        cos, sin = cos[:, None, :, :half], sin[:, None, :, :half]  # both halves are alike
        x = x_NnD
        for i, block in enumerate(self._blocks):
            h = _normed(x, block.norm)
            query = _rotated(block.q(h).view(heads).transpose(1, 2), cos, sin)
            key = _rotated(block.k(h).view(heads).transpose(1, 2), cos, sin)
            keys, values = cache.update(key, block.v(h).view(heads).transpose(1, 2), i)
            read = cache.attend(query, keys, values, scaling=block.scaling)
            x = x + block.o(read.view(n_rows, n, -1))
            h = _normed(x, block.mlp_norm)
            x = x + block.down(block.activation(block.gate(h)) * block.up(h))
        return _normed(x, self._norm)


def is_lean(backbone: Any) -> bool:
    """Whether a model's blocks are those of Llama, and nobody listens to their modules."""
    layers = getattr(backbone, "layers", None)
    if not layers or not hasattr(backbone, "rotary_emb") or not hasattr(backbone, "norm"):
        return False
    return all(
        type(layer).__name__ in _BLOCKS and getattr(layer.self_attn, "sliding_window", None) is None
        for layer in layers
    ) and not any(_watched(module) for module in backbone.modules())


def _watched(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _block(layer: Any) -> _Block:
    attention, mlp = layer.self_attn, layer.mlp
    return _Block(
        norm=_norm(layer.input_layernorm),
        q=_call(attention.q_proj),
        k=_call(attention.k_proj),
        v=_call(attention.v_proj),
        o=_call(attention.o_proj),
        scaling=attention.scaling,
        mlp_norm=_norm(layer.post_attention_layernorm),
        gate=_call(mlp.gate_proj),
        up=_call(mlp.up_proj),
        down=_call(mlp.down_proj),
        activation=mlp.act_fn,
    )


def _call(module: nn.Module) -> Linear:
    """A layer's forward method; of what is more than a layer, such as an adapter, itself."""
    return module.forward if type(module) is nn.Linear else module


def _norm(module: Any) -> tuple[Tensor, float]:
    return module.weight, module.variance_epsilon


def _normed(x: Tensor, norm: tuple[Tensor, float]) -> Tensor:
    """RMS norm, in fp32."""
    weight, eps = norm
    wide = x if x.dtype == torch.float32 else x.float()
    # Not torch's own, which takes as long again on the CPU.
    scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True).add_(eps))
    return weight * scaled.to(x.dtype)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of (N, H, n, d)."""
    one, other = x.chunk(2, dim=-1)
    return torch.cat([one * cos - other * sin, other * cos + one * sin], dim=-1)
