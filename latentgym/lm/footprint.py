"""How much memory a rollout and an update take, told from a model's sizes before any is taken.

Everything is counted in bytes. What stands throughout (weights, gradients, the optimiser's state)
and caches are exact. What lives for a moment (activations, logits) is counted from what autograd
keeps of each block, and from the largest tensors that are alive together; tests and `latentgym
bench memory` hold the sums to what is measured. Memory that a device takes beside tensors (the
context of a GPU, several hundred MB; what an allocator holds in reserve) is not in them.

The formulas are those of dense decoders with attention of one kind, whose feed-forward part is
gated (Llama, Qwen2 and their kin) or not (GPT-2).

Legend: L layers, D width, H heads, K key-value heads, d head width, F inner width, V vocabulary;
Q prompts, G rows per prompt, N = Q G rows, B rows of a micro-batch, P prompt positions, T steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from latentgym.errors import UsageError
from latentgym.lm.model import MOST_LOGITS
from latentgym.lm.quantized import BITS

_FP32 = torch.float32.itemsize
_FIRST_CAPACITY = 16  # positions; buffers of `GroupedCache` double from there
_ADAMW = 2  # tensors that it keeps of each parameter
# Of a row of fp32 logits, how many more such rows live beside it: where a token is drawn (softmax,
# and its sum in float64), and where an action is scored (softmax, entropy, their products, and
# gradients on the way back).
_DRAWN, _SCORED = 3, 4
_SCORES = 4  # copies of a step's attention scores: of both parts, joined, and their softmax


@dataclass(frozen=True)
class _Block:
    """What autograd keeps of each position in a block, beside attention's own, in tensors.

    Attributes:
        stream: D wide in fp32, whatever the pass computes in: inputs of norms, and what they norm.
        inputs: D wide, of linear layers: what norms give.
        casts: the same under autocast, which casts for each layer that reads it.
        inner: F wide.
        statistics: numbers, in fp32.
    """

    stream: int
    inputs: int
    casts: int
    inner: int
    statistics: int


_GATED = _Block(stream=4, inputs=2, casts=5, inner=4, statistics=2)
_PLAIN = _Block(stream=2, inputs=2, casts=2, inner=5, statistics=4)


@dataclass(frozen=True)
class Layout:
    """Sizes of a decoder.

    Attributes:
        layers, width, heads, kv_heads, head_width, inner, vocab: L, D, H, K, d, F, V.
        gated: whether the feed-forward part is.
        parameters: all of them, a tied table counted once.
        matrices: elements of what a pass multiplies with, the language-model head among them.
        adapted: inputs and outputs, summed over the layers that LoRA adapts.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    inner: int
    vocab: int
    gated: bool
    parameters: int
    matrices: int
    adapted: int

    @property
    def cached(self) -> int:
        """Elements that a cache holds of a position: 2 L K d."""
        return 2 * self.layers * self.kv_heads * self.head_width


def layout_of(model: Any) -> Layout:
    """The sizes of a transformers model; its weights may be on the meta device.

    Raises:
        UsageError: it has experts, of which the formulas know nothing.
    """
    config = model.config.get_text_config()

    def told(*names: str) -> int | None:
        found = (getattr(config, name, None) for name in names)
        return next((int(value) for value in found if value is not None), None)

    if told("num_experts", "num_local_experts", "n_routed_experts"):
        raise UsageError(
            f"{type(model).__name__} has experts, whose memory is not foreseen; measure a dense "
            "model."
        )
    width, heads = int(config.hidden_size), int(config.num_attention_heads)
    head = model.get_output_embeddings()
    linear = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D)}
    adapted: list[Any] = [m for m in linear.values() if m is not head]
    return Layout(
        layers=int(config.num_hidden_layers),
        width=width,
        heads=heads,
        kv_heads=told("num_key_value_heads") or heads,
        head_width=told("head_dim") or width // heads,
        inner=told("intermediate_size", "n_inner") or 4 * width,
        vocab=int(config.vocab_size),
        gated=any(name.endswith("gate_proj") for name in linear),
        parameters=sum(p.numel() for p in model.parameters()),
        matrices=sum(module.weight.numel() for module in linear.values()),
        adapted=sum(sum(module.weight.shape) for module in adapted),
    )


def planned(config: Any) -> Layout:
    """The sizes of the model that a transformers configuration describes; no weights are made."""
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    with torch.device("meta"):
        return layout_of(auto.from_config(config))


@dataclass(frozen=True)
class Footprint:
    """What a rollout of a model takes, and an update that learns from it.

    Attributes:
        layout: sizes of the model.
        dtype: what it computes in. Weights that are trained are fp32; others are of this type.
        prompts, group: Q and G of a rollout.
        prompt, steps: P and T.
        rows: B of an update, neighbours in their group.
        trained: all weights, or none; `lora` trains adapters.
        lora: their rank; 0 has none.
        recompute: whether activations are computed again in the backward pass.
        padded: whether prompts, or rows without shared prompts, are of unequal lengths, so that
            attention has a mask.
        packed: whether decoding packs the weights (`latentgym.lm.packed`).
        four_bits: whether linear layers but the head are in 4 bits, below adapters.
        eight_bits: whether AdamW keeps its moments in 8 bits.
        foreach: whether AdamW steps all weights together, as torch does on a GPU, which takes as
            much again as they do for a moment.
    """

    layout: Layout
    dtype: torch.dtype = torch.float32
    prompts: int = 1
    group: int = 8
    prompt: int = 256
    steps: int = 64
    rows: int = 8
    trained: bool = False
    lora: int = 0
    recompute: bool = False
    padded: bool = True
    packed: bool = False
    four_bits: bool = False
    eight_bits: bool = False
    foreach: bool = False

    # What stands throughout.

    @property
    def trainable(self) -> int:
        """Parameters that are trained."""
        if self.lora:
            return self.lora * self.layout.adapted
        return self.layout.parameters if self.trained else 0

    @property
    def weights(self) -> int:
        """Bytes of all weights, adapters among them."""
        if self.lora or self.four_bits:
            whole = self.layout.parameters * self.dtype.itemsize + self.trainable * _FP32
            saved = self.dtype.itemsize - BITS / 8 if self.four_bits else 0
            return whole - round(saved * self._quantized)
        return self.layout.parameters * (_FP32 if self.trained else self.dtype.itemsize)

    @property
    def gradients(self) -> int:
        """Bytes of the gradients, in fp32."""
        return self.trainable * _FP32

    @property
    def _quantized(self) -> int:
        """Elements of the matrices that can be in 4 bits."""
        return self.layout.matrices - self.layout.vocab * self.layout.width

    @property
    def optimizer(self) -> int:
        """Bytes of AdamW's two moments, in fp32, or in 8 bits with a scale for 256 of them."""
        moment = 1 + _FP32 / 256 if self.eight_bits else _FP32
        return round(_ADAMW * self.trainable * moment)

    @property
    def casts(self) -> int:
        """Bytes of the weights' second copies: cast by autocast while a pass runs, or packed."""
        if self.dtype != torch.float32 and self.trainable:
            matrices = self.trainable if self.lora else self.layout.matrices
            return matrices * self.dtype.itemsize
        return self.layout.matrices * self.dtype.itemsize if self.packed else 0

    # Rollouts.

    @property
    def cache_position(self) -> int:
        """Bytes of one position in a cache: 2 L K d elements."""
        return self.layout.cached * self.dtype.itemsize

    @property
    def prompt_cache(self) -> int:
        """Bytes of one prompt's cache, which all its rows share."""
        return self.prompt * self.cache_position

    @property
    def own_cache(self) -> int:
        """Bytes of what one row has cached after all steps, with the room its buffers keep."""
        capacity = _FIRST_CAPACITY
        while capacity < self.steps:
            capacity *= 2
        return capacity * self.cache_position

    @property
    def rollout(self) -> int:
        """Most bytes during a rollout, beside what stands: copies, caches, and a moment's tensors.

        Reading the prompts and the last steps compete for the peak.
        """
        size, lay, n = self.dtype.itemsize, self.layout, self.prompts * self.group
        prompts = self.prompts * self.prompt_cache
        # Embeddings, the residual stream, its norm and what that makes; gate, up and their product.
        wide = 4 * lay.width * _FP32 + (3 if lay.gated else 4) * lay.inner * size
        reading = prompts + self.prompts * self.prompt * wide
        logits = n * lay.vocab * (_FP32 * (1 + _DRAWN) + (size if size < _FP32 else 0))
        scores = n * lay.heads * (self.prompt + self.steps) * _SCORES * _FP32
        deciding = prompts + n * self.own_cache + max(logits, scores)
        return self.casts + max(reading, deciding)

    # Updates.

    @property
    def block_position(self) -> int:
        """Bytes that autograd keeps of one position in one block, keys and values left out."""
        lay, block, size = self.layout, _GATED if self.layout.gated else _PLAIN, self.dtype.itemsize
        inputs = block.inputs if size == _FP32 else block.casts
        attention = 2 * lay.heads * lay.head_width  # queries, and what they read
        computed = inputs * lay.width + attention + block.inner * lay.inner
        return computed * size + (block.stream * lay.width + block.statistics + lay.heads) * _FP32

    def block(self, rows: int, new: int, before: int = 0, *, mask: bool) -> int:
        """Bytes that autograd keeps of one block: of positions, keys and values, and the mask.

        Args:
            rows: that are read.
            new: positions of each.
            before: positions behind which they are read.
            mask: whether attention has one; it is kept by each block, and keys and values are
                repeated for all heads then.
        """
        lay, size = self.layout, self.dtype.itemsize
        seen, heads = before + new, lay.heads if mask else lay.kv_heads
        attention = 2 * heads * lay.head_width * seen + (new * seen if mask else 0)
        return rows * (new * self.block_position + attention * size)

    @property
    def shares(self) -> bool:
        """Whether a replay reads prompts once for the rows that share them."""
        return self.rows >= 2 * self._prompts_of_rows and not self.recompute

    @property
    def _prompts_of_rows(self) -> int:
        return -(-self.rows // self.group)

    @property
    def activations(self) -> int:
        """Bytes of what a replay of B rows keeps for its backward pass, all of it."""
        lay, prompts, whole = self.layout, self._prompts_of_rows, self.prompt + self.steps
        read = prompts * self.prompt + self.rows * self.steps if self.shares else self.rows * whole
        # Embeddings and hidden states of whole rows; the last norm.
        outside = (2 * self.rows * whole + 3 * read) * lay.width * _FP32
        if self.recompute:  # the inputs of blocks
            return outside + lay.layers * read * lay.width * _FP32
        if not self.shares:
            return outside + lay.layers * self.block(self.rows, whole, mask=self.padded)
        of_prompts = self.block(prompts, self.prompt, mask=self.padded)
        of_steps = self.block(self.rows, self.steps, self.prompt, mask=True)
        return outside + lay.layers * (of_prompts + of_steps)

    @property
    def logits(self) -> int:
        """Bytes of what a replay holds of one chunk of logits, gradients among them."""
        chunk = min(self.rows * self.steps, max(1, MOST_LOGITS // self.layout.vocab))
        return chunk * self.layout.vocab * _FP32 * (1 + _SCORED)

    @property
    def update(self) -> int:
        """Most bytes during replay and update, beside weights and the optimiser's state.

        The backward pass and the optimiser's step compete for the peak. In the former, what lives
        for a moment is the largest of: a chunk of logits; the prompts' keys and values, repeated
        for all rows until these are read; a block's widest gradient, and with it all that is
        computed again of the block.
        """
        whole = self.prompt + self.steps
        repeated = self.rows * whole * self.cache_position if self.shares else 0
        again = self.block(self.rows, whole, mask=self.padded) if self.recompute else 0
        gradient = self.rows * (self.steps if self.shares else whole) * self.layout.inner
        moment = max(self.logits, repeated, again + gradient * self.dtype.itemsize)
        passed = self.casts + self.activations + moment
        return self.gradients + max(passed, self.trainable * _FP32 if self.foreach else 0)

    @property
    def standing(self) -> int:
        """Bytes of weights and the optimiser's state."""
        return self.weights + self.optimizer

    @property
    def acting(self) -> int:
        """Most bytes of all during a rollout."""
        return self.standing + self.rollout

    @property
    def training(self) -> int:
        """Most bytes of all during a step of training: of its rollout or its update."""
        return self.standing + max(self.rollout, self.update)


def read_per_step(layout: Layout, dtype: torch.dtype, rows: int, prompts: int, held: int) -> int:
    """Bytes that a decoding step cannot but read: matrices and caches, each once.

    Args:
        layout: sizes of the model.
        dtype: of weights and caches.
        rows: N.
        prompts: positions of all prompts together.
        held: positions of each row's own.
    """
    return (layout.matrices + (prompts + rows * held) * layout.cached) * dtype.itemsize
