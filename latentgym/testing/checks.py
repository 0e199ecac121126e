"""Checks of one task, and of one vector environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from latentgym.episodes.protocol import EpisodeState
from latentgym.episodes.spaces import dominant

if TYPE_CHECKING:
    from latentgym.envs import Demonstration, Task

GARBAGE = ("", "\ufffd no idea \x00 ####")
"""Completions that no task may reward."""

_ANSWERS = (
    "",
    "I do not know",
    "nan",
    "nan + nani",
    "inf",
    "-infinity",
    "True",
    "False",
    "None",
    "0",
    "[]",
    "{}",
    "word " * 5000,
)

_MOST_STEPS = 5000

AnyVectorEnv = VectorEnv[Any, Any, Any]


def paid_garbage(task: Task, index: int) -> list[str]:
    """What a task takes for right though it is no answer: empty, words, nan, the question, ...

    Garbage that happens to be the gold answer is left out, and so are scores below 1.

    Args:
        task: the task.
        index: number of the question.
    """
    question = task.question(index)
    tried = [text for text in (*_ANSWERS, question.text) if not _alike(text, question.gold)]
    return [
        text
        for text in tried
        if task.grade(index, *task.completion(index, text)).components["correct"] >= 1
    ]


def _alike(one: str, other: str) -> bool:
    """Whether two texts are the same answer, as words or as numbers."""
    try:
        return float(one) == float(other)
    except ValueError:
        return one.strip().casefold() == other.strip().casefold()


def check_task(task: Task, questions: int = 8) -> None:
    """Check a task on some of its questions.

    It lacks nothing that a task has; prompts fit the budget and the vocabulary; demonstrations are
    valid, and one that fits the budgets is an episode by the task's own rules; the gold completion
    scores 1 (where the task knows one), empty and garbage completions score 0, and no garbage
    answer is right.

    Args:
        task: the task.
        questions: how many questions to look at, spread over all.
    """
    lacking = ", ".join(task.lacking())
    assert not lacking, f"{type(task).__name__} lacks {lacking}; latentgym.envs.Task describes them"
    vocab = task.tokenizer.vocab_size
    for index in np.unique(np.linspace(0, len(task) - 1, questions).astype(int)).tolist():
        what = f"question {index} of {task.name}"
        prompt, budget = task.prompt(index), task.prompt_budget
        assert 0 < len(prompt) <= budget, f"{what}: {len(prompt)} tokens, but a budget of {budget}"
        assert 0 <= min(prompt) <= max(prompt) < vocab, f"{what}: ids outside the vocabulary"
        if task.question(index).gold:
            _check_demonstration(task, task.demonstration(index), what)
            grade = task.grade(index, *task.gold_completion(index))
            assert grade.score == 1, f"{what}: the gold completion is graded {grade}"
        for text in GARBAGE:
            grade = task.grade(index, text, text)
            assert grade.score == 0, f"{what}: the completion {text!r} is graded {grade}"
        paid = paid_garbage(task, index)
        assert not paid, f"{what}: the answer {paid[0][:80]!r} is taken for right"


def _check_demonstration(task: Task, shown: Demonstration, what: str) -> None:
    ids, weights, steps = shown.ids_TS, shown.weights_TS, len(shown.ids_TS)
    assert ids.dtype == np.int64 and ids.ndim == 2, f"{what}: ids_TS is int64 of shape (T, S)"
    assert weights.shape == ids.shape, f"{what}: ids_TS and weights_TS differ in shape"
    assert 0 <= ids.min() <= ids.max() < task.tokenizer.vocab_size, f"{what}: unknown ids"
    assert (weights >= 0).all(), f"{what}: a weight is negative"
    assert np.allclose(weights.sum(1), 1, atol=1e-5), f"{what}: weights do not add up to one"
    assert 0 <= shown.thoughts < steps, f"{what}: a demonstration needs thoughts and an answer"
    assert min(shown.steps, default=0) >= 0 and sum(shown.steps) <= shown.thoughts, (
        f"{what}: the steps of the reasoning take more thoughts than there are"
    )
    rules = task.protocol()
    if rules.think.exact and shown.thoughts != rules.think.steps:
        # Words that some method puts thoughts in the place of may be of any number.
        assert not rules.answer.exact, f"{what}: not the exact number of thoughts"
        return
    own = shown.thoughts - (0 if shown.inserted_T is None else int(shown.inserted_T.sum()))
    if own > rules.think.steps or steps - shown.thoughts > rules.answer.steps:
        return  # longer than the budgets: good for supervised training, but no whole episode
    state = EpisodeState(rules, 1)
    inserted = np.zeros(steps, dtype=bool) if shown.inserted_T is None else shown.inserted_T
    assert inserted.shape == (steps,), f"{what}: inserted_T has one entry a step"
    for step, token in enumerate(dominant(ids, weights)):
        if inserted[step]:
            continue
        assert not state.done[0], f"{what}: the demonstration ends after {step} of {steps} steps"
        state.resume(np.arange(1))
        state.advance(token[None])
    assert state.terminated[0], f"{what}: the demonstration does not end the episode"


def check_vector_env(
    make_env: Callable[[int], AnyVectorEnv], num_envs: int = 3, seed: int = 0
) -> None:
    """Check a vector environment that leaves resets to the agent (`AutoresetMode.DISABLED`).

    Spaces are those of one row, batched; everything returned has its shape, type and place in its
    space, and is fresh at every call; infos come with masks; equal seeds give equal episodes, and
    row i has the seed `seed + i`; rows that are over stay as they are, and are told as over once,
    until a `reset_mask` names them, and nothing else is touched by it.

    Args:
        make_env: makes the environment with that many rows.
        num_envs: how many.
        seed: of the episodes.
    """
    env = make_env(num_envs)
    assert env.num_envs == num_envs, f"num_envs is {env.num_envs}, not {num_envs}"
    for kind in ("action_space", "observation_space"):
        expected = batch_space(getattr(env, f"single_{kind}"), num_envs)
        assert getattr(env, kind) == expected, f"{kind} is not single_{kind}, batched"
    mode = env.metadata.get("autoreset_mode")
    assert mode == AutoresetMode.DISABLED, f"autoreset_mode is {mode}, not DISABLED"

    episode = [result for _, result in play(env, seed)]
    for result in episode:
        _check_result(env, result)
    for i, earlier in enumerate(episode):
        for later in episode[i + 1 : i + 3]:
            shared = any(np.shares_memory(a, b) for a in arrays(earlier) for b in arrays(later))
            assert not shared, "arrays of one call are used again by the next; return copies"
    ended = sum((terminated | truncated).astype(int) for _, _, terminated, truncated, _ in episode)
    assert (ended == 1).all(), f"of each row one episode should end, but of the rows {ended} did"
    again = [result for _, result in play(make_env(num_envs), seed)]
    assert data_equivalence(episode, again, exact=True), "equal seeds give unequal episodes"
    seeds: Any = [seed + row for row in range(num_envs)]
    one_by_one, _ = env.reset(seed=seeds)
    assert equal(one_by_one, episode[0][0]), "seed and a list of seed + row differ"

    done = list(play(env, seed))[-1][1]
    options = {"reset_mask": np.arange(num_envs) == 0}
    observation, info = env.reset(options=options)
    assert list(options) == ["reset_mask"], "reset changes the options it is given"
    others = [[x[1:] for x in arrays(part)] for part in (observation, done[0])]
    assert equal(others[0], others[1]), "reset_mask changes observations of rows it does not name"
    assert not row_info(info, 1), "reset_mask tells infos of rows it does not name"
    after = env.step(env.action_space.sample())
    others = [[x[1:] for x in arrays(part)] for part in (after[0], done[0])]
    same = equal(others[0], others[1])
    assert same, "a step changes rows that are over, or reset_mask starts others"
    assert not after[1][1:].any(), "a step rewards rows that are over"
    assert not (after[2] | after[3])[1:].any(), "rows that are over are told so once more"


def play(env: AnyVectorEnv, seed: int) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Random actions and what they give, from the reset until every row is done."""
    env.action_space.seed(seed)
    n = env.num_envs
    observation, info = env.reset(seed=seed)
    yield None, (observation, np.zeros(n), np.zeros(n, dtype=bool), np.zeros(n, dtype=bool), info)
    over = np.zeros(n, dtype=bool)
    for _ in range(_MOST_STEPS):
        action = env.action_space.sample()
        result = env.step(action)
        yield action, result
        over |= result[2] | result[3]
        if over.all():
            return


def _check_result(env: VectorEnv[Any, Any, Any], result: tuple[Any, ...]) -> None:
    observation, reward, terminated, truncated, info = result
    assert observation in env.observation_space, "an observation is outside its space"
    for name, value in (("reward", reward), ("terminated", terminated), ("truncated", truncated)):
        kind = np.float64 if name == "reward" else np.bool_
        right = isinstance(value, np.ndarray) and value.dtype == kind
        assert right and value.shape == (env.num_envs,), f"{name} is no {kind} array of the rows"
    assert np.isfinite(reward).all(), "a reward is not finite"
    for name, value in info.items():
        mask = info.get(name if name.startswith("_") else f"_{name}")
        right = isinstance(mask, np.ndarray) and mask.dtype == bool
        assert right and mask.shape == (env.num_envs,), f"info {name!r} has no mask of the rows"
        assert len(value) == env.num_envs, f"info {name!r} does not have one entry per row"


def one_row(result: tuple[Any, ...], row: int) -> tuple[Any, ...]:
    """What a vector environment tells of a row, as a single one would."""
    return _row(result[0], row), *(x[row] for x in result[1:4]), row_info(result[4], row)


def _row(observation: Any, row: int) -> Any:
    if isinstance(observation, Mapping):
        return {name: _row(value, row) for name, value in observation.items()}
    return observation[row]


def row_info(info: dict[str, Any], row: int) -> dict[str, Any]:
    return {k: v[row] for k, v in info.items() if not k.startswith("_") and info[f"_{k}"][row]}


def equal(one: Any, other: Any, atol: float = 0.0) -> bool:
    """Whether two results are the same, in their types too; real numbers may differ by `atol`."""
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(equal(one[k], other[k], atol) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(
            equal(a, b, atol) for a, b in zip(one, other, strict=True)
        )
    a, b = np.asarray(one), np.asarray(other)
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype == object and a.ndim:  # of rows: texts, or what was observed last
        return all(equal(x, y, atol) for x, y in zip(a, b, strict=True))
    if a.dtype.kind == "f" and atol:
        return bool(np.allclose(a, b, rtol=0, atol=atol))
    return bool(np.array_equal(a, b))


def arrays(value: Any) -> Iterator[np.ndarray[Any, Any]]:
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, (Mapping, tuple)):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from arrays(part)
