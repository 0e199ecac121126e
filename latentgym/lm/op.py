"""The outlier-protected transformer of "Understanding and Minimising Outlier Features" (OP).

arXiv 2405.19279 leaves out what makes a few neurons grow far beyond the others: the norms in front
of attention and MLP. Three things take their place,

    h <- h + beta * Attention(h)        beta = 0.2, O(1 / sqrt(depth)): small branches
    h <- h + beta * MLP(h)
    Attention with RMS-normed queries and keys, which bounds its scores

and, as in the authors' code, one LayerNorm in front of the first layer's attention, whose input is
of any size, and the norm in front of the language-model head. The rest is a Qwen 3 (rotary
positions, no biases) with a plain GELU MLP: of a gated one, inputs without a norm would leave a
product of two small numbers.

Importing this module makes the architecture known to transformers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM, Qwen3Model
from transformers.activations import ACT2FN
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3DecoderLayer


class OPConfig(Qwen3Config):
    """A Qwen 3's, and the gain of its branches.

    Attributes:
        residual_gain: beta, what a block's attention and MLP are multiplied with.
        trainable_gain: whether beta is learnt, one for each branch of each block.
    """

    model_type = "latentgym_op"
    hidden_act: str = "gelu"
    residual_gain: float = 0.2
    trainable_gain: bool = False


class OPAttention(Qwen3Attention):
    """Attention with normed queries and keys, times beta."""

    def __init__(self, config: OPConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.gain = _gain(config)

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        out, weights = super().forward(*args, **kwargs)
        return self.gain * out, weights


class OPMLP(nn.Module):
    """Two layers, times beta."""

    def __init__(self, config: OPConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.act_fn = ACT2FN[config.hidden_act]
        self.gain = _gain(config)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.gain * self.down_proj(self.act_fn(self.up_proj(x)))
        return out


class OPBlock(Qwen3DecoderLayer):
    """A block without norms; the first has one in front of its attention."""

    def __init__(self, config: OPConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        own: dict[str, nn.Module] = {
            "self_attn": OPAttention(config, layer_idx),
            "mlp": OPMLP(config),
            "input_layernorm": nn.Identity() if layer_idx else nn.LayerNorm(config.hidden_size),
            "post_attention_layernorm": nn.Identity(),
        }
        for name, part in own.items():
            setattr(self, name, part)


class OPModel(Qwen3Model):
    """The transformer without its language-model head."""

    config_class = OPConfig

    def __init__(self, config: OPConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(OPBlock(config, i) for i in range(config.num_hidden_layers))
        self.post_init()


class OPForCausalLM(Qwen3ForCausalLM):
    """The transformer with its language-model head."""

    config_class = OPConfig

    def __init__(self, config: OPConfig) -> None:
        super().__init__(config)
        self.model = OPModel(config)
        self.post_init()


def _gain(config: OPConfig) -> nn.Parameter | float:
    beta = config.residual_gain
    return nn.Parameter(torch.full((1,), beta)) if config.trainable_gain else beta


AutoConfig.register(OPConfig.model_type, OPConfig)
_auto: Any = AutoModelForCausalLM  # typed in part
_auto.register(OPConfig, OPForCausalLM)
