"""Reward functions of the user's own: what they are given, what they earn, and how they fail."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from latentgym.agents.cot import CoT
from latentgym.agents.run import Run
from latentgym.errors import TrainingError, UsageError
from latentgym.heads import GatedHead, MixtureHead, MultiTokenHead, PolicyHead, TokenHead
from latentgym.lm import load_model
from latentgym.registry import make_vector_env
from latentgym.rollout import Policy
from latentgym.training import GRPO, GRPOConfig, Reward, Rewards
from latentgym.training.rewards import load_rewards, split_weight

QUESTIONS, GROUP = 2, 3
ROWS = QUESTIONS * GROUP


def tiny(env: Any) -> Any:
    return load_model("tiny:gpt2:1x1x16", tokenizer=env.unwrapped.task.tokenizer, dtype="float32")


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Six rows that ask questions of the user's own, with two further columns."""
    path = tmp_path_factory.mktemp("data") / "sums.jsonl"
    rows = [{"question": f"{n} + {n}?", "answer": 2 * n, "level": n} for n in range(12)]
    rows[3]["hint"] = "even"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"data": str(path), "grader": "number", "holdout": 0, "think": 6, "answer": 3}
    return make_vector_env("latent/Custom-token", ROWS, **options)


def step(
    env: Any, rewards: Any, head: PolicyHead | None = None, number: int = 0, **config: Any
) -> dict[str, float]:
    """The metrics of a step, in which nothing moves."""
    policy = Policy(tiny(env), head or TokenHead(), None if head is None else TokenHead())
    stage = GRPO(
        policy, env, GRPOConfig(prompts=QUESTIONS, group_size=GROUP, **config), rewards=rewards
    )
    return stage.step(number, lambda losses: float(sum(loss.detach() for loss in losses)))


def of(*functions: Any, task: float = 0.0, **more: Any) -> Rewards:
    made = [each if isinstance(each, Reward) else Reward(each, name="mine") for each in functions]
    return Rewards(made, task, **more)


def length(completions: list[str], **columns: Any) -> list[float]:
    return [float(len(text)) for text in completions]


def place(index: list[int], **columns: Any) -> list[float]:
    return [float(i) for i in range(len(index))]


def test_a_function_is_called_once_with_whole_groups(sums: Any) -> None:
    seen: list[dict[str, Any]] = []

    def look(**given: Any) -> list[float]:
        seen.append(given)
        return [0.0] * len(given["completions"])

    step(sums, of(look), number=4)
    (given,) = seen
    assert given.pop("trainer_state").global_step == 4
    assert all(isinstance(value, list) and len(value) == ROWS for value in given.values())
    assert [given["index"][i] for i in range(0, ROWS, GROUP)] == sorted(
        set(given["index"]), key=given["index"].index
    )
    for i, index in enumerate(given["index"]):
        assert index == given["index"][i - i % GROUP]
        question = sums.unwrapped.task.question(index)
        asked = given["question"][i], given["answer"][i], given["level"][i]
        assert asked == (question.text, question.gold, index)
        assert question.text in given["prompts"][i]
        decode = sums.unwrapped.task.tokenizer.decode
        assert decode(given["completion_ids"][i]) == given["completions"][i]


def test_completions_may_be_messages(sums: Any) -> None:
    seen: dict[str, Any] = {}

    def look(prompts: Any, completions: Any, question: Any) -> list[float]:
        seen.update(prompts=prompts, completions=completions, question=question)
        return [float(len(completion[0]["content"])) for completion in completions]

    told = step(sums, of(look, format="messages"))
    system, user = seen["prompts"][0]
    assert system["role"] == "system" and "####" in system["content"]
    assert user == {"role": "user", "content": seen["question"][0]}
    assert seen["completions"][0][0]["role"] == "assistant"
    assert told["reward/mine"] == step(sums, of(length))["reward/mine"]


def test_what_is_earned_is_the_sum_with_weights(sums: Any) -> None:
    both = of(Reward(length, 0.5), Reward(place, -2.0), task=3.0)
    told = step(sums, both)
    plain = step(sums, None)
    assert told["reward/task"] == plain["reward/score"]
    assert told["reward/place"] == np.mean(range(ROWS))
    total = 0.5 * told["reward/length"] - 2 * told["reward/place"] + 3 * told["reward/task"]
    assert told["reward/score"] == pytest.approx(total)
    assert told["reward/correct"] == plain["reward/correct"]
    # Without a reward of one's own nothing is as it was not.
    assert "reward/task" not in plain and plain["reward/score"] == plain["reward/correct"]
    listed = step(sums, [length, Reward(place, 0.5)])
    assert listed["reward/score"] == told["reward/length"] + 0.5 * told["reward/place"]
    logged = step(sums, of(Reward(length, 0.0), Reward(place)))
    assert logged["reward/score"] == logged["reward/place"] and logged["reward/length"] > 0


def test_the_gradient_follows_it(sums: Any) -> None:
    same = step(sums, of(lambda index: [7.0] * ROWS))
    assert same["train/groups_without_signal"] == 1 and same["train/loss"] == 0
    apart = step(sums, of(place))
    assert apart["train/groups_without_signal"] == 0


def test_none_is_left_out(sums: Any) -> None:
    def some(index: list[int]) -> list[float | None]:
        return [10.0 if i == index[0] else None for i in index]

    told = step(sums, of(Reward(some), Reward(place)))
    assert told["reward/some"] == 10  # of those to which it applies
    assert told["reward/score"] == pytest.approx(10 / QUESTIONS + told["reward/place"])
    never = step(sums, of(Reward(lambda index: [None] * ROWS, name="never"), Reward(place)))
    assert "reward/never" not in never and never["reward/score"] == never["reward/place"]
    with pytest.raises(TrainingError, match=r"no reward applies to an episode of question \d+"):
        step(sums, of(some))
    assert step(sums, of(some, task=1.0))["reward/score"] == pytest.approx(10 / QUESTIONS)


async def slow(completions: list[str], wait: float = 0.0) -> list[float]:
    await asyncio.sleep(wait)
    return length(completions)


def test_asynchronous_functions_run_side_by_side(sums: Any) -> None:
    met = asyncio.Event()

    async def first(index: list[int]) -> list[float]:
        await asyncio.wait_for(met.wait(), 20)  # never, if the other one waits for it
        return [1.0] * len(index)

    async def second(index: list[int]) -> list[float]:
        met.set()
        return [2.0] * len(index)

    told = step(sums, of(Reward(first), Reward(second), Reward(slow)))
    assert told["reward/score"] == pytest.approx(3 + told["reward/slow"])

    async def in_a_notebook() -> dict[str, float]:  # where a loop runs already
        return step(sums, of(slow))

    assert asyncio.run(in_a_notebook())["reward/mine"] == told["reward/slow"]


def test_a_client_is_bound_to_one_loop(sums: Any) -> None:
    loops = []

    async def look(index: list[int]) -> list[float]:
        loops.append(asyncio.get_running_loop())
        return [1.0] * len(index)

    for number in range(2):
        step(sums, of(look), number=number)
    assert loops[0] is loops[1] and not loops[0].is_closed()


class Odd:
    """Something that fails whatever is done with it."""

    def __float__(self) -> float:
        raise RuntimeError("no number")

    def __repr__(self) -> str:
        raise RuntimeError("no text")


RETURNED: dict[str, tuple[Any, str]] = {
    "NaN": ([1.0] * 5 + [float("nan")], r"mine gives nan for an episode of question \d+; give a"),
    "infinite": ([float("-inf")] * ROWS, "mine gives -inf for an episode of question"),
    "text": (["1.0"] * ROWS, "mine gives '1.0' for an episode of question"),
    "lists": ([[1.0]] * ROWS, r"mine gives \[1.0\] for an episode of question"),
    "too large": ([10**400] * ROWS, "for an episode of question"),
    "too few": ([1.0] * 5, r"mine gives 5 values for the questions \d+, \d+; give a list of 6"),
    "one": (1.0, "mine gives 1.0; give a list of 6 numbers"),
    "nothing": (None, "mine gives None; give a list of 6 numbers"),
    "a text": ("111111", "mine gives '111111'; give a list"),
    "odd": (Odd(), "mine gives a Odd; give a list of 6 numbers"),
    "oddities": ([Odd()] * ROWS, "mine gives a Odd for an episode of question"),
    "names": ({str(i): 1.0 for i in range(ROWS)}, "give a list of 6 numbers"),
}


@pytest.mark.parametrize("later", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(("value", "says"), RETURNED.values(), ids=RETURNED)
def test_what_is_no_reward_ends_the_run(sums: Any, value: Any, says: str, later: bool) -> None:
    async def asynchronous(**given: Any) -> Any:
        return value

    moved = []
    policy = Policy(tiny(sums), TokenHead())
    function: Callable[..., Any] = asynchronous if later else lambda **given: value
    config = GRPOConfig(prompts=QUESTIONS, group_size=GROUP)
    stage = GRPO(policy, sums, config, rewards=of(function))
    with pytest.raises(TrainingError, match=says):
        stage.step(0, moved.append)  # type: ignore[arg-type]
    assert not moved


@pytest.mark.parametrize(
    "values",
    [
        np.arange(ROWS),
        torch.arange(ROWS, dtype=torch.float32),
        tuple(range(ROWS)),
        [np.float32(i) for i in range(ROWS)],
        (float(i) for i in range(ROWS)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_holds_numbers_will_do(sums: Any, values: Any) -> None:
    assert step(sums, of(lambda index: values))["reward/mine"] == np.mean(range(ROWS))
    assert step(sums, of(lambda index: [True] * ROWS))["reward/mine"] == 1


@pytest.mark.parametrize("later", [False, True], ids=["sync", "async"])
def test_an_error_names_the_function_and_the_question(sums: Any, later: bool) -> None:
    asked: list[int] = []

    def fails(index: list[int]) -> list[float]:
        asked[:] = asked or list(dict.fromkeys(index))
        if asked[1] in index:
            raise ZeroDivisionError("no\nsum")
        return [1.0] * len(index)

    async def awaited(index: list[int]) -> list[float]:
        return fails(index)

    with pytest.raises(TrainingError) as error:
        step(sums, of(awaited if later else fails))
    told = str(error.value)
    assert f"the reward mine failed on question {asked[1]} (ZeroDivisionError: no sum)" in told

    def together(index: list[int]) -> list[float]:
        if len(set(index)) > 1:
            raise KeyError("both")
        return [1.0] * len(index)

    with pytest.raises(TrainingError, match=r"though on none of them alone .KeyError: 'both'"):
        step(sums, of(together))


@pytest.mark.parametrize("later", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("error", [SystemExit, asyncio.CancelledError, GeneratorExit])
def test_leaving_python_is_an_error_too(sums: Any, error: type[BaseException], later: bool) -> None:
    def leaves(index: list[int]) -> list[float]:
        raise error

    async def awaited(index: list[int]) -> list[float]:
        return leaves(index)

    with pytest.raises(TrainingError, match=rf"failed on question \d+ .{error.__name__}"):
        step(sums, of(awaited if later else leaves))
    assert step(sums, of(length))["reward/mine"] >= 0  # there still is a loop


def test_texts_taken_for_messages_are_told_of_the_option(sums: Any) -> None:
    def chat(completions: Any, **columns: Any) -> list[float]:
        return [len(completion[0]["content"]) for completion in completions]

    with pytest.raises(TrainingError, match=r"TypeError.*--grpo\.completions messages"):
        step(sums, of(chat))


def test_what_cannot_work_is_told_before_the_first_step(sums: Any) -> None:
    for rewards, says in [
        (partial(of, lambda colour: []), "the reward mine asks for colour, which is not there"),
        (partial(of, Reward(length), Reward(length)), "there are two rewards length"),
        (partial(of, Reward(length, 0.0)), "all rewards have the weight 0"),
        (partial(of, Reward(length), task=math.inf), "the weight of the reward task is inf"),
        (partial(Reward, lambda index: index), "has no name to be logged by"),
        (partial(Reward, length, 1.0, "correct"), "reward/correct is logged already"),
        (partial(Reward, length, float("nan")), "the weight of the reward length is nan"),
        (partial(Reward, length, "1"), "the weight of the reward length is '1'; give a finite"),
        (partial(Reward, length, torch.tensor(1.0)), "the weight of the reward length is tensor"),
        (partial(Reward, length, 1.0, 3), "has no name to be logged by"),
        (partial(Reward, "mine:length"), "the reward 'mine:length' cannot be called"),
        (partial(of, Reward(length), task="1"), "the weight of the reward task is '1'"),
        (partial(of, Reward(length), format="txt"), "rewards get 'text' or 'messages', not 'txt'"),
    ]:
        with pytest.raises(UsageError, match=says):
            step(sums, rewards())  # type: ignore[operator]
    with pytest.raises(UsageError, match="are for whole episodes"):
        step(sums, of(length), reward="perplexity")
    data = Path(sums.unwrapped.task.source.removeprefix("path:"))
    other = data.with_name("other.jsonl")
    other.write_text(json.dumps({"question": "Q", "answer": 1, "completions": 3}) + "\n")
    clash = make_vector_env("latent/Custom-token", 6, data=other, grader="number", holdout=0)
    with pytest.raises(UsageError, match="rewards are given completions beside the columns"):
        step(clash, of(length))


def test_a_part_of_the_tasks_reward_keeps_its_name() -> None:
    env = make_vector_env("latent/NQ-token", ROWS, source="sample", passages=0, think=4, answer=2)
    with pytest.raises(TrainingError, match="a part of its reward that is called f1"):
        step(env, of(Reward(place, name="f1")))


@pytest.mark.parametrize(
    ("family", "head"),
    [
        ("hybrid", lambda: GatedHead(16, TokenHead())),
        ("continuous", lambda: MultiTokenHead(2)),
        ("continuous", MixtureHead),
    ],
)
def test_every_family_has_them(family: str, head: Callable[[], PolicyHead]) -> None:
    """What is thought in latents is no text; the answer is."""
    env = make_vector_env(f"latent/MNNS-{family}", ROWS)
    seen: list[list[str]] = []

    def look(completions: list[str], answer: list[str]) -> list[float]:
        seen.append(completions)
        return [float(i) for i in range(len(completions))]

    told = step(env, of(look), head())
    assert told["reward/mine"] == told["reward/score"] == np.mean(range(ROWS))
    assert len(seen[0]) == ROWS and all(isinstance(text, str) for text in seen[0])


def test_functions_of_trl_work_as_they_are(sums: Any) -> None:
    trl = pytest.importorskip("trl.rewards", reason="needs latentgym[trl]")
    seen: dict[str, Any] = {}

    def look(**given: Any) -> list[float]:
        seen.update(given)
        return [0.0] * ROWS

    overlong = trl.get_soft_overlong_punishment(max_completion_len=8, soft_punish_cache=8)
    functions = [overlong, trl.think_format_reward, look]
    told = step(sums, functions, completions="messages")
    lengths = overlong(completion_ids=seen["completion_ids"])
    assert np.mean(lengths) < 0 and told["reward/score"] == pytest.approx(np.mean(lengths))
    formats = trl.think_format_reward(seen["completions"])
    assert told["reward/think_format_reward"] == np.mean(formats)


@pytest.fixture
def mine() -> Iterator[ModuleType]:
    """A module of the user's own."""
    module = ModuleType("mine_of_test")
    module.length, module.place = length, place  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


def test_rewards_are_named_with_their_weights(mine: ModuleType) -> None:
    rewards = load_rewards(["mine_of_test:length=-0.5", "task=2", "mine_of_test:place"])
    assert rewards is not None and rewards.task == 2
    weights = [(each.name, each.weight) for each in rewards.functions]
    assert weights == [("length", -0.5), ("place", 1.0)]
    assert load_rewards([]) is None
    assert load_rewards(["mine_of_test:length"]).task == 0  # type: ignore[union-attr]
    assert split_weight("task") == ("task", 1.0)


@pytest.mark.parametrize(
    ("specs", "says"),
    [
        (["length"], "no reward 'length'; write module:function, module:function=0.5, or task"),
        (["mine_of_test:length=much"], "the weight of the reward mine_of_test:length is nan"),
        (["mine_of_test:length=inf"], "is inf; give a finite number"),
        (["mine_of_test:length="], "give a finite number"),
        (["mine_of_test:none"], "has no 'none'"),
        (["no_module_of_mine:f"], "there is no module 'no_module_of_mine'"),
        (["mine_of_test:length"] * 2, "is given twice"),
        (["task=0"], "all rewards have the weight 0"),
    ],
)
def test_what_names_no_reward(mine: ModuleType, specs: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        GRPOConfig(rewards=specs).validate()


def test_an_agent_trains_on_them(mine: ModuleType, tmp_path: Path) -> None:
    preset = CoT.presets["grpo-tiny"]
    grpo = GRPOConfig(prompts=2, group_size=2, rewards=["mine_of_test:place", "task=0.5"])
    run = Run("cot", preset, "latent/MNNS-token", "tiny:gpt2:1x1x8")
    told = grpo.build(run.learner(), run.make_env, 0).step(0, lambda losses: 0.0)
    assert told["reward/place"] == 1.5
    assert told["reward/score"] == 1.5 + 0.5 * told["reward/task"]
