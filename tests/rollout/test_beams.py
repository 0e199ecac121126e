"""Ranking a catalogue: against the likelihood of every title, and against transformers' beams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from latentgym.episodes.protocol import Budget, Protocol, StopMatcher
from latentgym.errors import UsageError
from latentgym.heads import GaussianHead, MixtureHead, PolicyHead, RATTHead, TokenHead
from latentgym.lm import LatentLM
from latentgym.rollout import Engine, Policy, Ranked, rank
from latentgym.rollout.beams import _best, _place
from latentgym.rollout.session import Session
from latentgym.rollout.targets import target_log_probs
from latentgym.text.tokenizers import ByteTokenizer
from latentgym.text.trie import Trie

EOS = ByteTokenizer.eos_id
TITLES = (
    *("Hot", "Hot Rocks", "Hot Rocks 2", "Hot Shots", "Help", "Hello", "A", "Abbey Road", "B", "b"),
    *("Blue", "Blue Train", "Blue Train II", "Kind of Blue", "Kid A", "zz", "Amélie", "<span>"),
)
TRIE = Trie([[*title.encode(), EOS] for title in TITLES])
HEADS: dict[str, Callable[[], PolicyHead]] = {
    "ratt": lambda: RATTHead(32, 0.5),
    "gaussian": lambda: GaussianHead(32, 16),
    "mixture": lambda: MixtureHead(top_k=4),
    "token": TokenHead,
}


def decode_state(
    policy: Policy, prompts: list[list[int]], think: int = 2, **options: Any
) -> tuple[Session, Any]:
    rules = Protocol(Budget(think, exact=True), Budget(20), eos=(EOS,))
    session = Engine(policy, **options).start(prompts, rules, seed=3)
    session.run(answers=False)
    return session, session.decode_state


def likelihoods(policy: Policy, session: Session) -> torch.Tensor:
    """Of every title behind the thoughts of every prompt, read from the beginning: (Q, E)."""
    rollouts, columns = session.finish(), []
    for entry in range(len(TRIE)):
        ids = TRIE.ids_EL[entry, : TRIE.length_E[entry]].tolist()
        logp, target = target_log_probs(policy, rollouts, [ids] * len(rollouts.prompts), 8)
        columns.append((logp * target).sum(-1))
    return torch.stack(columns, dim=1).double()


def ranked(policy: Policy, where: Any, beams: int) -> Ranked:
    return rank(policy.lm, where, TRIE, beams)


@pytest.mark.parametrize("arch", ["llama", "gpt2", "qwen2"])
@pytest.mark.parametrize("head", sorted(HEADS))
def test_with_a_beam_per_title_it_is_the_exact_likelihood(
    arch: str, head: str, random_lm: Callable, prompts: Any
) -> None:
    policy = Policy(random_lm(arch), HEADS[head](), TokenHead())
    session, where = decode_state(policy, prompts)
    found = ranked(policy, where, 10**6)
    exact_QE = likelihoods(policy, session)
    assert (np.sort(found.entry_QK, axis=1) == np.arange(len(TRIE))).all()
    got_QK = torch.from_numpy(found.logp_QK)
    assert_close(got_QK, exact_QE.gather(1, torch.from_numpy(found.entry_QK)), atol=2e-4, rtol=1e-4)
    assert (got_QK[:, 1:] <= got_QK[:, :-1]).all()


@pytest.mark.parametrize("arch", ["llama", "gpt2", "qwen2"])
@pytest.mark.parametrize(
    "k", [1, 3, 10, *(pytest.param(k, marks=pytest.mark.thorough) for k in (2, 5))]
)
def test_it_finds_what_transformers_beam_search_finds(
    arch: str, k: int, random_lm: Callable, prompts: Any
) -> None:
    lm = random_lm(arch)
    policy = Policy(lm, TokenHead(), TokenHead())
    for prompt in prompts:
        _, where = decode_state(policy, [prompt], think=0)
        found = ranked(policy, where, k)
        theirs = generated(lm, prompt, k)
        n = len(theirs)
        assert found.entry_QK[0, :n].tolist() == [entry for entry, _ in theirs]
        if k > 1:  # greedy decoding tells no scores
            assert n >= 2
            scores = np.array([score for _, score in theirs])
            assert np.allclose(found.logp_QK[0, :n], scores, atol=1e-3)


def generated(lm: LatentLM, prompt: list[int], k: int) -> list[tuple[int, float]]:
    """Titles and scores that `generate` finds with k beams."""
    entries = {
        tuple(row[:n]): i for i, (row, n) in enumerate(zip(TRIE.ids_EL, TRIE.length_E, strict=True))
    }
    allowed: dict[tuple[int, ...], set[int]] = {}
    for title in entries:
        for end, token in enumerate(title):
            allowed.setdefault(title[:end], set()).add(int(token))
    model: Any = lm.model
    ours, model.config._attn_implementation = model.config._attn_implementation, "sdpa"
    try:
        out = model.generate(
            torch.tensor([prompt]),
            num_beams=k,
            num_return_sequences=k,
            do_sample=False,
            length_penalty=0.0,
            early_stopping=False,
            max_new_tokens=int(TRIE.length_E.max()),
            eos_token_id=EOS,
            pad_token_id=EOS,
            prefix_allowed_tokens_fn=lambda _, said: sorted(
                allowed.get(tuple(said[len(prompt) :].tolist()), {EOS})
            ),
            return_dict_in_generate=True,
            output_scores=True,
        )
    finally:
        model.config._attn_implementation = ours
    rows = out.sequences[:, len(prompt) :].tolist()
    said = [tuple(row[: row.index(EOS) + 1]) for row in rows]
    scores = out.sequences_scores.tolist() if k > 1 else [0.0]
    # Where fewer beams than K can live, dead ones fill up.
    pairs = zip(said, scores, strict=True)
    return [(entries[s], score) for s, score in pairs if s in entries and score > -1e6]


def test_every_beam_is_a_title_and_no_title_comes_twice(random_lm: Callable, prompts: Any) -> None:
    policy = Policy(random_lm("gpt2"), RATTHead(32, 0.0), TokenHead())
    _, where = decode_state(policy, prompts, think=1)
    for k in (1, 4, 7):
        found = ranked(policy, where, k)
        assert found.entry_QK.shape == (len(prompts), k)
        assert ((found.entry_QK >= 0) & (found.entry_QK < len(TRIE))).all()
        assert all(len({*row}) == k for row in found.entry_QK.tolist())
        assert (found.positions_Q > 0).all()


@pytest.mark.parametrize("share", [True, False])
def test_batches_padding_and_pieces_change_nothing(
    share: bool, random_lm: Callable, prompts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy(random_lm("qwen2"), RATTHead(32, 0.0), TokenHead())
    _, where = decode_state(policy, prompts, share_prompts=share)
    whole = ranked(policy, where, 5)
    for name in ("rollout.beams._MOST_BEAMS", "rollout.beams._MOST_POSITIONS"):
        monkeypatch.setattr(f"latentgym.{name}", 600)
    monkeypatch.setattr("latentgym.lm.model.MOST_LOGITS", 600)
    pieces = ranked(policy, where, 5)
    alone = [ranked(policy, decode_state(policy, [p])[1], 5) for p in prompts]
    for q, one in enumerate(alone):
        assert whole.entry_QK[q].tolist() == one.entry_QK[0].tolist()
        assert np.allclose(whole.logp_QK[q], one.logp_QK[0], atol=1e-4)
    assert (whole.entry_QK == pieces.entry_QK).all()
    assert np.allclose(whole.logp_QK, pieces.logp_QK, atol=1e-4)
    assert (whole.positions_Q == pieces.positions_Q).all()


def test_ranking_leaves_the_session_as_it_was(random_lm: Callable, prompts: Any) -> None:
    policy = Policy(random_lm("llama"), RATTHead(32, 0.0), TokenHead(0.0))
    session, where = decode_state(policy, prompts)
    first, again = (ranked(policy, where, 4) for _ in range(2))
    assert np.array_equal(first.logp_QK, again.logp_QK)
    session.run()
    plain = Engine(policy).rollout(prompts, session.protocol, seed=3)
    assert np.array_equal(session.finish().token_NT, plain.token_NT)


def test_rows_that_think_for_different_times_stand_where_their_answers_begin(
    random_lm: Callable, prompts: Any
) -> None:
    """Some chains end with a mark of their own, the others are bridged."""
    lm = random_lm("llama")
    marker = StopMatcher("#", ["#" if i % 6 == 0 else "a" for i in range(259)])
    rules = Protocol(Budget(6), Budget(20), marker=marker, eos=(EOS,), forced_prompt=(35, 32))
    policy = Policy(lm, TokenHead(), TokenHead())
    session = Engine(policy).start(prompts, rules, seed=1)
    session.run(answers=False)
    rollouts = session.finish()
    assert len({*rollouts.length_N.tolist()}) > 1
    found = ranked(policy, session.decode_state, len(TRIE))
    exact_QE = likelihoods(policy, session)
    expected = exact_QE.gather(1, torch.from_numpy(found.entry_QK))
    assert_close(torch.from_numpy(found.logp_QK), expected, atol=2e-4, rtol=1e-4)


def test_a_chain_that_may_end_without_an_answer_is_refused(
    random_lm: Callable, prompts: Any
) -> None:
    rules = Protocol(Budget(3), Budget(5), eos=(EOS,), force_answer=False)
    session = Engine(Policy(random_lm("llama"), TokenHead())).start(prompts, rules, seed=0)
    session.run(answers=False)
    with pytest.raises(UsageError, match="forces answers"):
        _ = session.decode_state


GROUPS = st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3)), max_size=30)


@given(GROUPS, st.integers(1, 5))
def test_the_best_of_each_group_are_those_of_a_plain_sort(
    pairs: list[tuple[int, int]], k: int
) -> None:
    group = torch.tensor([g for g, _ in pairs], dtype=torch.long)
    score = torch.tensor([float(s) for _, s in pairs])
    expected = []
    for g in sorted({g for g, _ in pairs}):
        mine = [i for i, (other, _) in enumerate(pairs) if other == g]
        expected += sorted(mine, key=lambda i: -pairs[i][1])[:k]
    assert _best(score, group, k).tolist() == expected


def test_places_count_within_runs() -> None:
    assert _place(torch.tensor([3, 3, 5, 5, 5, 9])).tolist() == [0, 1, 0, 1, 2, 0]
    assert _place(torch.zeros(0, dtype=torch.long)).tolist() == []
