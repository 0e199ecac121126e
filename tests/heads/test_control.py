"""Controls keep the cost and the end of thinking, and take away what is thought."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from latentgym.errors import UsageError
from latentgym.heads import (
    CONTROLS,
    ControlHead,
    DirichletHead,
    GatedHead,
    GaussianHead,
    MixtureHead,
    MultiTokenHead,
    Readout,
    TokenHead,
)
from latentgym.heads.rng import CounterRNG

B = 5


@pytest.fixture
def thoughts(make_read: Callable, make_rng: Callable) -> Callable[[str], tuple]:
    """The latents with and without a control, and the table."""
    read, head = make_read(B), MultiTokenHead(3)
    plain = head.sample(read, make_rng(B))

    def make(control: str) -> tuple:
        controlled = ControlHead(head, control)
        action = controlled.sample(read, make_rng(B))
        assert torch.equal(action["token"], plain["token"])  # thinking ends where it would have
        assert not controlled.log_prob(action, read).any()
        return controlled.embed(action, read.table_VD), head.embed(plain, read.table_VD), read

    return make


def test_all_controls_are_tested() -> None:
    assert set(CONTROLS) == {"zero", "pause", "shuffle", "noise", "word"}


def test_zero(thoughts: Callable) -> None:
    latent, _, _ = thoughts("zero")
    assert latent.shape == (B, 6) and not latent.any()


def test_pause_is_the_same_at_every_step(thoughts: Callable) -> None:
    latent, _, read = thoughts("pause")
    assert_close(latent, read.table_VD.mean(0).expand(B, -1))


def test_shuffle_gives_every_row_anothers_thought(thoughts: Callable) -> None:
    latent, plain, _ = thoughts("shuffle")
    assert_close(latent, plain[[4, 0, 1, 2, 3]])


@pytest.mark.parametrize("left", [[4, 4, 4], [1, 4, 2], [3, 1], [1, 1, 1], [2, 2]])
def test_shuffle_passes_over_the_samples_of_a_question(left: list[int]) -> None:
    """However many of each question's four samples still think."""
    question = torch.repeat_interleave(torch.arange(len(left)), torch.tensor(left))
    read = Readout(torch.zeros(len(question), 2), torch.zeros(len(question), 1), torch.zeros(2, 1))

    class Telling(MixtureHead):
        def embed(self, action: Any, table_VD: Any) -> Any:
            return question[:, None].float()

    head = ControlHead(Telling(), "shuffle", group_size=4)
    thought = head.embed(head.sample(read, CounterRNG(question)), read.table_VD)[:, 0]
    own = int((thought == question).sum())
    assert own == max(0, 2 * max(left) - sum(left))  # that no shift can avoid


def test_noise_has_the_norm_of_the_thought_and_nothing_else(thoughts: Callable) -> None:
    latent, plain, _ = thoughts("noise")
    assert_close(latent.norm(dim=-1), plain.norm(dim=-1))
    assert torch.nn.functional.cosine_similarity(latent, plain).abs().max() < 0.99


def test_word_is_the_token_alone(thoughts: Callable) -> None:
    latent, plain, read = thoughts("word")
    distances = torch.cdist(latent, read.table_VD)
    assert_close(distances.min(1).values, torch.zeros(B), atol=1e-3, rtol=0)
    assert not torch.allclose(latent, plain)


def test_of_a_blend_the_latent_alone_is_replaced(make_read: Callable, make_rng: Callable) -> None:
    read, head = make_read(B), GatedHead(6, TokenHead())
    plain, zero = (h.sample(read, make_rng(B)) for h in (head, ControlHead(head, "zero")))
    assert torch.equal(plain["token"], zero["token"]) and not zero["soft"].any()
    word = torch.nn.functional.embedding(plain["token"], read.table_VD)
    a, _ = head._gates(word)
    assert_close(ControlHead(head, "zero").embed(zero, read.table_VD), a * word)
    closed = ControlHead(head, "word")
    assert_close(closed.embed(closed.sample(read, make_rng(B)), read.table_VD), word)


def test_noise_tells_nothing_of_the_token(make_rng: Callable) -> None:
    """Of equally likely tokens the uniform number decides; noise made of it would rise with it."""
    rows, V, D = 2000, 64, 2
    read = Readout(torch.zeros(rows, V), torch.zeros(rows, D), torch.randn(V, D))
    for head in (MultiTokenHead(1), GatedHead(D, TokenHead())):
        action = ControlHead(head, "noise").sample(read, make_rng(rows))
        noise = action["latent" if "latent" in action else "soft"]
        share = noise.abs() / noise.norm(dim=-1, keepdim=True)
        for column in (*share.T, *noise.sign().T):
            both = torch.stack([action["token"].float(), column])
            assert float(torch.corrcoef(both)[0, 1].abs()) < 0.1


def test_no_number_behind_the_noise_is_behind_a_draw_of_the_head(
    make_rng: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[set[float]] = []
    uniform = CounterRNG.uniform

    def noted(self: CounterRNG, count: int, stream: int = 0) -> Any:
        numbers = uniform(self, count, stream)
        drawn.append(set(numbers.ravel().tolist()))
        return numbers

    monkeypatch.setattr(CounterRNG, "uniform", noted)
    read = Readout(torch.randn(B, 9), torch.randn(B, 6), torch.randn(9, 6))
    for head in (MultiTokenHead(3), DirichletHead(), GaussianHead(6, 8)):
        drawn.clear()
        ControlHead(head, "noise").sample(read, make_rng(B))
        *own, noise = drawn
        assert own and noise and noise.isdisjoint(set().union(*own))


def test_rows_that_think_without_noise_of_their_own_get_the_controls(
    make_read: Callable, make_rng: Callable
) -> None:
    rng = make_rng(B).noise_free(np.ones(B, dtype=bool))
    assert ControlHead(MixtureHead(), "noise").sample(make_read(B), rng)["latent"].isfinite().all()


def test_noise_is_drawn_from_the_counters(make_read: Callable, make_rng: Callable) -> None:
    read, head = make_read(B), ControlHead(MixtureHead(), "noise")
    one, two = (head.sample(read, make_rng(B))["latent"] for _ in range(2))
    assert torch.equal(one, two)


def test_a_control_needs_the_memory_that_its_head_needs() -> None:
    class Remembering(MixtureHead):
        needs_memory = True

    head = ControlHead(Remembering(), "zero")
    assert head.needs_memory and head.family == "continuous"
    assert not Readout.__dataclass_fields__["memory"].default


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ControlHead(MixtureHead(), "pasue"), "did you mean 'pause'"),
        (lambda: ControlHead(TokenHead(), "zero"), "a token agent has none"),
    ],
)
def test_bad_controls_are_refused(make: Callable, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        make()
