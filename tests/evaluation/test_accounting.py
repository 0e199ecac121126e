"""Costs against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.models import loaded
from latentgym.evaluation.accounting import ModelSizes, Positions, flops
from latentgym.evaluation.answers import Identity
from latentgym.heads import (
    ControlHead,
    DirichletHead,
    GatedHead,
    GaussianHead,
    HiddenStateHead,
    MixtureHead,
    MultiTokenHead,
    PauseHead,
    PolicyHead,
    RATTHead,
    Readout,
    TokenHead,
)
from latentgym.heads.rng import CounterRNG
from latentgym.lm import LatentLM, load_model
from latentgym.registry import make_vector_env
from latentgym.rollout import Policy

# 2 * body = 200 and, at context 5, attention 4 * 3 * 10 * 5 = 600 in every position that the body
# reads; 2 * table = 80 more where something is drawn.
SIZES = ModelSizes(body=100, table=40, layers=3, width=10)


@pytest.mark.parametrize(
    ("kind", "cost"),
    [
        ("prompt", 800),
        ("thought", 880),
        ("answer", 880),
        ("discarded", 880),
        ("verifier_prompt", 800),
        ("verifier", 880),
        ("gradient", 240),
        ("inserted", 800),
    ],
)
def test_what_a_position_costs(kind: str, cost: float) -> None:
    assert flops(SIZES, Positions(**{kind: 1.0}), context=5) == cost
    assert flops(SIZES, Positions(**{kind: 2.5}), context=5) == 2.5 * cost


def test_costs_add_up() -> None:
    positions = Positions(10, 6, 2, 1, verifier_prompt=30, verifier=20, gradient=8)
    by_hand = (10 + 30) * 800 + (6 + 2 + 1 + 20) * 880 + 8 * 240
    assert flops(SIZES, positions, context=5) == by_hand
    assert flops(SIZES, positions + positions, context=5) == 2 * by_hand
    assert flops(SIZES, positions.scaled(0.5), context=5) == by_hand / 2


def test_every_kind_is_in_the_record() -> None:
    positions = Positions(1, 2, 3, 4, 5, 6, 7, 8) + Positions(gradient=1)
    more = {"verifier_prompt": 5, "verifier": 6, "gradient": 8, "inserted": 8, "plain": 0}
    assert positions.as_dict() == {"prompt": 1, "thought": 2, "answer": 3, "discarded": 4, **more}


def test_heads_cost_per_thought_and_per_position_of_the_prompt() -> None:
    """7 for a thought, 2 more for each position of the prompt that it attends to."""
    sizes = replace(SIZES, thought=7.0, memory=2.0, remembered=5.0)
    positions = Positions(prompt=10, thought=3, answer=4, discarded=5, verifier=6)
    plain = flops(SIZES, positions, context=5)
    assert flops(sizes, positions, context=5) == plain + 3 * (7 + 2 * 10) + 5 * 10


def test_the_sizes_of_a_model() -> None:
    """GPT-2, one layer of width 8: 12 * 64 in matrices; places are looked up, norms are none."""
    tokenizer = make_vector_env("latent/MNNS-token", 1).unwrapped.task.tokenizer
    lm = load_model("tiny:gpt2:1x1x8", tokenizer=tokenizer)
    assert ModelSizes.of(lm) == ModelSizes(12 * 64, lm.vocab_size * 8, layers=1, width=8)


def counted(act: Callable[[], Any]) -> int:
    """Operations of matrix products, by torch's own count; attention's kernel has none on CPUs."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        act()
    return counter.get_total_flops()


@pytest.mark.parametrize(
    "arch",
    # Experts: stacked, beside a shared one, in some layers only, with biases, in grouped products.
    ["gpt2", "llama", "gemma2", "opt", "mixtral", "qwen2_moe", "afmoe", "gpt_oss", "aria_text"],
)
def test_the_body_is_what_a_position_is_multiplied_with(arch: str) -> None:
    lm = loaded(arch)
    assert isinstance(lm, LatentLM)
    lm.model.set_experts_implementation("eager")  # a loop over the experts that are chosen
    sizes, x = ModelSizes.of(lm), lm.embed(torch.tensor([[5]]))
    found = counted(lambda: lm.hidden(x, torch.ones(1, 1, dtype=torch.bool))) - 2 * sizes.body
    # Attention to itself where it is written out, and angles of rotary embeddings.
    assert found in range(17) or found - 4 * sizes.layers * sizes.width in range(17)
    assert counted(lambda: lm.logits(x)) == 2 * sizes.table


def test_all_experts_would_cost_more() -> None:
    lm = loaded("mixtral")
    assert isinstance(lm, LatentLM)
    everything = sum(p.numel() for n, p in lm.model.named_parameters() if ".experts." in n)
    assert everything > 0
    embeddings, norms = 2 * 259 * 32, 5 * 32
    # Two of four are chosen.
    assert ModelSizes.of(lm).body == lm.n_parameters() - embeddings - norms - everything // 2


V, D, P = 64, 6, 5
HEADS: dict[str, tuple[PolicyHead, float, float]] = {
    "token": (TokenHead(), 0, 0),
    "hidden": (HiddenStateHead(), 0, 0),
    "pause": (PauseHead(D), 0, 0),
    "mixture": (MixtureHead(), 2 * V * D, 0),
    "mixture-top": (MixtureHead(top_k=8), 2 * 8 * D, 0),
    "dirichlet": (DirichletHead(support=16), 2 * 16 * D, 0),
    "gated": (GatedHead(D, TokenHead()), 2 * V * D + 4 * D * D, 0),
    "gated-top": (GatedHead(D, TokenHead(top_k=9)), 2 * 9 * D + 4 * D * D, 0),
    "gaussian": (GaussianHead(D, 16), 2 * (D * 16 + 16 * 16 + 2 * 16 * D), 0),
    "ratt": (RATTHead(D), 2 * D * D, 0),
    "control": (ControlHead(MixtureHead(), "noise"), 2 * V * D, 0),
}


@pytest.mark.parametrize("name", HEADS)
def test_what_a_thought_costs(name: str) -> None:
    head, thought, memory = HEADS[name]
    logits, hidden, table = torch.randn(1, V), torch.randn(1, D), torch.randn(V, D)
    prompt_1PD, mask_1P = torch.randn(1, P, D), torch.ones(1, P).bool()
    remembered = counted(lambda: head.remember(prompt_1PD, mask_1P))
    assert remembered == P * head.remember_flops(D) == (P * 4 * D * D if name == "ratt" else 0)
    read = Readout(logits, hidden, table, head.remember(prompt_1PD, mask_1P), mask_1P)
    zero = np.zeros(1, dtype=np.int64)
    rng = CounterRNG.at(0, zero, zero, zero)
    assert counted(lambda: head.embed(head.sample(read, rng), table)) == thought + P * memory
    elementwise = 4 * D if name == "ratt" else 0  # scores and sums, which torch does not count
    assert head.flops(V, D) == (thought, memory + elementwise)


def test_averages_of_tokens_are_cheap() -> None:
    assert MultiTokenHead(4).flops(V, D) == (4 * D, 0)


def test_a_full_mixture_costs_another_table(random_lm: Callable[..., LatentLM]) -> None:
    lm, positions = random_lm("llama"), Positions(prompt=3, thought=2)
    words, mixture = (ModelSizes.of(lm, head) for head in (TokenHead(), MixtureHead()))
    more = flops(mixture, positions, 5) - flops(words, positions, 5)
    assert more == 2 * 2 * lm.vocab_size * lm.hidden_size
    assert ModelSizes.of(lm) == words


def test_an_identity_has_the_cost_of_its_head(random_lm: Callable[..., LatentLM]) -> None:
    policy = Policy(random_lm("llama"), MixtureHead())
    sizes = Identity.of(SimpleNamespace(name="x", oracle=False), policy).sizes
    assert sizes == ModelSizes.of(policy.lm, policy.head) and sizes.thought > 0
