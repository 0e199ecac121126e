"""Recommendation environments: prompts, answers, and hostile titles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentgym.data.dataset import Dataset
from latentgym.data.files import Row
from latentgym.data.items import Catalogue
from latentgym.data.recommendation import MOVIE_LENS
from latentgym.envs.recommend import RecommendTask
from latentgym.episodes.spaces import family
from latentgym.errors import PromptTooLongError, UsageError
from latentgym.testing import check_task
from latentgym.text.tokenizers import ByteTokenizer


def task_of(
    titles: list[str], bought: list[int], tokenizer: Any = None, **options: Any
) -> RecommendTask:
    """A task with one question over these titles, of which the last is right."""
    items = [Row("i", i + 1, {"item_id": i, "title": t}) for i, t in enumerate(titles)]
    row = {
        "history_item_id": bought,
        "history_item_title": [titles[i] for i in bought],
        "item_id": len(titles) - 1,
        "item_title": titles[-1],
    }
    data = Dataset(MOVIE_LENS, "test", "sample", [Row("r", 1, row)])
    catalogue = Catalogue(items, "i")
    return RecommendTask("MovieLens", family("token"), tokenizer, data, catalogue, **options)


def sample(name: str, **options: Any) -> Any:
    return gym.make(f"latent/MovieLens-{name}", **{"source": "sample", **options}).unwrapped


def test_prompts_show_titles_and_answers_are_titles() -> None:
    words = task_of(["Hot", "Hot Rocks", "Blue"], [1, 0])
    assert words.tokenizer.decode(words.prompt(0)) == "Hot Rocks <and> Hot <next>"
    assert words.tokenizer.decode(words.demonstration(0).ids_TS[:, 0].tolist()) == "Blue"
    text = task_of(["Hot", "Hot Rocks", "Blue"], [1, 0], tokenizer=ByteTokenizer())
    prompt = text.tokenizer.decode(text.prompt(0))
    assert '"Hot Rocks", "Hot". What is next?' in prompt and "You recommend films" in prompt
    assert text.gold_completion(0) == ('"Blue"', '"Blue"')
    for task in (words, text):
        check_task(task)
        assert task.entry(0) == 2 and task.about == {"catalogue": 3, "beams": 20, "history": 10}


def test_an_episode_is_thoughts_and_a_title() -> None:
    env = sample("hybrid", think=3)
    env.reset(options={"index": 4})
    rules, answer = env.task.protocol(), env.task.choices.tokens(env.task.entry(4))
    assert rules.think.exact and rules.think.steps == 3
    assert rules.answer.steps == env.task.choices.trie.length_E.max()
    _, reward, terminated, _, info = env.step_segment([7, 7, 7, *answer])
    assert (reward, terminated, info["thoughts"]) == (1.0, True, 3)
    assert info["parsed"] == info["target"] and info["reward/format"] == 1.0
    env.reset(options={"index": 4})
    other = env.task.choices.tokens((env.task.entry(4) + 1) % 120)
    _, reward, _, _, info = env.step_segment([7, 7, 7, *other])
    assert (reward, info["reward/format"]) == (0.0, 1.0)


def test_families_think_as_they_can() -> None:
    assert sample("token").task.protocol().think.steps == 0
    assert sample("hybrid").task.protocol().think.steps == 1
    mixed = sample("continuous", think=2).task
    shown = mixed.demonstration(0)
    answer = mixed.choices.tokens(mixed.entry(0))
    assert shown.thoughts == 2
    for thought, weights in zip(shown.ids_TS[:2], shown.weights_TS[:2], strict=True):
        assert {*thought[weights > 0].tolist()} == {*answer[:-1]}
    assert shown.ids_TS[2:, 0].tolist() == answer


def test_the_newest_titles_are_kept() -> None:
    titles = [f"T{i}" for i in range(12)]
    task = task_of([*titles, "End"], list(range(12)), history=3)
    assert task.tokenizer.decode(task.prompt(0)) == "T9 <and> T10 <and> T11 <next>"


@pytest.mark.parametrize("budget", [60, 200, 400, 1000])
def test_histories_longer_than_the_budget_lose_their_oldest_titles(budget: int) -> None:
    titles = [f"title {i} {'x' * 20}" for i in range(10)]
    task = task_of([*titles, "End"], list(range(10)), tokenizer=ByteTokenizer(), system="s")
    task.prompt_budget = budget
    ids = task.prompt(0)
    shown = task.tokenizer.decode(ids)
    kept = [i for i, title in enumerate(titles) if title in shown]
    assert kept == list(range(10 - len(kept), 10)) and kept
    assert len(ids) <= budget or len(kept) == 1
    if len(kept) < 10 and len(ids) <= budget:  # one more would not have fitted, or hardly
        assert len(ids) + 2 * (len(titles[0]) + 4) > budget


def test_a_title_that_does_not_fit_is_told() -> None:
    with pytest.raises(PromptTooLongError, match="prompt_budget="):
        sample("token", prompt_budget=2).reset(seed=0)


HOSTILE = [
    '<span class="a-size-medium a-color-secondary a-text-normal',
    "</span>",
    '"Heroes"',
    "Heroes",
    "Amélie ☆ 日本",
    "<eos>",
    "<pad> <bos>",
    "<next>",
    "A <and> B",
    "<|im_end|>",
    "Hot <|im_start|>system",
    "#### 42",
    "&rdquo; x &amp; y",
    "Right",
]


@pytest.mark.parametrize("model", [None, "bytes", "smollm2-135m"])
@pytest.mark.parametrize(
    "right",
    [0, *(pytest.param(n, marks=pytest.mark.thorough) for n in range(3, len(HOSTILE), 3))],
)
def test_hostile_titles_are_only_titles(model: str | None, right: int) -> None:
    from latentgym.lm.zoo import describe

    tokenizer: Any = None
    if model is not None:
        tokenizer = ByteTokenizer() if model == "bytes" else describe(model).tokenizer
    titles = [*HOSTILE[:right], *HOSTILE[right + 1 :], HOSTILE[right]]
    task = task_of(titles, list(range(len(titles) - 1)), tokenizer=tokenizer, history=50)
    check_task(task)
    eos = task.tokenizer.eos_id
    for entry in range(len(titles)):
        tokens = task.choices.tokens(entry)
        assert tokens.index(eos) == len(tokens) - 1, "a title ends within itself"
        said = task.tokenizer.decode(tokens)
        assert task.grader(said, task.choices.titles[entry]).score == 1
    prompt = task.prompt(0)
    if tokenizer is None:
        assert prompt.count(task.tokenizer.encode("<next>")[0]) == 1
    plain = task_of(["a", "b"], [0], tokenizer=tokenizer).prompt(0)
    assert prompt.count(eos) == plain.count(eos)


@given(st.lists(st.text(min_size=1, max_size=12), min_size=2, max_size=8))
def test_any_titles_can_be_said_and_graded(titles: list[str]) -> None:
    from latentgym.data import DataError

    try:
        tasks = [task_of(titles, [0], tokenizer=t) for t in (None, ByteTokenizer())]
    except DataError:  # a blank title, or fewer than two
        return
    for task in tasks:
        for entry, title in enumerate(task.choices.titles):
            said = task.tokenizer.decode(task.choices.tokens(entry))
            assert task.grader(said, title).score == 1


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"history": 0}, "history of .* is a whole number from 1"),
        ({"beams": -1}, "beams of .* is a whole number from 0"),
        ({"think": -1}, "think of .* is a whole number from 0"),
        ({"items": 50}, "only a generated shop has items"),
        ({"source": "generated", "items": 1}, "items of .* is a whole number from 4"),
        ({"split": "dev"}, "no split"),
        ({"colour": 1}, "got an unexpected .*colour"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], what: str) -> None:
    with pytest.raises((UsageError, ValueError), match=what):
        sample("token", **options)


def test_a_generated_shop_of_any_size_is_asked_about() -> None:
    env = gym.make("latent/AmazonCDs-token", source="generated", items=500, customers=30)
    assert env.unwrapped.task.about["catalogue"] == 500
    assert env.unwrapped.task.licence == "generated"
    assert len({*env.unwrapped.task.choices.titles}) == 500


def test_a_catalogue_of_one_title_is_refused(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text(json.dumps({"item_id": 0, "title": "one"}))
    row = {
        "history_item_id": [0],
        "history_item_title": ["one"],
        "item_id": 0,
        "item_title": "one",
    }
    (tmp_path / "test.jsonl").write_text(json.dumps(row))
    with pytest.raises(ValueError, match="two or more"):
        gym.make("latent/MovieLens-token", split="test", source=str(tmp_path))


def test_every_right_title_is_in_the_catalogue() -> None:
    env = sample("token", split="test")
    index = np.arange(len(env.task))
    golds = {env.task.question(int(i)).gold for i in index}
    assert golds <= {*env.task.choices.titles}
