"""States between steps of text: who draws them, when, and with which probability."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from latentgym.errors import UsageError
from latentgym.heads import Action, ControlHead, Readout, TokenHead, TransitionHead
from latentgym.heads.control import CONTROLS
from latentgym.heads.rng import CounterRNG
from latentgym.heads.spectral import spectral_summary

V, D, K, END = 9, 6, 5, 3


class Scripted(TokenHead):
    """Says what it is told to."""

    def __init__(self, script: list[int]) -> None:
        super().__init__()
        self.script = list(script)

    def sample(self, read: Readout, rng: CounterRNG) -> Action:
        return {"token": torch.full((len(read.logits),), self.script.pop(0))}


def head(words: TokenHead | None = None, **given: Any) -> TransitionHead:
    torch.manual_seed(0)
    made = TransitionHead(D, words, **{"step_end": torch.tensor([END]), "states": K, **given})
    with torch.no_grad():
        made.transitions.normal_(0, 2)
        made.encoder.logits.weight.normal_()
    return made


def walk(made: TransitionHead, reads: list[Readout], rows: int = 1) -> list[Action]:
    """Thoughts one after the other, with the state that the head keeps."""
    state, thoughts = made.initial_state(rows, torch.device("cpu")), []
    zeros = np.zeros(rows, dtype=np.int64)
    for step, read in enumerate(reads):
        read.state = state
        rng = CounterRNG.at(0, np.arange(rows), zeros, zeros + step)
        action = made.sample(read, rng)
        state = {name: action[name] for name in state}
        thoughts.append(action)
    return thoughts


def test_a_prefix_comes_first_and_behind_each_end_of_a_step(make_read: Callable) -> None:
    # A word is drawn at every step, also where the prefix is read instead of it.
    script = [8, 8, 1, 2, END, 8, 8, 4, END, 8, 8]
    reads = [make_read(1, seed=t) for t in range(len(script))]
    thoughts = walk(head(Scripted(script), prefix=2), reads)
    plain = [bool(a["plain"]) for a in thoughts]
    assert plain == [False, False, True, True, True, False, False, True, True, False, False]
    assert [int(a["place"]) for a in thoughts if not a["plain"]] == [0, 1] * 3
    read = [int(a["token"]) for a in thoughts]
    assert read == [END, END, 1, 2, END, END, END, 4, END, END, END]
    states = [int(a["z"]) for a in thoughts]
    assert [len(set(part)) for part in (states[:5], states[5:9], states[9:])] == [1, 1, 1]
    drawn = [bool(made) for made in (head(prefix=2).drawn(a)[0, 0] for a in thoughts)]
    assert [i for i, was in enumerate(drawn) if was] == [0, 5, 9]


def test_the_transition_is_from_the_state_that_the_last_step_shows(make_read: Callable) -> None:
    script = [8, 1, 2, END, 8, 4, END, 8]
    reads = [make_read(1, seed=t) for t in range(len(script))]
    made = head(Scripted(script))
    thoughts = walk(made, reads)
    first, second, third = (a for a in thoughts if not a["plain"])
    assert int(first["before"]) == K
    # The hidden state of a token is seen where the next thought is drawn.
    for action, tokens in ((second, reads[2:5]), (third, reads[6:8])):
        e = torch.stack([read.hidden[0] for read in tokens])[None]
        logq = made.encoder.of_summaries(spectral_summary(e, torch.tensor([len(tokens)]), 4))
        assert int(action["before"]) == int(logq.argmax())
    made = head(Scripted(script), before="drawn")
    first, second, third = (a for a in walk(made, reads) if not a["plain"])
    assert (int(second["before"]), int(third["before"])) == (int(first["z"]), int(second["z"]))


def test_every_vector_of_a_prefix_tells_how_likely_its_state_was(make_read: Callable) -> None:
    script = [8, 8, 1, END, 8, 8, 4]
    reads = [make_read(1, seed=t) for t in range(len(script))]
    made = head(Scripted(script), prefix=2)
    thoughts = [a for a in walk(made, reads) if not a["plain"]]
    table_VD = reads[0].table_VD
    with torch.no_grad():
        certainty = [float(made.statistics(a, table_VD)["certainty"]) for a in thoughts]
        drawn = [float(made.log_prob(a, reads[0]).exp()) for a in thoughts if not a["place"]]
    assert certainty == pytest.approx([p for p in drawn for _ in range(2)])


def test_without_a_prefix_states_are_added_to_words(make_read: Callable) -> None:
    script = [1, 2, END, 4, END, 5]
    reads = [make_read(1, seed=t) for t in range(len(script))]
    made = head(Scripted(script), prefix=0)
    torch.nn.init.normal_(made.vectors)
    thoughts, table_VD = walk(made, reads), reads[0].table_VD
    assert [int(a["token"]) for a in thoughts] == script
    # A state is drawn with the first word of a step, behind the end of the one before.
    drawn = [bool(made.drawn(a)) for a in thoughts]
    assert drawn == [True, False, False, True, False, True]
    states = [int(a["z"]) for a in thoughts]
    assert [len(set(part)) for part in (states[:3], states[3:5])] == [1, 1]
    for action, state, word in zip(thoughts, states, script, strict=True):
        expected = table_VD[word] + made.vectors[state] * made.size
        assert_close(made.embed(action, table_VD)[0], expected)
    e = torch.stack([read.hidden[0] for read in reads[1:4]])[None]
    logq = made.encoder.of_summaries(spectral_summary(e, torch.tensor([3]), 4))
    assert int(thoughts[3]["before"]) == int(logq.argmax())


@pytest.mark.parametrize("control", CONTROLS)
def test_what_is_added_is_controlled_and_the_words_stay(make_read: Callable, control: str) -> None:
    made = head(prefix=0)
    torch.nn.init.normal_(made.vectors)
    read = make_read(3)
    (action,) = walk(ControlHead(made, control), [read], 3)
    latent = ControlHead(made, control).embed(action, read.table_VD)
    added = latent - read.table_VD[action["token"]]
    own = made.embed(walk(made, [read], 3)[0], read.table_VD) - read.table_VD[action["token"]]
    if control in ("zero", "word"):
        assert not added.any()
    if control == "shuffle":
        assert_close(added, own.roll(1, 0))
    if control == "noise":
        assert_close(added.norm(dim=-1), own.norm(dim=-1))
        assert not torch.allclose(added, own)


def test_of_a_long_step_the_last_tokens_are_seen(make_read: Callable) -> None:
    script = [8, 1, 2, 4, 5, END, 8]
    reads = [make_read(1, seed=t) for t in range(len(script))]
    made = head(Scripted(script), longest=3, k=2)
    second = [a for a in walk(made, reads) if not a["plain"]][1]
    e = torch.stack([read.hidden[0] for read in reads[4:7]])[None]
    logq = made.encoder.of_summaries(spectral_summary(e, torch.tensor([3]), 2))
    assert int(second["before"]) == int(logq.argmax())


def test_states_may_be_told_by_length_alone(make_read: Callable) -> None:
    script = [8, 1, 2, END, 8, END, 8]
    reads = [make_read(1, seed=t) for t in range(len(script))]
    thoughts = walk(head(Scripted(script), encoded="length"), reads)
    assert [int(a["before"]) for a in thoughts if not a["plain"]] == [K, 2, 0]


def first_draws(made: TransitionHead, make_read: Callable, rows: int) -> tuple[Action, Readout]:
    read = make_read(rows)
    return walk(made, [read], rows)[0], read


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("greedy", [False, True])
def test_states_are_drawn_as_their_probability_says(
    epsilon: float, greedy: bool, make_read: Callable
) -> None:
    n, made = 20_000, head(epsilon=epsilon, greedy=greedy)
    action, read = first_draws(made, make_read, n)
    own = made.transitions[K].softmax(-1)
    if greedy:
        own = torch.nn.functional.one_hot(own.argmax(), K).float()
    expected = (1 - epsilon) * own + epsilon / K
    share = torch.bincount(action["z"], minlength=K) / n
    # Four standard deviations of a share; epsilon 1 is uniform, a greedy head with 0 is sure.
    assert ((share - expected).abs() <= 4 * (expected * (1 - expected) / n).sqrt() + 1e-12).all()
    certain = greedy and epsilon == 0
    logp = made.log_prob(action, read)
    assert_close(logp, torch.zeros(n) if certain else expected[action["z"]].log())
    assert bool(made.drawn(action).all()) is not certain
    entropy = torch.distributions.Categorical(expected).entropy()
    assert_close(made.entropy(action, read)[0], entropy)


def test_rows_of_transitions_add_up_to_one() -> None:
    for epsilon in (0.0, 0.1, 1.0):
        p = head(epsilon=epsilon).log_policy().exp()
        assert p.shape == (K + 1, K)
        assert_close(p.sum(-1), torch.ones(K + 1))


def test_gradients_reach_the_transitions_alone_where_they_alone_learn(make_read: Callable) -> None:
    made = head(learns="transitions", epsilon=0.1)
    action, read = first_draws(made, make_read, 7)
    made.log_prob(action, read).sum().backward()
    grown = {name for name, p in made.named_parameters() if p.grad is not None and p.grad.any()}
    assert grown == {"transitions"}
    (group,) = made.parameter_groups(1e-3)
    assert [id(p) for p in group["params"]] == [id(made.transitions)]


def test_vectors_are_as_large_as_words(make_read: Callable) -> None:
    made, read = head(), make_read(400)
    action = walk(made, [read], 400)[0]
    size = made.embed(action, read.table_VD).detach().square().mean().sqrt()
    assert float(size) == pytest.approx(float(read.table_VD.square().mean().sqrt()), rel=0.5)
    expected: Tensor = made.vectors[action["z"], 0] * made.size
    assert_close(made.embed(action, read.table_VD), expected)


def test_one_state_is_no_choice(make_read: Callable) -> None:
    made = TransitionHead(D, step_end=torch.tensor([END]), states=1)
    action, read = first_draws(made, make_read, 4)
    assert not made.drawn(action).any() and not made.log_prob(action, read).any()


@pytest.mark.parametrize(
    "given", [{"states": 0}, {"prefix": -1}, {"k": 0}, {"longest": 0}, {"epsilon": 1.1}]
)
def test_what_cannot_be(given: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="transitions need"):
        head(**given)
    with pytest.raises(UsageError, match="no token ends a step"):
        head(step_end=torch.zeros(0, dtype=torch.int64))
