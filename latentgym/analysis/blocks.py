"""Where attention, MLP and last norm are in a model, found by looking at what its parts compute.

Legend: B rows, T positions, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from latentgym.errors import UsageError
from latentgym.lm import LatentLM
from latentgym.lm.mode import mode

_TOKENS = 6  # that are read to see what parts compute
_CLOSE = 1e-3  # of the size of what is added; fp32 sums of large residuals round


@dataclass(frozen=True)
class Anatomy:
    """The parts of a pre-norm transformer.

    Attributes:
        blocks: in order.
        attention, mlp: names, within a block, of what adds to the residual stream: the module
            itself, or a norm behind it, or the last layer of an MLP that is no module. What it
            gives may have rows and positions joined (OPT).
        norm: what stands between the last block and the language-model head.
        factor: what blocks multiply by before they add (Granite), else 1.
    """

    blocks: tuple[nn.Module, ...]
    attention: str
    mlp: str
    norm: nn.Module
    factor: float


@torch.no_grad()
def anatomy(lm: LatentLM) -> Anatomy:
    """The parts of a model, which reads a few tokens for that.

    Raises:
        UsageError: its blocks are not h + attention(h), then h + MLP(h), or what they compute is no
            number.
    """
    blocks = tuple(_blocks(lm))
    factor = float(getattr(lm.config, "residual_multiplier", None) or 1.0)
    ids = torch.arange(_TOKENS, device=lm.device)[None] % lm.vocab_size
    finals: list[tuple[str, Tensor, Tensor]] = []
    with mode(lm, training=False), ExitStack() as hooks:
        seen = [_watched(block, hooks) for block in blocks]
        for name, module in lm.backbone.named_modules():
            keep = partial(_in_and_out, finals, name)
            hooks.callback(module.register_forward_hook(keep).remove)
        hidden = lm.hidden(lm.embed(ids), torch.ones_like(ids, dtype=torch.bool))
    if not bool(hidden.isfinite().all()):
        raise UsageError(
            f"{lm.name} computes what is no number (NaN or infinite); its training has gone "
            "astray, so analyse an earlier checkpoint."
        )
    left = seen[-1]["out"]
    norms = [n for n, x, y in finals if _equal(x, left) and _equal(y, hidden)]
    if not norms and not _equal(left, hidden):
        raise _refusal(lm, "what follows its last block is no norm alone")
    norm: nn.Module = lm.backbone.get_submodule(norms[-1]) if norms else nn.Identity()
    for attention, mlp in _pairs(seen[0]["parts"]):
        if all(_adds(each, attention, mlp, factor) for each in seen):
            return Anatomy(blocks, attention, mlp, norm, factor)
    raise _refusal(lm, "its blocks are not h + attention(h), then h + MLP(h)")


def hidden_of(
    args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Tensor, tuple[Any, ...], Mapping[str, Any]]:
    """The residual stream that a block is called with, and what else it is called with."""
    if args:
        return args[0], args[1:], kwargs
    rest = dict(kwargs)
    return rest.pop("hidden_states"), (), rest


def tensor_of(out: Any) -> Any:
    """What a module gives, without what some give beside it (attention weights, router logits)."""
    return out[0] if isinstance(out, tuple) else out


def _adds(seen: Mapping[str, Any], attention: str, mlp: str, factor: float) -> bool:
    """Whether a block is h + a, read by something behind it, + m."""
    parts = seen["parts"]
    if attention not in parts or mlp not in parts:
        return False
    h = seen["in"]
    if any(parts[name][1].numel() != h.numel() for name in (attention, mlp)):
        return False
    a, m = (factor * parts[name][1].reshape(h.shape) for name in (attention, mlp))
    between, scale = h + a, (a.abs() + m.abs()).max()
    inputs = (x.reshape(h.shape) for x, _ in parts.values() if x.numel() == h.numel())
    read = any(_equal(x, between, scale) for x in inputs)
    return read and _equal(between + m, seen["out"], scale)


def _refusal(lm: LatentLM, why: str) -> UsageError:
    return UsageError(
        f"the residual stream of {lm.architecture} cannot be taken apart: {why}; choose a "
        "pre-norm model such as Llama, Qwen, Gemma, Mistral, OLMo 2 or GPT-2."
    )


def _blocks(lm: LatentLM) -> nn.ModuleList:
    """The list of the model's blocks.

    Raises:
        UsageError: it has none of that length.
    """
    count = lm.config.num_hidden_layers
    for module in lm.backbone.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise UsageError(
        f"{lm.architecture} has no list of {count} blocks, so it cannot be analysed layer by layer."
    )


def _watched(block: nn.Module, hooks: ExitStack) -> dict[str, Any]:
    """What a block reads and leaves, and what its parts do, when it is called."""
    seen: dict[str, Any] = {"parts": {}}

    def whole(_: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        seen["in"], seen["out"] = hidden_of(args, kwargs)[0], tensor_of(out)

    def part(name: str, _: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        y = tensor_of(out)
        x = next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)), None)
        if isinstance(y, Tensor) and x is not None:
            seen["parts"][name] = (x, y)

    hooks.callback(block.register_forward_hook(whole, with_kwargs=True).remove)
    for name, module in block.named_children():
        hook = module.register_forward_hook(partial(part, name), with_kwargs=True)
        hooks.callback(hook.remove)
    return seen


def _pairs(parts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Two parts of a block in the order in which they are called; late ones first.

    Norms behind attention or MLP (Gemma 2, OLMo 2) are what adds then.
    """
    names = list(parts)
    for j in reversed(range(len(names))):
        for i in reversed(range(j)):
            yield names[i], names[j]


def _in_and_out(found: list[Any], name: str, _: nn.Module, args: Any, out: Any) -> None:
    if args and isinstance(args[0], Tensor) and isinstance(out, Tensor):
        found.append((name, args[0], out))


def _equal(x: Tensor, y: Tensor, scale: Tensor | None = None) -> bool:
    if x.shape != y.shape:
        return False
    size = y.abs().max() if scale is None else scale
    return bool((x - y).abs().max() <= _CLOSE * size + 1e-12)
