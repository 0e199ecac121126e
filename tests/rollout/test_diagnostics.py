"""What is told of a rollout's thoughts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from latentgym.episodes.protocol import Budget, Protocol
from latentgym.heads import MultiTokenHead, TokenHead
from latentgym.lm import LatentLM, load_model, model
from latentgym.rollout import Engine, Policy, diagnostics, latent_statistics
from latentgym.rollout.diagnostics import nearest_cosine
from latentgym.text.tokenizers import ByteTokenizer


def test_a_word_is_its_own_nearest() -> None:
    table = torch.randn(30, 8, generator=torch.Generator().manual_seed(4))
    norms = table.norm(dim=-1)
    assert_close(nearest_cosine(2.5 * table[3:9], table, norms), torch.tensor(1.0))
    assert float(nearest_cosine(table[:1] + table[1:2], table, norms)) < 1


@pytest.mark.parametrize("block", [1, 7, 30, 99])
def test_the_nearest_is_found_in_any_block(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "TABLE_BLOCK", block)
    generator = torch.Generator().manual_seed(4)
    x, table = torch.randn(9, 8, generator=generator), torch.randn(30, 8, generator=generator)
    cosine = nn.functional.cosine_similarity(x[:, None], table, dim=-1)
    expected = cosine.amax(-1).mean()
    assert_close(nearest_cosine(x, table, table.norm(dim=-1)), expected)


def test_thoughts_of_a_rollout(random_lm: Callable, prompts: Any, protocol: Protocol) -> None:
    lm = random_lm("llama")

    def told(head: Any, rules: Protocol = protocol) -> dict[str, float]:
        policy = Policy(lm, head)
        return latent_statistics(policy, Engine(policy).rollout(prompts, rules, seed=0))

    one, four = told(MultiTokenHead(1)), told(MultiTokenHead(4))
    assert one["latent/nearest"] == pytest.approx(1, abs=1e-5)
    # The mean of four embeddings is shorter than one; a word is as long as words are.
    assert 0.2 < four["latent/norm"] < 0.9 < one["latent/norm"] < 1.2
    assert four["latent/nearest"] < 1 and "latent/word_norm" in four
    assert told(TokenHead()) == {}
    assert told(MultiTokenHead(2), Protocol(think=Budget(0), answer=Budget(3))) == {}


class Made(TorchDispatchMode):
    """The tensors that are made within it: their sizes in bytes, and of which operation."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[int, str]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {x.untyped_storage().data_ptr() for x in args if isinstance(x, Tensor)}
        if isinstance(out, Tensor) and out.untyped_storage().data_ptr() not in given:
            self.made.append((out.numel() * out.element_size(), str(func)))
        return out


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[dict[str, float], Made]]:
    """Statistics of a rollout of a bf16 model whose table exceeds a block; what they made."""
    for module in (diagnostics, model):
        monkeypatch.setattr(module, "TABLE_BLOCK", 32)
    lm: LatentLM = load_model("tiny:llama:1x2x64", tokenizer=ByteTokenizer(), dtype="bfloat16")
    policy = Policy(lm, MultiTokenHead(2))
    rules = Protocol(think=Budget(3, exact=True), answer=Budget(2, exact=True))
    rollouts = Engine(policy).rollout([[1, 2]], rules, seed=0)

    def told(change: Callable[[Tensor], None] | None = None) -> tuple[dict[str, float], Made]:
        if change is not None:
            with torch.no_grad():
                change(lm.table_VD)
        with Made() as made:
            found = latent_statistics(policy, rollouts)
        return found, made

    return told


def test_the_table_is_never_copied(wide: Callable[..., Any]) -> None:
    _, made = wide()
    table = 259 * 64 * 2  # bytes
    assert made.made and max(size for size, _ in made.made) < table / 2


def test_norms_are_computed_once_as_long_as_the_table_stays(wide: Callable[..., Any]) -> None:
    def norms(made: Made) -> int:
        return sum(size == 4 * 32 and "norm" in name for size, name in made.made)

    (first, one), (second, two) = wide(), wide()
    assert norms(one) == 259 // 32 and norms(two) == 0 and first == second
    for change in (lambda table: table.mul_(2.0), lambda table: table.data.mul_(2.0)):
        changed, again = wide(change)
        assert norms(again) == 259 // 32
        assert changed["latent/norm"] == pytest.approx(first["latent/norm"], rel=1e-2)
