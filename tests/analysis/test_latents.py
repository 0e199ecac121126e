"""Replaced thoughts: what is not changed has no effect, and what is changed has it behind only."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from latentgym.analysis.interventions import INTERVENTIONS, TARGETS, Intervention, question_of
from latentgym.analysis.latents import answer_log_probs, causal_map, thought_again
from latentgym.analysis.sequences import PositionKind, Sequences, of_rollouts
from latentgym.episodes.protocol import Budget, Protocol, StopMatcher
from latentgym.errors import UsageError
from latentgym.evaluation.stats import mean_interval
from latentgym.heads import (
    GatedHead,
    GaussianHead,
    HiddenStateHead,
    MixtureHead,
    MultiTokenHead,
    PolicyHead,
    RATTHead,
    TokenHead,
)
from latentgym.lm import LatentLM, load_model
from latentgym.rollout import Engine, Policy, Rollouts, StepKind, replay
from latentgym.rollout.targets import with_targets
from latentgym.text.tokenizers import ByteTokenizer

HEADS: dict[str, Callable[[], PolicyHead]] = {
    "token": lambda: TokenHead(0.8),
    "mts": lambda: MultiTokenHead(4),
    "mixture": MixtureHead,
    "gated": lambda: GatedHead(32, TokenHead(0.7), r_min=0.5),
    "gaussian": lambda: GaussianHead(32, 16),
    "ratt": lambda: RATTHead(32, 0.5),
    "hidden": HiddenStateHead,
}
PROMPTS = [list(b"seven bytes"), list(b"two"), list(b"a prompt that is longer"), list(b"four")]
# Thoughts end by a marker or by their budget, so rows are of unequal length.
RULES = Protocol(
    think=Budget(6),
    answer=Budget(3),
    marker=StopMatcher("#", ["#" if i % 9 == 0 else "a" for i in range(259)]),
    forced_prompt=(65, 66),
)
SAME = Intervention("zero", 0.0)


def rolled_out(policy: Policy, rules: Protocol = RULES, group_size: int = 2) -> Rollouts:
    return Engine(policy).rollout(PROMPTS, rules, seed=3, group_size=group_size)


@pytest.fixture(params=sorted(HEADS))
def policy(request: pytest.FixtureRequest, random_lm: Callable[..., LatentLM]) -> Policy:
    """Every kind of thought in turn."""
    torch.manual_seed(0)
    return Policy(random_lm("llama"), HEADS[request.param]())


@pytest.fixture
def mixing(random_lm: Callable[..., LatentLM]) -> tuple[Policy, Rollouts, Sequences]:
    policy = Policy(random_lm("llama"), MixtureHead())
    rollouts = rolled_out(policy)
    return policy, rollouts, of_rollouts(policy, rollouts)


def effects(told: dict[str, Any], name: str) -> list[float | None]:
    return [cell["logp"]["mean"] for cell in told["map"][name]]


def test_answers_are_scored_as_a_replay_does(policy: Policy) -> None:
    rollouts = rolled_out(policy)
    sequences = of_rollouts(policy, rollouts)
    logp_NT, greedy_NT = answer_log_probs(policy, sequences)
    with torch.no_grad():
        scores = replay(policy, rollouts)
    token_NT = torch.from_numpy(rollouts.kind_NT == StepKind.TOKEN)
    expected = scores.logp_NT.masked_fill(~token_NT, 0.0)
    steps = slice(-expected.shape[1], None)
    assert_close(logp_NT[:, steps], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(greedy_NT[:, steps] >= 0, token_NT)


def test_untouched_thoughts_are_made_again_as_they_were(policy: Policy) -> None:
    """The rollout itself, without its cache: latents, tokens, and random numbers."""
    rollouts = rolled_out(policy)
    sequences = of_rollouts(policy, rollouts)
    for after in (-1, 1):
        again = thought_again(policy, sequences, rollouts, torch.full((len(sequences),), after))
        assert_close(again.x_NTD, sequences.x_NTD, rtol=1e-4, atol=1e-4)
        assert torch.equal(again.token_NT, sequences.token_NT)
    told = causal_map(policy, sequences, interventions=[SAME], rollouts=rollouts)
    assert told["effect"] == "total"
    assert effects(told, "zero@0") == pytest.approx([0.0] * 7, abs=1e-4)
    assert all(cell["changed"] == 0 for cell in told["map"]["zero@0"])


def test_a_thought_replaced_by_itself_has_no_effect(policy: Policy) -> None:
    sequences = of_rollouts(policy, rolled_out(policy))
    same = [Intervention(name, 0.0) for name in TARGETS]
    told = causal_map(policy, sequences, interventions=same)
    assert told["effect"] == "direct" and told["steps"] == 6
    some = causal_map(policy, sequences, interventions=[Intervention("mean")], steps=[3, 1])
    assert [cell["step"] for cell in some["map"]["mean"]] == [1, 3, "all"]
    for name in TARGETS:
        found = effects(told, f"{name}@0")
        assert found[0] is not None and found[-1] is not None
        # Where one question is left, no other has a thought to swap.
        counted = [effect for effect in found if effect is not None or name != "swap"]
        assert counted == pytest.approx([0.0] * len(counted), abs=1e-5)
    if policy.thinks_in_tokens:  # each is the nearest to itself
        told = causal_map(policy, sequences, interventions=[Intervention("nearest")])
        assert effects(told, "nearest") == pytest.approx([0.0] * 7, abs=1e-5)


def test_thoughts_matter_to_what_stands_behind_them(
    mixing: tuple[Policy, Rollouts, Sequences],
) -> None:
    """And not to what stands before, be it scored as an answer."""
    policy, _, sequences = mixing
    kind = sequences.kind_NT.masked_fill(sequences.kind_NT == PositionKind.PROMPT, 6)
    kind[sequences.first_NT] = PositionKind.PROMPT
    judged = replace(sequences, kind_NT=kind)
    before, _ = answer_log_probs(policy, judged)
    x, replaced = Intervention("swap").replacement(policy.lm, sequences)
    at = replaced & (sequences.step_NT == 2)
    assert bool(at.any())
    after, _ = answer_log_probs(
        policy, judged.with_inputs(torch.where(at[..., None], x, sequences.x_NTD))
    )
    behind = at.cumsum(1) > 0
    assert_close(before[~behind], after[~behind], rtol=1e-5, atol=1e-6)
    changed = at.any(1)
    scored = (judged.kind_NT == PositionKind.ANSWER) & behind
    assert bool(((before != after) & scored)[changed].any(1).all())


def test_effects_are_those_of_rows_read_one_by_one(random_lm: Callable[..., LatentLM]) -> None:
    """By hand: one row without padding, one thought, the whole answer."""
    policy = Policy(random_lm("llama"), MultiTokenHead(4))
    rollouts = rolled_out(policy)
    assert len(set(rollouts.thoughts_N.tolist())) > 1
    sequences = of_rollouts(policy, rollouts)
    told = causal_map(policy, sequences, interventions=[Intervention("zero")])
    for step, cell in enumerate(told["map"]["zero"][:-1]):
        by_question: dict[int, list[list[float]]] = {}
        for row in range(len(sequences)):
            alone = sequences.select([row])
            at = alone.step_NT == step
            if not bool(at.any()):
                continue
            zeroed = alone.with_inputs(alone.x_NTD.masked_fill(at[..., None], 0.0))
            one, other = (answer_log_probs(policy, s)[0].sum() for s in (zeroed, alone))
            effect = [float(one - other), float(one.exp() - other.exp())]
            by_question.setdefault(int(rollouts.prompt_N[row]), []).append(effect)
        assert cell["rows"] == sum(map(len, by_question.values()))
        means = np.array([np.mean(each, axis=0) for each in by_question.values()])
        for name, values in zip(("logp", "probability"), means.T, strict=True):
            expected = [x if np.isfinite(x) else None for x in mean_interval(values)]
            found = [cell[name][key] for key in ("mean", "low", "high")]
            assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("total", [False, True])
def test_chunks_and_padding_change_nothing(
    total: bool, mixing: tuple[Policy, Rollouts, Sequences]
) -> None:
    policy, rollouts, sequences = mixing
    of = rollouts if total else None
    swap = [Intervention("swap", 0.5)]
    whole = causal_map(policy, sequences, interventions=swap, rollouts=of)
    n = len(sequences)
    wide = Sequences(
        *(torch.cat([x.new_zeros(n, 3, *x.shape[2:]), x, x.new_zeros(n, 2, *x.shape[2:])], dim=1)
          for x in (sequences.token_NT, sequences.kind_NT, sequences.x_NTD))
    )  # fmt: skip
    other = causal_map(policy, wide, interventions=swap, rollouts=of, positions_at_once=1)
    assert whole["map"].keys() == other["map"].keys()
    for name in whole["map"]:
        assert effects(other, name) == pytest.approx(effects(whole, name), rel=1e-3, abs=1e-5)
        assert [c["rows"] for c in other["map"][name]] == [c["rows"] for c in whole["map"][name]]
    json.dumps(whole, allow_nan=False)


def test_total_effects_reach_the_thoughts_behind(
    mixing: tuple[Policy, Rollouts, Sequences],
) -> None:
    """They differ from the direct ones but at the last step and at all, where nothing is left."""
    policy, _, _ = mixing
    exact = replace(RULES, think=Budget(4, exact=True))
    rollouts = rolled_out(policy, exact)
    sequences = of_rollouts(policy, rollouts)
    one = [Intervention("swap")]
    direct, total = (
        effects(causal_map(policy, sequences, interventions=one, rollouts=r), "swap")
        for r in (None, rollouts)
    )
    assert total[3:] == pytest.approx(direct[3:], abs=1e-5)
    assert all(a != pytest.approx(b, abs=1e-4) for a, b in zip(total[:3], direct[:3], strict=True))
    # Each row has its own step; what stands there and before it is kept.
    after = torch.arange(len(sequences)) % 4
    at = sequences.step_NT == after[:, None]
    given = sequences.with_inputs(sequences.x_NTD.masked_fill(at[..., None], 0.0))
    again = thought_again(policy, given, rollouts, after)
    behind = (at.cumsum(1) > 0) & ~at & (sequences.step_NT >= 0)
    changed = (again.x_NTD - given.x_NTD).abs().amax(-1) > 1e-6
    assert torch.equal(changed, behind)


def test_the_right_answer_can_be_judged(mixing: tuple[Policy, Rollouts, Sequences]) -> None:
    policy, _, _ = mixing
    rollouts = rolled_out(policy, replace(RULES, think=Budget(4, exact=True)))
    kind_NT = np.where(rollouts.kind_NT == StepKind.TOKEN, StepKind.PAD, rollouts.kind_NT)
    thoughts = replace(rollouts, kind_NT=kind_NT.astype(np.int8))
    right = with_targets(thoughts, [[70, 71], [72], [73, 74, 75], [76]])
    sequences = of_rollouts(policy, right)
    told = causal_map(policy, sequences, interventions=[SAME])
    with torch.no_grad():
        expected = replay(policy, right).logp_NT
    scored = torch.from_numpy(right.kind_NT == StepKind.TARGET)
    expected_N = expected.masked_fill(~scored, 0.0).sum(1)
    assert_close(answer_log_probs(policy, sequences)[0].sum(1), expected_N, rtol=1e-4, atol=1e-4)
    stored = told["stored"]
    assert stored["logp"]["mean"] == pytest.approx(float(expected_N.mean()), rel=1e-4)
    assert stored["probability"]["mean"] == pytest.approx(float(expected_N.exp().mean()), rel=1e-3)


def test_swaps_are_between_questions_at_the_same_step(
    mixing: tuple[Policy, Rollouts, Sequences],
) -> None:
    policy, rollouts, sequences = mixing
    question = question_of(sequences)
    assert question.tolist() == rollouts.prompt_N.tolist()
    x, replaced = Intervention("swap").replacement(policy.lm, sequences)
    for row, column in replaced.nonzero().tolist():
        step = sequences.step_NT[row, column]
        same = (sequences.x_NTD == x[row, column]).all(-1) & (sequences.step_NT == step)
        assert any(question[r] != question[row] for r in same.nonzero()[:, 0].tolist())
    whole = of_rollouts(policy, rolled_out(policy, replace(RULES, think=Budget(4, exact=True))))
    replaced = Intervention("swap").replacement(policy.lm, whole)[1]
    assert torch.equal(replaced, whole.step_NT >= 0)
    alone = sequences.select(np.flatnonzero(question == 0))
    assert not Intervention("swap").replacement(policy.lm, alone)[1].any()
    cells = causal_map(policy, alone, interventions=[Intervention("swap")])["map"]["swap"]
    assert all(c["rows"] == 0 and c["logp"]["mean"] is None for c in cells)


def test_swaps_are_not_between_neighbours(random_lm: Callable[..., LatentLM]) -> None:
    """Data sets are often sorted, and then the next question is nearly the same."""
    token = torch.arange(40, 80)[:, None].expand(-1, 3)
    kind = torch.tensor([[PositionKind.PROMPT, PositionKind.LATENT, PositionKind.ANSWER]])
    x = torch.arange(40.0)[:, None, None].expand(-1, 3, 32)
    sequences = Sequences(token, kind.expand(40, -1), x)
    swapped, replaced = Intervention("swap").replacement(random_lm("llama"), sequences)
    partner = swapped[:, 1, 0].long()
    assert sorted(partner.tolist()) == [*range(40)] and bool(replaced[:, 1].all())
    apart = (partner - torch.arange(40)).abs()
    assert bool((apart > 0).all()) and float(apart.float().mean()) > 5


def test_replacements_are_what_they_are_called(
    mixing: tuple[Policy, Rollouts, Sequences],
) -> None:
    policy, _, sequences = mixing
    lm, thought = policy.lm, sequences.step_NT >= 0
    x = sequences.x_NTD[thought]
    found = {i.name: i.replacement(lm, sequences)[0] for i in INTERVENTIONS}
    for replaced in found.values():
        assert torch.equal(replaced[~thought], sequences.x_NTD[~thought])
    assert not found["zero"][thought].any()
    assert_close(found["zero@0.5"][thought], x / 2)
    assert_close(found["mean"][thought], x.mean(0).expand_as(x))
    near = found["nearest"][thought]
    assert bool((near[:, None] == lm.table_VD).all(-1).any(1).all())
    cosine = torch.nn.functional.cosine_similarity(x[:, None], lm.table_VD, dim=-1).amax(-1)
    assert_close(torch.nn.functional.cosine_similarity(x, near, dim=-1), cosine)
    assert_close(found["nearest@0.5"][thought], (x + near) / 2)


def test_what_cannot_be_measured_is_refused(mixing: tuple[Policy, Rollouts, Sequences]) -> None:
    policy, rollouts, sequences = mixing
    with pytest.raises(UsageError, match=r"no replacement 'zeros' of thoughts; .*zero"):
        Intervention("zeros")
    with pytest.raises(UsageError, match="from 0 to 1, not 2"):
        Intervention("zero", 2)
    with pytest.raises(UsageError, match="7 rollouts cannot be those of 8 sequences"):
        causal_map(policy, sequences, rollouts=rollouts.select(np.arange(7)))
    with pytest.raises(UsageError, match=r"at the steps 0 to 5; choose .* \[2, 6\]"):
        causal_map(policy, sequences, steps=[2, 6])
    thoughtless = replace(sequences, kind_NT=sequences.kind_NT.clamp(max=PositionKind.PROMPT))
    with pytest.raises(UsageError, match="both a thought and an answer"):
        causal_map(policy, thoughtless)
    small = load_model("tiny", tokenizer=ByteTokenizer(), dtype="bfloat16")
    with pytest.raises(UsageError, match="float32"):
        causal_map(Policy(small, MixtureHead()), sequences)
