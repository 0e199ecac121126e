"""Facts about the tasks: sizes, budgets, demonstrations, prompts."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from latentgym.errors import UsageError
from latentgym.registry import FAMILY_NAMES, TASKS, env_ids
from latentgym.testing import check_task

# Frozen: people and results name them.
TASK_NAMES = [
    *("GSM8K", "GSM8KAug", "GSMHard", "SVAMP", "MultiArith"),
    *("MATH", "MATH500", "AIME2024", "AIME2025"),
    *("MNNS", "ProsQA", "ProntoQA"),
    *("NQ", "TriviaQA", "HotpotQA", "2WikiMultihopQA", "Bamboogle"),
    *("AmazonCDs", "AmazonOffice", "AmazonIndustrial", "MovieLens"),
    "Custom",
]


def task(env_id: str, **options: Any) -> Any:
    return gym.make(f"latent/{env_id}", **options).unwrapped.task


def test_the_ids_are_frozen() -> None:
    assert [name for name in TASKS if not name.startswith("RG_")] == TASK_NAMES
    assert FAMILY_NAMES == ("token", "hybrid", "continuous")
    ids = [env_id for env_id, _, _ in env_ids()]
    assert {f"latent/{t}-{f}" for t in TASK_NAMES for f in FAMILY_NAMES} <= set(ids)
    assert all(env_id in gym.registry for env_id in ids)


def test_mnns_is_the_task_of_the_paper() -> None:
    train, test = task("MNNS-continuous"), task("MNNS-continuous", split="test")
    assert train.tokenizer.vocab_size == 89
    assert len(train) + len(test) == 9**4
    answers = np.concatenate([train.answers, test.answers])
    values, counts = np.unique(answers, return_counts=True)
    assert values[counts.argmax()] == 1
    assert counts.max() / 9**4 == pytest.approx(0.3725, abs=5e-5)  # what a constant answer scores
    sets = [{tuple(sorted(row)) for row in t.digits.tolist()} for t in (train, test)]
    assert not sets[0] & sets[1]


@pytest.mark.parametrize(("env", "thoughts"), [("MNNS", 3), ("ProsQA", 5), ("ProntoQA", 6)])
def test_puzzles_have_chains_of_a_fixed_length(env: str, thoughts: int) -> None:
    for family in FAMILY_NAMES:
        puzzle = task(f"{env}-{family}", limit=3)
        rules, shown = puzzle.protocol(), puzzle.demonstration(0)
        assert rules.think.exact and rules.think.steps == thoughts == shown.thoughts
        assert rules.answer.exact and rules.answer.steps == 1
        # Words follow one path; a mixture holds all the states a search can be in.
        assert (shown.ids_TS.shape[1] == 1) == (family != "continuous")
        assert shown.steps == (1,) * thoughts
        assert (shown.weights_TS[-1] == np.eye(1, shown.ids_TS.shape[1])[0]).all()
        answer = puzzle.tokenizer.decode(shown.ids_TS[-1:, 0].tolist())
        assert answer == puzzle.question(0).gold
        closed = puzzle.tokenizer.decode(puzzle.prompt(0)).endswith("->")
        assert closed == (family != "continuous")


@pytest.mark.parametrize("env", ["MNNS", "ProsQA"])
def test_hybrids_are_asked_and_shown_what_words_are(env: str) -> None:
    words, hybrid = (task(f"{env}-{family}", limit=9) for family in ("token", "hybrid"))
    for index in range(9):
        assert words.prompt(index) == hybrid.prompt(index)
        one, other = words.demonstration(index), hybrid.demonstration(index)
        assert (one.ids_TS == other.ids_TS).all()
        assert (one.weights_TS == other.weights_TS).all()


@pytest.mark.parametrize("name", ["GSM8K", "GSM8KAug", "MATH"])
def test_the_steps_of_a_chain_in_words_are_its_lines(name: str) -> None:
    chosen = task(f"{name}-hybrid", source="sample")
    for index in range(min(5, len(chosen))):
        shown, question = chosen.demonstration(index), chosen.question(index)
        ids = shown.ids_TS[:, 0].tolist()
        ends = np.cumsum((0, *shown.steps))
        said = [chosen.tokenizer.decode(ids[start:end]) for start, end in pairwise(ends)]
        assert said == [f"{line}\n" for line in question.steps]
        assert chosen.tokenizer.decode(ids[ends[-1] : shown.thoughts]) == chosen.format.marker


def test_a_step_of_joined_tokens_leaves_the_chain_as_it_is() -> None:
    """Pairs of bytes: borders fall into tokens, and a prefix may be longer than its part."""
    chosen = task("GSM8K-hybrid", source="sample")
    whole = chosen.demonstration(0)
    encode = chosen.tokenizer.encode
    chosen.tokenizer.encode = lambda text: [
        sum(encode(text[i : i + 2])) % 256 for i in range(0, len(text), 2)
    ]
    shown = chosen.demonstration(0)
    assert len(shown.steps) == len(whole.steps) == len(chosen.question(0).steps)
    assert all(abs(a - b / 2) <= 1 for a, b in zip(shown.steps, whole.steps, strict=True))
    assert sum(shown.steps) <= shown.thoughts


def test_without_thoughts_only_the_answer_is_demonstrated() -> None:
    puzzle = task("ProsQA-continuous", think=0, limit=3)
    assert puzzle.demonstration(1).thoughts == 0
    assert len(puzzle.demonstration(1).ids_TS) == 1
    assert puzzle.demonstration(1).steps == ()
    check_task(puzzle)


@pytest.mark.parametrize("name", ["ProsQA", "ProntoQA"])
@pytest.mark.parametrize("edge_end", [False, True])
def test_graph_prompts_have_targets_of_their_own(name: str, edge_end: bool) -> None:
    puzzle = task(f"{name}-continuous", size=3, edge_end=edge_end)
    shown, prompt = puzzle.demonstration(1), puzzle.prompt(1)
    assert shown.prompt_ids_PS is not None
    assert shown.prompt_weights_PS is not None
    assert len(shown.prompt_ids_PS) == len(prompt)
    words = puzzle.tokenizer.decode(prompt).split()
    assert words.count(";") == (len(words) // 3 - 1 if edge_end else 0)
    sums = shown.prompt_weights_PS.sum(1)
    # Every vertex but the root, whose target is the first step of the chain.
    has_target = [bool(total > 0.999) for total in sums[-len(words) :]]
    assert has_target == [word.startswith("N") for word in words[:-1]] + [False]
    for word, ids, weights in zip(
        words[:-1],
        shown.prompt_ids_PS[-len(words) :],
        shown.prompt_weights_PS[-len(words) :],
        strict=False,
    ):
        if word.startswith("N"):  # a vertex is always among its own targets
            assert word in puzzle.tokenizer.decode(ids[weights > 0].tolist()).split()


def test_slots_are_of_the_prosqa_generator() -> None:
    small, whole = task("ProsQA-continuous", slots=8, size=5), task("ProsQA-continuous", size=5)
    assert len(small.prompt(0)) < len(whole.prompt(0))
    assert small.dataset_hash != whole.dataset_hash
    with pytest.raises(UsageError, match="slots"):
        task("ProntoQA-continuous", slots=8)
    with pytest.raises(UsageError, match="slots"):
        task("ProsQA-continuous", slots=99)


def test_graphs_are_relabelled_and_the_right_candidate_takes_either_place() -> None:
    puzzle = task("ProsQA-token", limit=60)
    first = [puzzle.question(i).text.split("<think> ")[1].split()[0] for i in range(60)]
    right = [puzzle.question(i).gold for i in range(60)]
    assert 15 < sum(f == r for f, r in zip(first, right, strict=True)) < 45
    assert len(set(right)) > 20
    assert puzzle.question(7).text == task("ProsQA-token", limit=60).question(7).text


@pytest.mark.parametrize("name", TASK_NAMES[:9])
def test_latent_chains_are_forced_to_answer_and_words_are_not(name: str) -> None:
    for family in FAMILY_NAMES:
        rules = task(f"{name}-{family}", source="sample").protocol()
        assert rules.force_answer == (family != "token") == bool(rules.forced_prompt)
        assert not rules.think.exact and rules.think.steps >= 256
    assert task(f"{name}-token", source="sample", force_answer=True).protocol().forced_prompt


def test_budgets_prompts_and_formats_can_be_chosen() -> None:
    chosen = task(
        "GSM8K-token", source="sample", think=5, answer=3, system="", format="boxed", limit=2
    )
    rules = chosen.protocol()
    assert (rules.think.steps, rules.answer.steps, len(chosen)) == (5, 3, 2)
    assert rules.marker is not None and rules.marker.text == "\\boxed{"
    prompt = chosen.tokenizer.decode(chosen.prompt(0))
    assert prompt == f"Question: {chosen.question(0).text}\nAnswer:"
    check_task(chosen)


def test_equal_data_has_an_equal_hash() -> None:
    for env_id, options in [("MNNS-token", {"limit": 9}), ("RG_gcd-token", {"size": 9})]:
        one, same = task(env_id, **options), task(env_id, **options)
        other = task(env_id, split="test", **options)
        assert one.dataset_hash == same.dataset_hash != other.dataset_hash
        assert len(one.dataset_hash) == 16


REAL = [
    *[(name, split) for name in TASK_NAMES[:5] for split in ("train", "test")],
    *[("MATH", "train"), ("MATH500", "test"), ("AIME2024", "test"), ("AIME2025", "test")],
    *[("ProsQA", "test"), ("ProntoQA", "test")],
]


@pytest.mark.parametrize(("name", "split"), [x for x in REAL if x != ("GSMHard", "train")])
def test_all_real_prompts_fit_their_budget(name: str, split: str, real_data: str) -> None:
    """In bytes, the longest any tokenizer makes of them."""
    for family in ("token", "continuous"):
        real = task(f"{name}-{family}", split=split)
        assert real.source.startswith("data:") and len(real) >= 30
        assert max(len(real.prompt(i)) for i in range(len(real))) <= real.prompt_budget
        check_task(real, questions=20)


def test_a_sample_is_never_passed_off_as_data() -> None:
    env = gym.make("latent/SVAMP-token", source="sample").unwrapped
    assert env.task.source == "sample"
    assert env.reset(seed=0)[1]["source"] == "sample"
