"""Answer formats: instructions, demonstrations, episodes and grades."""

from __future__ import annotations

import json
from itertools import accumulate, pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentgym.envs.formats import FORMATS
from latentgym.episodes.protocol import Phase
from latentgym.registry import FAMILY_NAMES
from latentgym.rewards import ExactGrader, Grade, MathGrader, NumberGrader, SpanGrader
from latentgym.testing import check_task

JSON = FORMATS["json"]
TEXT_TASKS = ["GSM8K", "GSM8KAug", "GSMHard", "SVAMP", "MultiArith", "MATH", "AIME2024"]


def task(env_id: str, **options: Any) -> Any:
    return gym.make(f"latent/{env_id}", **{"format": "json", **options}).unwrapped.task


def make(env_id: str, **options: Any) -> Any:
    return gym.make(f"latent/{env_id}", source="sample", format="json", **options).unwrapped


def act(env: Any, *tokens: int) -> Any:
    """Act so that every action is read as one of the tokens."""
    for token in tokens:
        action = env._rows.family.speak(np.array([token]), 64, 8)
        action = {k: v[0] for k, v in action.items()} if isinstance(action, dict) else action[0]
        result = env.step(action)
    return result


def say(env: Any, text: str) -> Any:
    return act(env, *env.task.tokenizer.encode(text))


def number(completion: str, gold: str = "18", *, in_tokens: bool = True) -> tuple[float, float]:
    return verdict(JSON.grade(NumberGrader(), completion, gold, in_tokens=in_tokens))


def verdict(grade: Grade) -> tuple[float, float]:
    assert grade.score == grade.components["correct"]
    return grade.score, grade.components["format"]


@pytest.mark.parametrize("name", FORMATS)
@given(gold=st.text(min_size=1).map(str.strip).filter(bool))
def test_an_answer_as_shown_is_found(name: str, gold: str) -> None:
    chosen = FORMATS[name]
    said = chosen.answer(gold)
    if name == "json":
        assert json.loads(f"{{{chosen.marker}{said}")["final answer"] == gold
    elif not set(gold) & set("#{}\\"):
        for thoughts in (
            chosen.thoughts(()),
            chosen.thoughts(("one", "two")),
            chosen.forced_prompt,
        ):
            assert chosen.find(thoughts + said) == gold
    assert chosen.find("no answer 5") is None


@pytest.mark.parametrize(
    ("completion", "score", "kept"),
    [
        ('{"thought process": "9 + 9", "final answer": "18"}', 1, 1),
        ('{"thought process": "9 + 9 = 18", "final answer": 18}', 1, 1),
        ('```json\n{\n "thought process": "",\n "final answer": "$18"\n}\n```', 1, 1),
        ('{"thought process": ["9", "9"], "final answer": 18, "unit": "cm"}', 1, 1),
        ('Sure! {"thought process": "9 + 9", "final answer": "18"} Next: 7', 1, 0),
        ('{"final answer": 18}', 1, 0),
        ('"final answer": 18}', 1, 0),
        ('{"thought process": "18", "final answer": "17"}', 0, 1),
        ('{"thought process": "18", "final answer": ""}', 0, 1),
        ('{"final answer": 18}{"final answer": 17}', 0, 0),
        ("#### 18", 1, 0),  # without the key, the completion as it is
        ("so it is 18.", 1, 0),
        ("", 0, 0),
    ],
)
def test_json_is_read_and_graded(completion: str, score: int, kept: int) -> None:
    assert number(completion) == (score, kept)


@pytest.mark.parametrize(
    ("completion", "kept"),
    [
        ('", "final answer": "18"}', 1),
        ('"final answer": 18}', 1),
        ('{"thought process": "", "final answer": 18}', 1),
        ('"final answer": 18', 0),
        ('", "final answer": 18} and so on', 0),
        ("18", 0),
    ],
)
def test_latent_thoughts_stand_for_the_first_value(completion: str, kept: int) -> None:
    assert number(completion, in_tokens=False) == (1, kept)
    assert number(completion)[1] == (completion[0] == "{")


AIME = NumberGrader(integer_range=(0, 999))


@pytest.mark.parametrize(
    ("completion", "gold", "score"),
    [
        (r"#### 1. Set up\nSo 2x = 120.\nThe answer is \boxed{60}.", "60", 1),
        (r"#### 60\nThe answer is \boxed{61}.", "60", 0),
        (r"\boxed{1} and then \boxed{60}", "60", 1),
        (r"\boxed{60\sqrt{2}}", "60", 0),
        (r"\boxed{\sqrt{60}}", "60", 0),
        (r"\boxed{60 \text{ or } 7}", "60", 0),
        (r"\boxed{60, 7, 8}", "60", 0),
        (r"\boxed{2^9}", "512", 1),
        (r"\boxed{2^9}", "2", 0),
        (r"\boxed{100 + 25 = 125}", "125", 1),
        (r"\boxed{060}", "60", 1),
        (r"\boxed{60", "60", 0),
        ("So it is 60.", "60", 1),
    ],
)
def test_boxed_answers_are_those_in_the_last_box(completion: str, gold: str, score: int) -> None:
    completion = completion.replace(r"\n", "\n")
    assert FORMATS["boxed"].grade(AIME, completion, gold, in_tokens=True).score == score


@pytest.mark.parametrize("grader", [NumberGrader(), MathGrader(), SpanGrader(), ExactGrader()])
def test_every_format_looks_at_its_own_mark(grader: Any) -> None:
    others = {"hashes": "#### 7\n", "boxed": r"\boxed{7} ", "sentence": "The answer is: 7\n"}
    for name, chosen in FORMATS.items():
        for other, said in others.items():
            if other == "hashes" == name:
                continue  # wrong behind a second mark
            completion = said * (other != name) + chosen.thoughts(()) + chosen.answer("5")
            assert chosen.grade(grader, completion, "5", in_tokens=True).score == 1, completion
            assert chosen.grade(grader, completion, "7", in_tokens=True).score == 0, completion


@pytest.mark.parametrize("text", [r"\\frac{1}{2}", r"\frac{1}{2}", r"$\tfrac{1}{2}$", "0.5"])
@pytest.mark.parametrize("end", ['"}', '"', ""])
def test_latex_is_read_with_one_backslash_or_two(text: str, end: str) -> None:
    completion = f'{{"thought process": "a", "final answer": "{text}{end}'
    assert JSON.grade(MathGrader(), completion, r"\frac{1}{2}", in_tokens=True).score == 1


def test_a_plain_number_is_asked_for_where_answers_are_numbers() -> None:
    for name in TEXT_TASKS:
        assert ("plain number" in task(f"{name}-token", source="sample").system) == (name != "MATH")
    for name in ("hashes", "boxed"):
        assert FORMATS[name].instruction(NumberGrader()) == FORMATS[name].system
    assert task("GSM8K-token", source="sample", system="").system == ""


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("name", TEXT_TASKS)
def test_demonstrations_are_json(name: str, family: str) -> None:
    chosen = task(f"{name}-{family}", source="sample")
    check_task(chosen)
    for index in range(len(chosen)):
        question, shown = chosen.question(index), chosen.demonstration(index)
        ids = shown.ids_TS[:, 0].tolist()
        said = chosen.tokenizer.decode(ids)
        assert json.loads(said) == {
            "thought process": "\n".join(question.steps),
            "final answer": question.gold,
        }
        assert verdict(chosen.grade(index, said, question.gold)) == (1, 1)
        thoughts = chosen.tokenizer.decode(ids[: shown.thoughts])
        assert thoughts.endswith(chosen.format.marker) and thoughts.count(chosen.format.marker) == 1
        assert verdict(chosen.grade(index, *chosen.gold_completion(index))) == (1, 1)


def test_steps_are_the_lines_with_their_escapes() -> None:
    chosen = task("GSM8K-hybrid", source="sample")
    lines = ('Say "one".', r"Take \frac{1}{2}.", "So é.")
    chosen.questions = [type(chosen.question(0))("Why?", "5", lines)]
    shown = chosen.demonstration(0)
    ids = shown.ids_TS[:, 0].tolist()
    borders = pairwise(accumulate((0, *shown.steps)))
    assert [chosen.tokenizer.decode(ids[start:end]) for start, end in borders] == [
        r'{"thought process": "Say \"one\".\n',
        r"Take \\frac{1}{2}.\n",
        "So é.",
    ]
    rest = chosen.tokenizer.decode(ids[sum(shown.steps) : shown.thoughts])
    assert rest == '", "final answer":'


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_an_episode_in_json(family: str) -> None:
    env = make(f"GSM8K-{family}", think=80, answer=16)
    _, info = env.reset(options={"index": 2})
    observation, *_ = say(env, '{"thought process": "so \\"it\\" is", "final answer":')
    assert observation["phase"] == Phase.ANSWER
    say(env, f' "{info["target"]}"}}')
    *_, terminated, _, final = act(env, env.task.tokenizer.eos_id)
    assert terminated and final["score"] == final["reward/format"] == 1
    assert final["completion"].startswith("{" if family == "token" else '"final answer":')


def test_a_latent_chain_is_asked_by_the_bridge() -> None:
    env = make("GSM8K-hybrid", think=2, answer=16)
    _, info = env.reset(options={"index": 2})
    observation, *_ = say(env, "ab")
    inserted = observation["inserted"][: observation["inserted_length"]]
    assert env.task.tokenizer.decode(inserted) == '", "final answer":'
    say(env, f" {info['target']}}}")
    final = act(env, env.task.tokenizer.eos_id)[4]
    assert final["completion"] == f'", "final answer": {info["target"]}}}'
    assert final["score"] == final["reward/format"] == 1


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *[(name, split) for name in TEXT_TASKS[:2] for split in ("train", "test")],
        *[("SVAMP", "train"), ("MultiArith", "train"), ("MATH", "train"), ("AIME2024", "train")],
        *[(name, "test") for name in ("GSMHard", "SVAMP", "MultiArith", "MATH500")],
        *[(name, "test") for name in ("AIME2024", "AIME2025")],
    ],
)
def test_all_real_gold_answers_score_one(name: str, split: str, real_data: str) -> None:
    latent, words = (task(f"{name}-{family}", split=split) for family in ("hybrid", "token"))
    for index in range(len(words)):
        gold = words.question(index).gold
        once = f'"final answer": "{gold}"}}'  # no backslash doubled
        assert verdict(words.grade(index, *words.gold_completion(index))) == (1, 1), gold
        assert latent.grade(index, once, once).score == 1, gold
