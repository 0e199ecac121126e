"""What evaluation makes of answers: their own numbers, what was tried, and who is told of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from latentgym.agents.cot import CoT, CoTConfig
from latentgym.errors import Notice, UsageError
from latentgym.evaluation.accounting import ModelSizes, Positions
from latentgym.evaluation.answers import Answer, Answered, Answerer, Identity
from latentgym.evaluation.evaluate import evaluate_answerer, questions_of
from latentgym.lm import load_model
from latentgym.registry import make_vector_env

ENV = "latent/MNNS-token"


def answer_to(index: int, **more: Any) -> Answer:
    """The answer 3 to a question; right where its number is even."""
    info = {"target": "3", "completion": "3", "answer": "3", "parsed": "3", "status": "ok"}
    numbers = {"score": float(index % 2 == 0), "thoughts": 2, "tokens": 1}
    return Answer(index, {**info, **numbers}, "", Positions(4, 2, 1), 7, (1.0,), **more)


def answerer(*, samples: bool = True, **more: Sequence[Any]) -> Answerer:
    """Who gives question i the i-th of each of `more`, and may think the same under every seed."""

    def answer(questions: Any, seed: int, answered: Answered) -> list[Answer]:
        given = {name: [values[i] for i in questions] for name, values in more.items()}
        say = f"as drawn with seed {seed}" if samples else ""
        answers = [
            replace(
                answer_to(int(i), **{k: values[n] for k, values in given.items()}), thoughts=say
            )
            for n, i in enumerate(questions)
        ]
        answered(answers)
        return answers

    return Answerer(Identity("fake", "none", "cpu", ModelSizes(10, 20, 1, 4), "0"), answer)


@pytest.fixture(scope="module")
def task() -> Any:
    return make_vector_env(ENV, 1, split="test").unwrapped.task


def test_seeds_that_change_nothing_are_told(task: Any) -> None:
    with pytest.warns(Notice, match="the 3 seeds gave the same answers, as nothing was drawn"):
        evaluate_answerer(answerer(samples=False), ENV, task, limit=4, seeds=[0, 1, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate_answerer(answerer(samples=False), ENV, task, limit=4)
        evaluate_answerer(answerer(), ENV, task, limit=4, seeds=[0, 1])


def test_an_answers_own_numbers_are_averaged_over_the_answers_that_have_them(task: Any) -> None:
    who = answerer(metrics=[{"iterations": 2, "stopped": 1}, {}, {"iterations": 5}])
    result = evaluate_answerer(who, ENV, task, limit=3).result
    assert (result.metrics["iterations"], result.metrics["stopped"]) == (3.5, 1.0)
    assert result.metrics_ci95 == {}


def test_numbers_that_all_answers_have_come_with_intervals(task: Any) -> None:
    who = answerer(metrics=[{"hr@5": 1.0, "mrr": 0.5}, {"hr@5": 0.0, "mrr": 0.1}] * 2)
    result = evaluate_answerer(who, ENV, task, limit=4, seeds=[0, 1]).result
    assert set(result.metrics_ci95) == {"hr@5", "mrr"}
    for name, (low, high) in result.metrics_ci95.items():
        assert low < result.metrics[name] < high


def test_what_was_tried_is_stored_where_something_was(task: Any) -> None:
    tried = [{"score": 0.25, "answer": "1"}, {"score": 0.5, "answer": "3"}]
    done = evaluate_answerer(answerer(trace=[tried, ()]), ENV, task, limit=2)
    assert done.rollouts[0]["trace"] == tried
    assert "trace" not in done.rollouts[1]


def test_an_agent_tells_its_answers_batch_by_batch() -> None:
    env = make_vector_env(ENV, 4, split="test")
    agent = CoT(CoTConfig())
    lm = load_model("tiny:gpt2:1x1x16", tokenizer=env.unwrapped.task.tokenizer)
    told: list[Sequence[Answer]] = []
    questions = np.arange(20, 30)
    answers = agent.answer(agent.policy(lm, acting=True), env, questions, 0, told.append)
    assert [len(batch) for batch in told] == [4, 4, 2]
    assert [a.index for a in answers] == list(range(20, 30))
    assert sorted(a.index for batch in told for a in batch) == list(range(20, 30))
    assert {id(a) for batch in told for a in batch} == {id(a) for a in answers}


def test_questions_are_chosen_by_number(task: Any) -> None:
    assert questions_of(task).tolist() == list(range(len(task)))
    assert questions_of(task, limit=3).tolist() == [0, 1, 2]
    assert questions_of(task, index=[7, 3]).tolist() == [7, 3]
    done = evaluate_answerer(answerer(), ENV, task, index=[7, 3, 4], seeds=[0, 1])
    assert (done.result.n, done.result.accuracy) == (3, 1 / 3)
    assert [(r["seed"], r["index"]) for r in done.rollouts] == [
        (seed, index) for seed in (0, 1) for index in (7, 3, 4)
    ]


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"limit": 0}, "not 0"),
        ({"limit": 10**6}, "not 1000000"),
        ({"index": [0, 10**6]}, "no question 1000000; give numbers from 0 to"),
        ({"index": [-1]}, "no question -1"),
        ({"index": [3, 7, 3]}, "every --index once"),
        ({"limit": 2, "index": [0]}, "leave one of them out"),
    ],
)
def test_questions_that_there_are_not_are_refused(
    chosen: dict[str, Any], says: str, task: Any
) -> None:
    with pytest.raises(UsageError, match=says):
        questions_of(task, **chosen)
