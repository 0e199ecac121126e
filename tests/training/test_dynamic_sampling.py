"""Groups without spread are drawn again: as DAPO has it, counted right, and resumable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from latentgym.episodes.rng import derive
from latentgym.errors import UsageError
from latentgym.heads import GaussianHead, MultiTokenHead, PolicyHead, TokenHead
from latentgym.lm import load_model
from latentgym.registry import make_vector_env
from latentgym.rewards import Grade
from latentgym.rollout import Episodes, Policy
from latentgym.testing.gradients import GradientRecorder
from latentgym.training import GRPO, GRPOConfig, Optimisation, Trainer
from latentgym.training.dynamic_sampling import spread, with_spread
from latentgym.training.manifest import latest
from latentgym.training.order import Order, batch_indices

HEADS: dict[str, tuple[Callable[[], PolicyHead], str]] = {
    "words": (TokenHead, "token"),
    "several tokens": (lambda: MultiTokenHead(3), "continuous"),
    "vectors": (lambda: GaussianHead(16, 8), "hybrid"),
}
SMALL = GRPOConfig(prompts=4, group_size=3, micro_batch=5, dynamic_sampling=3)


class Kept(GRPO):
    """Remembers which questions it asks in each rollout."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.asked: list[list[int]] = []
        self.scores: list[float] = []

    def _answered(self, questions: Any, seed: int) -> Episodes:
        self.asked.append(questions.tolist())
        return super()._answered(questions, seed)


def make(name: str, config: GRPOConfig, hard: Callable[[int], bool], **options: Any) -> Kept:
    """A stage in which hard questions earn nothing, and others do half of the time."""
    head, family = HEADS[name]
    options = {"think": 5, "answer": 4, **options}
    env = make_vector_env(f"latent/GSM8K-{family}", config.rows, source="sample", **options)

    def grade(index: int, completion: str, answer: str) -> Grade:
        score = 0.0 if hard(index) else float(len(stage.scores) % 2)
        stage.scores.append(score)
        return Grade(score, answer, "ok", {"correct": score})

    env.unwrapped.task.grade = grade
    tokenizer = env.unwrapped.task.tokenizer
    lm = load_model("tiny:llama:1x2x16", tokenizer=tokenizer, mixed_precision=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stage = Kept(Policy(lm, head()), env, config, 5)
    return stage


@pytest.mark.parametrize("name", HEADS)
def test_other_questions_take_the_place_of_those_without_spread(name: str) -> None:
    stage = make(name, SMALL, lambda index: index % 3 > 0)
    recorder = GradientRecorder(stage.policy)
    metrics = stage.step(1, recorder)
    first, *more = stage.asked
    assert first == stage.order.batch(1).tolist()
    easy = [[i for i in asked if i % 3 == 0] for asked in stage.asked]
    for before, asked in enumerate(more):  # as many as are missing, and no more
        assert len(asked) == SMALL.prompts - sum(map(len, easy[: before + 1]))
    every = [i for asked in stage.asked for i in asked]
    assert len(set(every)) == len(every)
    learnt = min(SMALL.prompts, sum(map(len, easy)))
    assert learnt > 0
    assert metrics["train/groups_drawn_again"] == len(every) - len(first) > 0
    assert metrics["train/groups_without_signal"] == 1 - learnt / SMALL.prompts
    # What episodes earn is told of all that were drawn, or it would be that of a choice of them.
    assert len(stage.scores) == len(every) * SMALL.group_size
    assert metrics["reward/score"] == pytest.approx(np.mean(stage.scores))
    assert any(float(g.abs().max()) > 0 for g in recorder.gradients.values())


def test_a_step_without_such_groups_is_the_same_step() -> None:
    found = []
    for rounds in (0, 3):
        stage = make("words", replace(SMALL, dynamic_sampling=rounds), lambda index: False)
        recorder = GradientRecorder(stage.policy)
        metrics = stage.step(0, recorder)
        found.append((metrics, recorder))
    (plain, a), (bounded, b) = found
    assert bounded.pop("train/groups_drawn_again") == 0
    assert "train/groups_drawn_again" not in plain
    for each in (plain, bounded):
        del each["rollout/seconds"]
    assert plain == bounded
    assert all(torch.equal(x, y) for x, y in zip(a.losses, b.losses, strict=True))


def test_the_bound_holds_and_what_is_left_fills_the_batch() -> None:
    stage = make("words", SMALL, lambda index: True)
    metrics = stage.step(0, GradientRecorder(stage.policy))
    assert [len(asked) for asked in stage.asked] == [4] * 4
    assert metrics["train/groups_without_signal"] == 1.0
    assert metrics["train/groups_drawn_again"] == 12
    assert metrics["reward/score"] == 0.0


def test_no_question_is_asked_twice_in_a_step_where_there_are_few() -> None:
    stage = make("words", SMALL, lambda index: True, limit=6)
    stage.step(0, GradientRecorder(stage.policy))
    assert [len(asked) for asked in stage.asked] == [4, 2]
    assert sorted(i for asked in stage.asked for i in asked) == list(range(6))


def test_of_right_and_wrong_answers_the_condition_is_the_papers() -> None:
    """Equation 11: more than none, and fewer than G, of a group's answers are right."""
    every = np.array([[(n >> g) & 1 for g in range(5)] for n in range(32)], dtype=float)
    right = every.sum(1)
    assert spread(every.ravel(), 5).tolist() == ((right > 0) & (right < 5)).tolist()


def episodes_of(rewards: list[list[float]], stage: GRPO) -> Episodes:
    drawn = stage._answered(np.arange(len(rewards)), 0)
    return replace(drawn, reward_N=np.array(rewards).ravel())


def test_groups_that_teach_come_first_and_keep_their_order() -> None:
    stage = make("words", SMALL, lambda index: True)
    flat, uneven = [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]
    parts = iter(
        [episodes_of(g, stage) for g in ([flat, uneven, flat, flat], [flat, uneven, flat])]
    )
    counted: list[int] = []

    def draw(questions: Any) -> Episodes:
        counted.append(len(questions))
        return next(parts)

    teaches = lambda e: spread(e.reward_N, 3)  # noqa: E731
    batch = with_spread(draw, teaches, np.arange(4), np.arange(4, 20), 1)
    assert counted == [4, 3]
    assert batch.kept.reward_N.reshape(-1, 3).tolist() == [flat, uneven, flat, uneven]
    assert batch.kept.rollouts.question_N[::3].tolist() == [0, 1, 2, 1]
    assert len(batch.kept.infos) == 12 and len(batch.drawn.infos) == 21
    assert batch.again == 3


def test_questions_in_the_place_of_others_move_no_batch() -> None:
    order = Order(40, 4, derive(5, 3), spare=8)
    for number in range(12):
        assert order.batch(number).tolist() == batch_indices(40, 4, derive(5, 3), number).tolist()
        others = order.others(number)
        assert len(set(others)) == 8 and not set(others) & set(order.batch(number))
        assert order.others(number).tolist() == others.tolist()
    assert len({tuple(order.others(number)) for number in range(12)}) == 12
    may = {i for number in range(2) for i in (*order.batch(number), *order.others(number))}
    assert order.asked(2).tolist() == sorted(may)


def test_a_question_that_is_too_long_is_told_where_it_may_take_the_place_of_another() -> None:
    order = Order(40, 4, 1, spare=8)
    long = int(order.others(0)[7])
    with pytest.raises(UsageError, match="1 of 12 questions"):
        order.fit(1, lambda i: 100 if i == long else 5, 50, skip_long=False)
    Order(40, 4, 1).fit(1, lambda i: 100 if i == long else 5, 50, skip_long=False)


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    def run(out: Path, steps: int, resume: bool = False) -> Kept:
        stage = make("words", SMALL, lambda index: index % 3 > 0)
        stage.env.unwrapped.task.grade = lambda index, completion, answer: Grade(
            0.0 if index % 3 else float(sum(map(ord, completion)) % 2), answer, "ok", {}
        )
        optimisation = Optimisation(lr=1e-2, schedule="constant", warmup=0)
        Trainer(stage, optimisation, steps, out=out, packed=False).run(resume=resume)
        return stage

    whole = run(tmp_path / "whole", 4)
    run(tmp_path / "parts", 2)
    with pytest.warns(UserWarning, match="is now of 4"):
        rest = run(tmp_path / "parts", 4, resume=True)
    assert whole.asked[-len(rest.asked) :] == rest.asked
    assert len(rest.asked) > 2
    names = [latest(tmp_path / name / "checkpoints") for name in ("whole", "parts")]
    a, b = (load_file(str(folder / "policy.safetensors")) for folder in names if folder)
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("advantage", ["batch", "clean_batch"])
def test_advantages_beyond_groups_are_refused(advantage: str) -> None:
    with pytest.raises(UsageError, match="these teach like the others"):
        replace(SMALL, advantage=advantage).validate()
