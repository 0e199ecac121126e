"""Self-reflection: what the model reads again, and what it makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from latentgym.agents.cot import CoT, CoTConfig
from latentgym.agents.search import Try
from latentgym.agents.self_reflection import REQUEST, SelfReflection, SelfReflectionConfig
from latentgym.cli.main import main
from latentgym.errors import UsageError
from latentgym.evaluation.answers import Answer
from latentgym.heads import TokenHead
from latentgym.rollout import Engine, Policy, collect
from latentgym.text.tokenizers import ByteTokenizer

FEW = np.arange(8)
EOS = ByteTokenizer().eos_id


@pytest.fixture
def reflect(random_lm: Callable, guessing: Callable) -> Callable[..., Any]:
    """`reflect(rows=4, family="token", **settings)`: answers, and the tries by question."""

    def run(rows: int = 4, family: str = "token", **settings: Any) -> Any:
        agent = SelfReflection(SelfReflectionConfig(**settings))
        tries: dict[int, list[Try]] = {}
        agent.watch = lambda each, _: tries.setdefault(each.attempt.index, []).append(each)
        policy = agent.policy(random_lm("llama"), acting=True)
        env = guessing(rows, family, asks=family == "hybrid")
        return agent.answer(policy, env, FEW, 0, lambda done: None), tries

    return run


def test_without_second_thoughts_it_is_greedy(
    reflect: Callable, random_lm: Callable, guessing: Callable
) -> None:
    agent = CoT(CoTConfig())
    policy = agent.policy(random_lm("llama"), acting=True)
    expected: list[Answer] = agent.answer(policy, guessing(), FEW, 0, lambda done: None)
    infos = [answer.info for answer in expected]
    for settings in ({"rounds": 0}, {"rounds": 3, "threshold": -2.0}):
        answers, tries = reflect(**settings)
        assert [answer.info for answer in answers] == infos
        assert all(len(tried) == 1 for tried in tries.values())


@pytest.mark.parametrize("family", ["hybrid", pytest.param("token", marks=pytest.mark.thorough)])
def test_it_answers_behind_question_first_answer_and_request(
    family: str, reflect: Callable, random_lm: Callable, guessing: Callable
) -> None:
    answers, tries = reflect(family=family, rounds=2)
    lm, env = random_lm("llama"), guessing(1, family, asks=family == "hybrid")
    engine = Engine(Policy(lm, TokenHead(0.0)))
    request = ByteTokenizer().encode(f"\n\nQuestion: {REQUEST}\nAnswer:")
    for answer in answers[:4]:
        talk = list(env.unwrapped.prompt(answer.index))
        tried = tries[answer.index]
        assert len(tried) == 3
        for each in tried:
            expected = collect(engine, env, [answer.index], seed=0, prompts=[talk])
            token_T = expected.rollouts.tokens(0).tolist()
            assert each.attempt.token_T.tolist() == token_T
            assert each.attempt.info == expected.infos[0]
            talk += [*(token_T[:-1] if token_T[-1] == EOS else token_T), *request]
        assert answer.info == tried[-1].attempt.info
        assert answer.metrics["search/iterations"] == 2
    assert any(len({t.attempt.info["completion"] for t in tried}) > 1 for tried in tries.values())


def test_an_end_of_sequence_is_closed_once(
    reflect: Callable, random_lm: Callable, guessing: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The conversation's own format closes the answer, so the model's end is left out."""
    sample = TokenHead.sample

    def ended(self: TokenHead, read: Any, rng: Any) -> Any:
        action = sample(self, read, rng)
        action["token"][:] = EOS
        return action

    monkeypatch.setattr(TokenHead, "sample", ended)
    answers, _ = reflect(rows=1)
    prompt = guessing(1).unwrapped.prompt
    request = len(f"\n\nQuestion: {REQUEST}\nAnswer:")
    for answer in answers:
        assert answer.context == len(prompt(answer.index)) + request + 1


def test_it_stops_where_the_reward_is_content(reflect: Callable) -> None:
    answers, tries = reflect(rounds=3, reward="psrm")
    assert {len(tried) for tried in tries.values()} >= {1, 4}
    for answer in answers:
        right = [t.attempt.right for t in tries[answer.index]]
        assert not any(right[:-1]) and (right[-1] or len(right) == 4)
        assert answer.info["score"] == float(right[-1])


def test_answers_do_not_depend_on_how_many_rows_fit(reflect: Callable) -> None:
    one, other = (reflect(rows=rows, rounds=2, reward="psrm")[0] for rows in (1, 8))
    assert [(a.index, a.info) for a in one] == [(a.index, a.info) for a in other]
    costs = [[a.positions.prompt for a in answers] for answers in (one, other)]
    assert costs[0] == costs[1]


def test_only_what_is_new_in_the_conversation_is_read(
    reflect: Callable, guessing: Callable
) -> None:
    answers, tries = reflect(rows=1)
    request = len(f"\n\nQuestion: {REQUEST}\nAnswer:")
    for answer in answers:
        first, second = (t.attempt.token_T for t in tries[answer.index])
        prompt = len(guessing(1).unwrapped.prompt(answer.index))
        kept = len(first) - (first[-1] == EOS)
        assert answer.positions.prompt == prompt + kept + request
        assert answer.positions.thought + answer.positions.answer == len(first) + len(second)


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match="rounds of self-reflection cannot be below 0"):
        SelfReflectionConfig(rounds=-1)


def test_more_rounds_than_a_model_can_read_are_told_by_their_option(
    capsys: pytest.CaptureFixture[str],
) -> None:
    few = [x for o in ("source=sample", "think=8", "answer=4") for x in ("-o", o)]
    argv = ["eval", "self-reflection", "latent/GSM8K-token", "--model", "tiny:gpt2:1x2x16", *few]
    assert main([*argv, "--limit", "1", "--rounds", "100000"]) == 2
    assert "lower --rounds or the budgets" in capsys.readouterr().err
