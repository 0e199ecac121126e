"""The residual stream of a pre-norm transformer: its blocks, and what each adds.

Block l reads h_l and adds what its attention and then its MLP make of it,

    h_{l+1} = h_l + a_l + m_l,     l = 0 .. L-1.

Where these three are in a model of `transformers` is found by looking, once, at what its parts
compute: no table of architectures. Names of the parts follow TransformerLens (`resid_pre`,
`attn_out`, `mlp_out`).

Legend: B rows, T positions, D width, L blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from latentgym.analysis.blocks import anatomy, hidden_of, tensor_of
from latentgym.errors import UsageError
from latentgym.lm import LatentLM
from latentgym.lm.mode import mode

Part = Literal["block", "attention", "mlp"]
PARTS: tuple[Part, ...] = ("block", "attention", "mlp")


@dataclass(frozen=True)
class Trajectory:
    """The residual stream of some sequences, in fp32.

    Attributes:
        resid_pre: what each block reads, L tensors h_l (B, T, D).
        attn_out, mlp_out: what it adds, a_l and m_l.
        final: h_L, what the last block leaves, before the last norm.
        mask_BT: which positions are real.
        calls: what each block is called with beside the residual stream.
    """

    resid_pre: tuple[Tensor, ...]
    attn_out: tuple[Tensor, ...]
    mlp_out: tuple[Tensor, ...]
    final: Tensor
    mask_BT: Tensor
    calls: tuple[Call, ...]

    def __len__(self) -> int:
        return len(self.resid_pre)

    @property
    def states(self) -> tuple[Tensor, ...]:
        """h_0 .. h_L."""
        return *self.resid_pre, self.final

    def added(self, layer: int, part: Part) -> Tensor:
        """What a block, its attention or its MLP adds, (B, T, D)."""
        if part == "attention":
            return self.attn_out[layer]
        if part == "mlp":
            return self.mlp_out[layer]
        return self.states[layer + 1] - self.resid_pre[layer]


Call = tuple[tuple[Any, ...], Mapping[str, Any]]
Edit = Callable[[Tensor], Tensor]


class ResidualStream:
    """Runs a model block by block, and changes what its blocks read and add.

    Args:
        lm: the model, in fp32: small additions to large residuals are lost in fewer bits.

    Raises:
        UsageError: it is of another precision, or its blocks do not add to a residual stream by
            attention first and an MLP behind it.
    """

    def __init__(self, lm: LatentLM) -> None:
        if lm.dtype != torch.float32 or lm.autocast is not None:
            raise UsageError(
                "what a block adds is lost in the rounding of fewer bits; load the model in "
                "float32 (--dtype float32)."
            )
        self.lm = lm
        self.anatomy = anatomy(lm)
        self.blocks = self.anatomy.blocks

    def __len__(self) -> int:
        return len(self.blocks)

    @torch.no_grad()
    def trajectory(self, x_BTD: Tensor, mask_BT: Tensor) -> Trajectory:
        """The residual stream behind these input embeddings.

        Args:
            x_BTD: input embeddings.
            mask_BT: which positions are real; padding may stand on either side.
        """
        calls: list[Call] = []
        read: list[Tensor] = []
        attn: list[Tensor] = []
        mlp: list[Tensor] = []
        out: list[Tensor] = []

        def called(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            h, rest, options = hidden_of(args, kwargs)
            read.append(h)
            calls.append((rest, options))

        with self._evaluating(), ExitStack() as hooks:
            for block in self.blocks:
                hook = block.register_forward_pre_hook(called, with_kwargs=True)
                hooks.callback(hook.remove)
                for name, found in (
                    (self.anatomy.attention, attn),
                    (self.anatomy.mlp, mlp),
                    ("", out),
                ):
                    keep = partial(_keep, found)
                    part = block.get_submodule(name)
                    hooks.callback(part.register_forward_hook(keep).remove)
            self.lm.hidden(x_BTD, mask_BT)
        a, m = (
            tuple(
                self.anatomy.factor * y.reshape(h.shape) for y, h in zip(added, read, strict=True)
            )
            for added in (attn, mlp)
        )
        return Trajectory(tuple(read), a, m, out[-1], mask_BT, tuple(calls))

    def block(self, trajectory: Trajectory, layer: int, h_BTD: Tensor) -> Tensor:
        """What one block makes of another residual stream, h_{l+1}, (B, T, D)."""
        args, kwargs = trajectory.calls[layer]
        with self._evaluating():
            after: Tensor = tensor_of(self.blocks[layer](h_BTD, *args, **kwargs))
            return after

    def onward(
        self,
        trajectory: Trajectory,
        h_BTD: Tensor,
        layer: int,
        *,
        changes: Mapping[int, Edit] | None = None,
    ) -> Iterator[Tensor]:
        """The residual stream from a block on: h_layer as it is given, then h_{layer+1} .. h_L.

        Args:
            trajectory: of the same sequences, which says how blocks are called.
            h_BTD: what block `layer` reads.
            layer: where it begins; L for behind the last.
            changes: what to make of h_l before block l reads it, by l.
        """
        for here in range(layer, len(self) + 1):
            if changes is not None and here in changes:
                h_BTD = changes[here](h_BTD)
            yield h_BTD
            if here < len(self):
                h_BTD = self.block(trajectory, here, h_BTD)

    def skipped(self, trajectory: Trajectory, layer: int, part: Part, where_BT: Tensor) -> Tensor:
        """h_{layer+1} where that part of the block adds nothing at some positions.

        An MLP that is fed what attention has not added says something else, which is computed; the
        rest is known from the trajectory.

        Args:
            trajectory: without the skip.
            layer: of the block.
            part: what is skipped.
            where_BT: at which positions.
        """
        h_BTD, after_BTD = trajectory.states[layer : layer + 2]
        where_BT1 = where_BT[..., None]
        if part == "block":
            return torch.where(where_BT1, h_BTD, after_BTD)
        if part == "mlp":
            return torch.where(where_BT1, h_BTD + trajectory.attn_out[layer], after_BTD)

        def silent(_: nn.Module, __: Any, out: Any) -> Any:
            added = tensor_of(out)
            where = where_BT1.reshape(*added.shape[:-1], 1)
            return _with_tensor(out, added.masked_fill(where, 0.0))

        attention = self.blocks[layer].get_submodule(self.anatomy.attention)
        hook = attention.register_forward_hook(silent)
        try:
            return self.block(trajectory, layer, h_BTD)
        finally:
            hook.remove()

    def logits(self, h_BTD: Tensor) -> Tensor:
        """What the model would say if h were the last residual stream: lm_head(norm(h)), fp32."""
        with self._evaluating():
            return self.lm.logits(self.normed(h_BTD))

    def normed(self, h_BTD: Tensor) -> Tensor:
        """The last norm of the model on a residual stream; its logits are the head's of this."""
        normed: Tensor = self.anatomy.norm(h_BTD)
        return normed

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        with mode(self.lm, training=False):
            yield


def _with_tensor(out: Any, tensor: Tensor) -> Any:
    return (tensor, *out[1:]) if isinstance(out, tuple) else tensor


def _keep(found: list[Tensor], _: nn.Module, __: Any, out: Any) -> None:
    found.append(tensor_of(out))
