"""Costs against numbers worked out by hand."""

from __future__ import annotations

import pytest

from latentgym.accounting import ModelSizes, Positions, flops
from latentgym.lm import load_model
from latentgym.registry import make_vector_env

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
    more = {"verifier_prompt": 5, "verifier": 6, "gradient": 8, "inserted": 8}
    assert positions.as_dict() == {"prompt": 1, "thought": 2, "answer": 3, "discarded": 4, **more}


def test_the_sizes_of_a_model() -> None:
    """GPT-2, one layer of width 8: table V * 8, places * 8, 12 * 64 + 13 * 8, a norm."""
    tokenizer = make_vector_env("latent/MNNS-token", 1).unwrapped.task.tokenizer
    lm = load_model("tiny:gpt2:1x1x8", tokenizer=tokenizer)
    places = lm.backbone.config.n_positions
    sizes = ModelSizes.of(lm)
    assert (sizes.layers, sizes.width, sizes.table) == (1, 8, lm.vocab_size * 8)
    assert sizes.body == places * 8 + 12 * 64 + 13 * 8 + 16
