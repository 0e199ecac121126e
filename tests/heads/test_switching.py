"""When heads switch between mixtures and words, and when they stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from latentgym.errors import UsageError
from latentgym.heads import ColdStopHead, MixtureHead, Readout, SwitchingHead, TokenHead
from latentgym.heads.base import PolicyHead, State

V, D = 9, 6


def logits_of(nats: list[float]) -> Tensor:
    """One row a step whose entropies are near these: sharper or flatter versions of one vector."""
    base = torch.linspace(1, -1, V)
    found = []
    for wanted in nats:
        scale = torch.linspace(0, 60, 6001)[:, None]
        h = torch.distributions.Categorical(logits=base * scale).entropy()
        found.append(base * scale[(h - wanted).abs().argmin()])
    return torch.stack(found)


def run(head: PolicyHead, logits_TV: Tensor, make_rng: Callable) -> list[dict[str, Any]]:
    """The actions of one row, step for step."""
    state: State = head.initial_state(1, torch.device("cpu"))
    table, actions = torch.randn(V, D, generator=torch.Generator().manual_seed(0)), []
    for logits in logits_TV:
        read = Readout(logits[None], torch.zeros(1, D), table, state=state)
        action = head.sample(read, make_rng(1))
        state = {name: action[name] for name in state}
        actions.append({**action, "read": head.embed(action, table), "table": table})
    return actions


def modes(head: SwitchingHead, nats: list[float], make_rng: Callable) -> str:
    return "".join(
        "w" if bool(action["explicit"]) else "l" for action in run(head, logits_of(nats), make_rng)
    )


def switching(**settings: Any) -> SwitchingHead:
    return SwitchingHead(TokenHead(0.0), **{"window": 0, **settings})


RISES = [1.0, 1.2, 0.8, 1.0, 0.7, 0.9, 0.6, 0.8]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "llwlwlwl"),
        ({"window": 2}, None),
        ({"window": 100}, "llwwwwww"),
        ({"most_switches": 2}, "llwlwwww"),
        ({"begins_latent": False}, "wlwlwlwl"),
        ({"fall": 0.3}, None),
        ({"fall": 10.0}, "llllllll"),
        ({"begins_latent": False, "rise": 10.0}, "wwwwwwww"),
    ],
)
def test_it_follows_the_trend(
    settings: dict[str, Any], expected: str | None, make_rng: Callable
) -> None:
    found = modes(switching(**settings), RISES, make_rng)
    assert found == (expected or _by_hand(RISES, **settings))


def _by_hand(nats: list[float], window: int = 0, fall: float = 0.0) -> str:
    """The authors' rule, written out for one row."""
    mode, stayed, reference, out = "l", 0, nats[0], "l"
    for h in nats[1:]:
        stayed += 1
        if mode == "l" and h < reference - fall:
            mode, stayed, reference = "w", 0, h
        elif mode == "w" and h > reference and stayed >= window:
            mode, stayed, reference = "l", 0, h
        out += mode
    return out


def test_words_are_plain_and_latent_thoughts_are_mixtures(make_rng: Callable) -> None:
    logits = logits_of(RISES)
    for t, action in enumerate(run(switching(), logits, make_rng)):
        word = bool(action["explicit"])
        assert bool(action["plain"]) == word
        assert int(action["token"]) == int(logits[t].argmax())
        if not word:
            assert_close(action["read"][0], logits[t].softmax(-1) @ action["table"])


def test_marks_are_blended_in_where_thinking_changes(make_rng: Callable) -> None:
    logits = logits_of(RISES)
    head = switching(marks=(7, 8), alpha=0.6, beta=0.7)
    actions = run(head, logits, make_rng)
    table = actions[0]["table"]
    assert not actions[2]["plain"]  # from latent to words: a blend, no word
    assert_close(actions[2]["read"][0], 0.7 * table[logits[2].argmax()] + 0.3 * table[8])
    assert_close(actions[3]["read"][0], 0.6 * logits[3].softmax(-1) @ table + 0.4 * table[7])
    assert_close(actions[1]["read"][0], logits[1].softmax(-1) @ table)


def test_some_tokens_are_always_words(make_rng: Callable) -> None:
    head = switching(fall=10.0, words_only=torch.tensor([0]))
    actions = run(head, logits_of([1.0, 1.2]), make_rng)
    assert all(a["plain"] for a in actions) and not any(a["explicit"] for a in actions)


def test_a_cold_stop_ends_thinking_after_its_patience(make_rng: Callable) -> None:
    logits = logits_of([1.0, 0.01, 0.02, 1.0, 0.01, 0.01, 0.02, 1.5])
    head = ColdStopHead(5, 1.0, 0.6, bound=0.1, patience=3, end=8)
    actions = run(head, logits, make_rng)
    assert [bool(a["plain"]) for a in actions] == [False] * 6 + [True, False]
    assert int(actions[6]["token"]) == 8
    mixture = MixtureHead(5, 1.0, 0.6)
    for t, action in enumerate(actions[:6]):
        read = Readout(logits[t : t + 1], torch.zeros(1, D), action["table"])
        plain = mixture.sample(read, make_rng(1))
        assert torch.equal(action["ids"], plain["ids"])
        assert torch.equal(action["weights"], plain["weights"])


def test_rows_keep_their_own_state(make_read: Callable, make_rng: Callable) -> None:
    """A row among others switches as it does alone."""
    head, read = switching(), make_read(4)
    state = head.initial_state(4, torch.device("cpu"))
    for step in range(6):
        logits = make_read(4, seed=step).logits * 2
        action = head.sample(replace(read, logits=logits, state=state), make_rng(4))
        one = {name: value[2:3] for name, value in state.items()}
        alone = head.sample(
            Readout(logits[2:3], read.hidden[2:3], read.table_VD, state=one), make_rng(4)[[2]]
        )
        assert torch.equal(alone["explicit"], action["explicit"][2:3])
        state = {name: action[name] for name in state}


@pytest.mark.parametrize("given", [{"window": -1}, {"alpha": 1.5}, {"beta": -0.1}])
def test_what_cannot_be(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="switching needs"):
        switching(**given)
    with pytest.raises(UsageError, match="a cold stop needs"):
        ColdStopHead(5, 1.0, 1.0, bound=-1.0, patience=1, end=0)
