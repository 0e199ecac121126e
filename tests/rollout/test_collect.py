"""Episodes through a vector environment, also where the environment speaks in between."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import (
    VectorActionWrapper,
    VectorObservationWrapper,
    VectorRewardWrapper,
    VectorWrapper,
)
from gymnasium.wrappers.vector import DictInfoToList, NormalizeReward, RecordEpisodeStatistics
from torch.testing import assert_close

from latentgym import registry
from latentgym.data import Question
from latentgym.envs import Demonstration, Task, ToolCall
from latentgym.episodes.protocol import Budget, Protocol, StopMatcher
from latentgym.errors import UsageError
from latentgym.heads import GatedHead, MixtureHead, MultiTokenHead, PolicyHead, TokenHead
from latentgym.registry import make_vector_env
from latentgym.rewards import Grade
from latentgym.rollout import (
    Engine,
    Episodes,
    Policy,
    PrefixCache,
    StepKind,
    collect,
    collect_in_batches,
    replay,
)
from latentgym.testing import EnvConformance
from latentgym.text.tokenizers import ByteTokenizer


def marker(every: int, rest: int) -> StopMatcher:
    return StopMatcher("#", ["#" if i % every == rest else "a" for i in range(259)])


class Asking(Task):
    """A task that is asked back every few thoughts: one id in five is a call."""

    name, source, dataset_hash, licence = "Asking", "generated", "0" * 16, "none"
    split, prompt_budget = "test", 16

    def __init__(self, name: str, family: Any, tokenizer: Any, options: Any) -> None:
        super().__init__(family, ByteTokenizer())
        self.think = options.get("think", 10)

    def __len__(self) -> int:
        return 5

    def question(self, index: int) -> Question:
        return Question("why? " * (1 + index % 3), str(index))

    def prompt(self, index: int) -> list[int]:
        return self.tokenizer.encode(self.question(index).text)

    def protocol(self) -> Protocol:
        return Protocol(
            think=Budget(self.think),
            answer=Budget(4),
            marker=marker(20, 0),
            tool_call=marker(5, 1),
            max_tool_response=3,
            eos=tuple(range(4, 259, 20)),
            forced_prompt=(65,),
        )

    def tool_responses(self, calls: Sequence[ToolCall]) -> list[list[int]]:
        """One to three bytes that depend on all that was said."""
        return [[97 + call.index] * (1 + len(call.text) % 3) for call in calls]

    def grade(self, index: int, completion: str, answer: str) -> Grade:
        score = len(completion) % 7 / 7
        if completion == str(index):
            score = 1.0
        elif completion in ("", "\ufffd no idea \x00 ####"):
            score = 0.0
        return Grade(score, answer, "ok", {"correct": score, "length": float(len(completion))})

    def demonstration(self, index: int) -> Demonstration:
        return Demonstration.of_tokens([20, 48 + index, 4], thoughts=1)

    def gold_completion(self, index: int) -> tuple[str, str]:
        return str(index), str(index)


@pytest.fixture(scope="module", autouse=True)
def asking(registered: Callable[..., Any]) -> Iterator[None]:
    """The task, registered as a user would."""
    with registered("Asking", Asking):
        yield


class TestAskingToken(EnvConformance):
    env_id = "latent/Asking-token"


class TestAskingContinuous(EnvConformance):
    env_id = "latent/Asking-continuous"


QUESTIONS, G = [3, 0, 4], 4


HEADS: dict[str, Callable[[], PolicyHead]] = {
    "token": TokenHead,
    "hybrid": lambda: GatedHead(32, TokenHead()),
    "continuous": lambda: MultiTokenHead(3),
}


@pytest.fixture(params=HEADS)
def setting(request: pytest.FixtureRequest, random_lm: Callable) -> tuple[Engine, str]:
    head = HEADS[request.param]()
    engine = Engine(Policy(random_lm("llama"), head), compact_every=2, record_log_probs=True)
    return engine, f"latent/Asking-{request.param}"


def collected(engine: Engine, env_id: str, rows: int = 12, **options: Any) -> Episodes:
    env = make_vector_env(env_id, rows)
    return collect(engine, env, QUESTIONS, group_size=G, seed=2, **options)


def test_what_cannot_be_collected_is_told(random_lm: Callable) -> None:
    engine = Engine(Policy(random_lm("llama"), TokenHead()))
    apart = gym.vector.SyncVectorEnv([lambda: gym.make("latent/GSM8K-token", source="sample")] * 2)
    with pytest.raises(UsageError, match="make it with latentgym"):
        collect(engine, apart, [0, 1], seed=0)
    env = make_vector_env("latent/GSM8K-token", 2, source="sample")
    with pytest.raises(UsageError, match="no question to collect"):
        collect(engine, env, [], seed=0)


def test_collecting_is_stepping_a_single_environment_by_hand(setting: tuple[Engine, str]) -> None:
    engine, env_id = setting
    episodes = collected(engine, env_id)
    rollouts, calls = episodes.rollouts, 0
    env = gym.make(env_id).unwrapped
    for row in range(12):
        env.reset(options={"index": QUESTIONS[row // G]})
        expected: list[int] = []
        for token in rollouts.action_tokens(row):
            observation, reward, terminated, truncated, info = env.step_segment([token])
            inserted = observation["inserted"][: observation["inserted_length"]].tolist()
            calls += bool(inserted) and inserted[0] != 65
            expected += [int(token), *inserted]
        assert rollouts.tokens(row).tolist() == expected
        assert (terminated, truncated) == (rollouts.terminated_N[row], rollouts.truncated_N[row])
        assert (reward, info) == (episodes.reward_N[row], episodes.infos[row])
        assert info["index"] == QUESTIONS[row // G]
    assert calls > 5
    assert episodes.component("reward/length").tolist() == [
        len(info["completion"]) for info in episodes.infos
    ]


def test_turns_replay_exactly(setting: tuple[Engine, str]) -> None:
    engine, env_id = setting
    rollouts = collected(engine, env_id).rollouts
    assert (rollouts.kind_NT == StepKind.INSERTED).any()
    with torch.no_grad():
        scores = replay(engine.policy, rollouts)
    assert rollouts.logp_NT is not None
    expected = torch.where(scores.action_NT, rollouts.logp_NT, 0.0)
    assert_close(scores.logp_NT, expected, rtol=1e-4, atol=1e-4)


def test_turns_of_a_row_do_not_depend_on_the_others(setting: tuple[Engine, str]) -> None:
    engine, env_id = setting
    together = collected(engine, env_id).rollouts
    env = make_vector_env(env_id, 1)
    for row in (0, 5, 11):
        alone = collect(engine, env, [QUESTIONS[row // G]], seed=2, first_sample=row % G).rollouts
        assert alone.tokens(0).tolist() == together.tokens(row).tolist()
        assert alone.kind_NT[0].tolist() == together.select([row]).kind_NT[0].tolist()


def test_rows_that_are_not_needed_stay_idle(setting: tuple[Engine, str]) -> None:
    engine, env_id = setting
    few, many = collected(engine, env_id), collected(engine, env_id, rows=20)
    assert few.infos == many.infos
    assert few.reward_N.tolist() == many.reward_N.tolist()


def test_batches_cover_all_questions_and_change_nothing(setting: tuple[Engine, str]) -> None:
    engine, env_id = setting
    env = make_vector_env(env_id, 2 * G)
    batches = collect_in_batches(engine, env, QUESTIONS, group_size=G, seed=2)
    infos: dict[int, Any] = {}
    for places, episodes in batches:
        infos |= {int(p): episodes.infos[i * G : (i + 1) * G] for i, p in enumerate(places)}
    whole = collected(engine, env_id).infos
    assert [info for place in range(3) for info in infos[place]] == whole


def test_episodes_put_together(setting: tuple[Engine, str]) -> None:
    episodes = collected(*setting)
    twice = Episodes.concatenate([episodes, episodes])
    assert twice.infos == episodes.infos * 2
    assert twice.reward_N.tolist() == episodes.reward_N.tolist() * 2
    assert len(twice.rollouts) == 24


@pytest.mark.parametrize("family", ["token", "hybrid"])
@pytest.mark.parametrize("reads", [False, True])
def test_begun_episodes_are_those_that_begin_so_by_themselves(
    family: str, reads: bool, random_lm: Callable
) -> None:
    """Also where the environment responds before the given tokens end: those are sampled anew."""
    lm = random_lm("llama")
    engine = Engine(Policy(lm, TokenHead()), compact_every=2)
    env = make_vector_env(f"latent/Asking-{family}", len(QUESTIONS) + 1)
    chain = collect(engine, env, QUESTIONS, seed=4)
    assert chain.rollouts.kind_NT[:, 1:6].max() == StepKind.INSERTED  # it is asked early
    prefix_cache = PrefixCache(lm) if reads else None
    for cut in (0, 1, 2, 4, 30):
        prefix = [chain.rollouts.action_tokens(row)[:cut].tolist() for row in range(len(QUESTIONS))]
        found = collect(engine, env, QUESTIONS, seed=4, prefix=prefix, prefix_cache=prefix_cache)
        assert found.infos == chain.infos
        assert found.reward_N.tolist() == chain.reward_N.tolist()
        assert found.rollouts.token_NT.tolist() == chain.rollouts.token_NT.tolist()
        assert found.rollouts.kind_NT.tolist() == chain.rollouts.kind_NT.tolist()


def test_samples_and_prompts_of_each_question(random_lm: Callable) -> None:
    engine = Engine(Policy(random_lm("llama"), TokenHead()))
    env = make_vector_env("latent/Asking-token", 3)
    prompts = [[70, 71], [72], [73, 74, 75]]
    first = np.array([3, 0, 1])
    together = collect(engine, env, QUESTIONS, seed=4, first_sample=first, prompts=prompts)
    assert together.rollouts.prompts == prompts
    for row, question in enumerate(QUESTIONS):
        alone = collect(
            engine, env, [question], seed=4, first_sample=int(first[row]), prompts=[prompts[row]]
        )
        assert alone.infos == [together.infos[row]]


def test_positions_of_waiting_rows_are_counted(random_lm: Callable) -> None:
    engine = Engine(Policy(random_lm("llama"), MixtureHead()), compact_every=0)
    rules = Protocol(think=Budget(3), answer=Budget(1, exact=True), tool_call=marker(1, 0))
    session = engine.start([[5], [6]], rules, seed=0)
    session.run()
    assert session.waiting.tolist() == [0, 1]
    session.insert(np.array([0]), [[7, 8]])
    assert session.discarded == 2  # the other row was carried along
    assert session.waiting.tolist() == [1]


def test_rows_may_be_answered_one_after_the_other(random_lm: Callable) -> None:
    rules = Protocol(think=Budget(3), answer=Budget(4, exact=True), tool_call=marker(1, 0))
    tool_responses = [[7, 8, 9], [11]]

    def rolled(*turns: list[int]) -> list[list[int]]:
        session = Engine(Policy(random_lm("llama"), MixtureHead())).start([[5], [6]], rules, seed=0)
        session.run()
        for rows in turns:
            session.insert(np.array(rows), [tool_responses[row] for row in rows])
        session.run()
        for row in session.waiting:
            session.insert(np.array([row]), [[3]])
        session.run()
        return [session.finish().tokens(row).tolist() for row in range(2)]

    together = rolled([0, 1])
    assert rolled([0], [1]) == together
    assert rolled([1], [0]) == together


def test_too_long_a_reply_is_refused(random_lm: Callable) -> None:
    engine = Engine(Policy(random_lm("gpt2"), MixtureHead()))
    rules = Protocol(think=Budget(3), answer=Budget(1), tool_call=marker(1, 0))
    session = engine.start([[5] * 1000], rules, seed=0)
    session.run()
    with pytest.raises(UsageError, match=r"with 30 inserted tokens .* 1034 positions"):
        session.insert(session.waiting, [[7] * 30])
    session.insert(session.waiting, [[7] * 20])  # 1000 + 4 + 20 fit exactly


def test_a_taken_name_is_refused() -> None:
    with pytest.raises(UsageError, match="a task 'Asking' already"):
        registry.register_task("Asking", "asking:make")


# Environments with wrappers around them.


class PerStep(VectorRewardWrapper[Any, Any, Any]):
    """Something for every step, ten for the answer, and an info of its own."""

    def step(self, actions: Any) -> Any:
        observation, reward, terminated, truncated, info = self.env.step(actions)
        info = {**info, "reward/style": np.full(self.num_envs, 2.0)}
        return observation, 10 * reward - 0.25, terminated, truncated, info


class Noisy(VectorActionWrapper[Any, Any, Any, Any]):
    def actions(self, actions: Any) -> Any:
        return (actions + 1) % 259


class Blind(VectorObservationWrapper[Any, Any, Any, Any]):
    def observations(self, observations: Any) -> Any:
        return {**observations, "prompt": 0 * observations["prompt"]}


class Narrow(VectorObservationWrapper[Any, Any, Any, Any]):
    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.single_observation_space = env.single_observation_space["prompt"]

    def observations(self, observations: Any) -> Any:
        return observations["prompt"]


class Impatient(VectorWrapper[Any, Any, Any, Any, Any]):
    def step(self, actions: Any) -> Any:
        observation, reward, terminated, truncated, info = self.env.step(actions)
        return observation, reward, terminated, np.ones_like(truncated), info


class OtherQuestions(VectorWrapper[Any, Any, Any, Any, Any]):
    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return self.env.reset(seed=seed, options={**options, "index": 3})


WATCHING = [
    RecordEpisodeStatistics,
    DictInfoToList,
    lambda env: DictInfoToList(RecordEpisodeStatistics(PerStep(env))),
    lambda env: PerStep(NormalizeReward(env)),
]


@pytest.mark.parametrize("wrap", WATCHING)
def test_wrappers_change_rewards_and_infos_and_nothing_else(
    wrap: Callable[[Any], Any], setting: tuple[Engine, str]
) -> None:
    engine, env_id = setting
    shape = {"group_size": 2, "seed": 3}
    plain = collect(engine, make_vector_env(env_id, 9), QUESTIONS, **shape)
    seen = collect(engine, wrap(make_vector_env(env_id, 9)), QUESTIONS, **shape)
    assert seen.rollouts.token_NT.tolist() == plain.rollouts.token_NT.tolist()
    assert seen.rollouts.kind_NT.tolist() == plain.rollouts.kind_NT.tolist()
    for row, (info, other) in enumerate(zip(plain.infos, seen.infos, strict=True)):
        assert info.items() <= other.items()
        assert other["return"] == seen.reward_N[row]
        json.dumps(other)


def test_wrappers_see_every_step_of_every_episode_once(setting: tuple[Engine, str]) -> None:
    engine, env_id = setting
    counted = RecordEpisodeStatistics(PerStep(make_vector_env(env_id, 7)))
    for first in (0, 2):
        episodes = collect(engine, counted, QUESTIONS, group_size=2, seed=3, first_sample=first)
        for row, info in enumerate(episodes.infos):
            steps = len(episodes.rollouts.action_tokens(row))
            paid = 10 * info["score"] - 0.25 * steps
            assert info["episode"]["l"] == steps
            assert info["return"] == episodes.reward_N[row] == pytest.approx(paid)
            assert info["episode"]["r"] == pytest.approx(paid)
            assert info["reward/style"] == 2
    assert counted.episode_count == 2 * len(episodes.infos)


@pytest.mark.parametrize(
    ("wrap", "says"),
    [
        (Noisy, "change actions"),
        (Blind, "change observations"),
        (Narrow, "change the single_observation_space"),
        (lambda env: DictInfoToList(Narrow(env)), "change the single_observation_space"),
        (Impatient, "end episodes"),
        (OtherQuestions, "ask other questions"),
    ],
)
def test_wrappers_that_cannot_be_honoured_are_refused(
    wrap: Callable[[Any], Any], says: str, random_lm: Callable
) -> None:
    engine = Engine(Policy(random_lm("llama"), TokenHead()))
    with pytest.raises(UsageError, match=f"{says}.*, but the rollout engine has read"):
        collect(engine, wrap(make_vector_env("latent/Asking-token", 3)), QUESTIONS, seed=0)


@pytest.mark.parametrize("wrap", [lambda env: env, RecordEpisodeStatistics])
@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_environments_that_reset_themselves_are_refused(
    wrap: Callable[[Any], Any], mode: str, random_lm: Callable
) -> None:
    env = gym.make_vec("latent/Asking-token", num_envs=3, autoreset_mode=mode)
    with pytest.raises(UsageError, match="autoreset_mode='Disabled'"):
        collect(Engine(Policy(random_lm("llama"), TokenHead())), wrap(env), QUESTIONS, seed=0)
