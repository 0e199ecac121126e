"""What an environment with a model inside does, and what it refuses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import vector as wrappers
from torch.testing import assert_close

from latentgym.cli.main import main
from latentgym.episodes.protocol import Phase
from latentgym.errors import ActionError, LatentGymError, OptionError, UsageError
from latentgym.heads import TokenHead
from latentgym.lm import load_model
from latentgym.registry import make_vector_env
from latentgym.rollout import Policy
from latentgym.text.tokenizers import SymbolTokenizer
from latentgym.training import checkpoint
from latentgym.training.manifest import find
from latentgym.wrappers import LatentDynamics

TINY = "tiny:gpt2:1x2x16"
SHORT: dict[str, Any] = {
    "source": "sample",
    "think": 4,
    "answer": 3,
    "force_answer": True,
    "exact_thoughts": True,  # so that no random token ends thinking
}
ENV = "latent/GSM8K-continuous"


def made(n: int = 3, env_id: str = ENV, dynamics: Any = TINY, **options: Any) -> Any:
    return gym.make_vec(env_id, num_envs=n, dynamics=dynamics, **{**SHORT, **options})


def test_what_is_seen_is_what_the_model_knows() -> None:
    env = made(k=5)
    observation, _ = env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(3):
        hidden_ND = torch.from_numpy(observation["hidden"]) * env.hidden_scale
        logp_NV = env.lm.logits(hidden_ND).log_softmax(-1)
        top_Nk, ids_Nk = logp_NV.topk(5)
        assert_close(torch.from_numpy(observation["log_probs"]), top_Nk, rtol=1e-3, atol=1e-3)
        assert (observation["tokens"] == ids_Nk.numpy()).mean() > 0.9  # but for ties
        observation, *_ = env.step(env.action_space.sample())
    assert observation["steps_left"].ravel().tolist() == [0.25] * 3
    assert 0.2 < np.sqrt(np.square(observation["hidden"]).mean()) < 5


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    def seen(noise: int) -> list[Any]:
        env = made(4, autoreset_mode="SameStep", interface="latent", observe=["hidden"])
        generator, others = np.random.default_rng(0), np.random.default_rng(noise)
        env.reset(seed=[7, noise, noise + 1, noise + 2])
        told = []
        for _ in range(12):
            actions = others.uniform(-1, 1, (4, 16))
            actions[0] = generator.uniform(-1, 1, 16)
            observation, reward, *_, info = env.step(actions.astype(np.float32))
            told.append((observation["hidden"][0], reward[0], info["question"][0]))
        return told

    for (one, *rest), (other, *others) in zip(seen(1), seen(2), strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-4)
        assert rest == others


def test_wrappers_of_gymnasium_go_around_it() -> None:
    env = wrappers.RecordEpisodeStatistics(made(2))
    env = wrappers.NormalizeReward(env)
    env = wrappers.FlattenObservation(
        wrappers.FilterObservation(env, ["hidden", "log_probs", "steps_left"])
    )
    env = wrappers.TransformObservation(env, lambda x: x * 2)
    observation, _ = env.reset(seed=0)
    assert observation.shape == (2, 16 + 8 + 1) and observation.dtype == np.float32
    lengths = []
    for _ in range(9):
        *_, info = env.step(env.action_space.sample())
        if "episode" in info:
            lengths += info["episode"]["l"][info["_episode"]].tolist()
    assert lengths and set(lengths) == {4}


def test_the_agent_answers_token_by_token() -> None:
    env = made(1, "latent/GSM8K-token", interface="token", answered_by="agent", k=259)
    env.reset(seed=0)
    for _ in range(4):
        env.step(np.array([0]))
    assert env.episodes.state.phase[0] == Phase.ANSWER
    said = []
    for _ in range(3):
        token = b"7 \n"[len(said)]
        place = int(np.flatnonzero(env.observe()["tokens"][0] == token)[0])
        *_, info = env.step(np.array([place]))
        said.append(token)
    assert info["answer"][0] == "7 \n"


def test_an_environment_without_thoughts_answers_at_once() -> None:
    env = made(2, think=0)
    observation, _ = env.reset(seed=0)
    assert observation["phase"].tolist() == [Phase.ANSWER] * 2
    *_, terminated, truncated, info = env.step(env.action_space.sample())
    assert (terminated | truncated).all() and info["answer"][0] is not None


def test_the_model_stays_as_it_is() -> None:
    env = make_vector_env(ENV, 2, **SHORT).unwrapped
    lm = load_model(TINY, tokenizer=env.task.tokenizer).train()
    before = {name: x.clone() for name, x in lm.state_dict().items()}
    inside = LatentDynamics(env, lm)
    inside.reset(seed=0)
    for _ in range(4):
        inside.step(inside.action_space.sample())
    assert lm.training and all(torch.equal(before[k], x) for k, x in lm.state_dict().items())
    assert not env._started  # episodes of its own


def test_shaping_adds_up_to_what_the_first_and_last_state_are_worth() -> None:
    env = made(3, shaping=0.5, autoreset_mode="Disabled")
    env.reset(seed=0)
    start_N = env._shaping._potential_N.copy()
    # By hand: the right answer behind the forced prompt.
    row, index = 1, int(env.episodes.index_N[1])
    shown = env.task.demonstration(index)
    gold = shown.ids_TS[shown.thoughts :, 0].tolist()
    read = [*env.episodes.prompt(row), *env.protocol.forced_prompt]
    with env.lm.decoding():
        ids = torch.tensor([read + gold])
        hidden_TD = env.lm.hidden(env.lm.embed(ids), torch.ones_like(ids, dtype=torch.bool))[0]
        logp_TV = env.lm.logits(hidden_TD).log_softmax(-1)
    at = torch.arange(len(read) - 1, len(read) + len(gold) - 1)
    assert abs(float(logp_TV[at, gold].mean()) - start_N[row]) < 1e-4
    total = np.zeros(3)
    for _ in range(4):
        *_, infos = (result := env.step(env.action_space.sample()))
        total += result[1]
    assert infos["oracle"].all()
    shaped = infos["reward/shaping"].astype(float)
    assert_close(total, shaped + infos["score"].astype(float))
    assert_close(shaped, 0.5 * (env._shaping._potential_N - start_N))
    assert np.abs(shaped).min() > 0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training run with options of its own."""
    out = tmp_path_factory.mktemp("runs") / "mnns"
    argv = ["train", "cot", "latent/MNNS-token", "--preset", "sft-tiny", "--model", TINY]
    argv += ["-o", "m=3", "-o", "arrow=true", "--steps", "2", "--out", str(out)]
    assert main(argv) == 0
    return out


def test_a_run_of_ours_is_a_model_inside(run: Path) -> None:
    env = gym.make_vec("latent/MNNS-continuous", num_envs=2, dynamics=str(run))
    fresh = load_model(TINY, tokenizer=env.task.tokenizer)
    policy = Policy(fresh, TokenHead())
    checkpoint.load(find(run), policy)
    for name, weight in policy.lm.state_dict().items():
        assert torch.equal(env.lm.state_dict()[name], weight), name
    trained = gym.make_vec("latent/MNNS-continuous", num_envs=2, m=3, arrow=True)
    assert env.unwrapped.prompt(0) == trained.unwrapped.prompt(0)  # prompts as it was trained with
    assert gym.make("latent/MNNS-continuous", dynamics=str(run)).reset(seed=0)[0]["hidden"].any()
    with pytest.raises(LatentGymError, match="it was trained on latent/MNNS-token"):
        gym.make("latent/ProsQA-continuous", dynamics=str(run))


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"k": 300}, UsageError, "k = 300 likeliest tokens .* vocabulary of 259"),
        ({"k": 0}, UsageError, "k of GSM8K .* a whole number from 1"),
        ({"interface": "mixtur"}, UsageError, "is 'mixture', .* or none.*; did you mean 'mixture'"),
        ({"interface": 7}, UsageError, "interface of .* is 'mixture', .* or none, not 7"),
        ({"interfce": "mixture"}, OptionError, "'interfce'; did you mean 'interface'. Its options"),
        ({"zzzz": 1}, OptionError, "its options are answer, answered_by.* interface,.* split"),
        ({"observe": ["hiden"]}, UsageError, "no entry 'hiden'; did you mean 'hidden'"),
        ({"observe": []}, UsageError, "observe is a list of entries"),
        ({"observe": [1]}, UsageError, "observe of .* is a list"),
        ({"observe": [["hidden"]]}, UsageError, "observe of .* is a list"),
        ({"rank": 17, "interface": "latent"}, UsageError, "choose rank <= 16"),
        ({"dynamics": "tinny"}, UsageError, "did you mean 'tiny'"),
        ({"dynamics": "/nowhere/at/all"}, UsageError, "there is no folder"),
        ({"dynamics": 3}, UsageError, "dynamics is the name of a model, .* not"),
        ({"dynamics": None, "interface": "token"}, OptionError, "with dynamics="),
        ({"shaping": -1.0}, UsageError, "shaping of .* from 0"),
        ({"prompt_budget": 1 << 20, "think": 3000}, UsageError, "but the model has 1024"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_lost(
    options: dict[str, Any], error: type[Exception], says: str
) -> None:
    given = {"dynamics": TINY, **options}
    with pytest.raises(error, match=says):
        made(2, **given).reset(seed=0)
    assert issubclass(error, LatentGymError)


def test_a_model_of_another_vocabulary() -> None:
    env = make_vector_env(ENV, 2, **SHORT).unwrapped
    other = SymbolTokenizer(["<pad>", "<bos>", "<eos>", "a"])
    with pytest.raises(UsageError, match="has 4 tokens, but GSM8K is asked in 259 of bytes"):
        LatentDynamics(env, load_model(TINY, tokenizer=other))


def test_actions_that_cannot_be_and_steps_behind_the_end() -> None:
    env = made(2, autoreset_mode="Disabled")
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros((2, 8)))
    env.reset(seed=0)
    ragged, graded = [[0.0] * 8, [0.0] * 7], torch.zeros(2, 8, requires_grad=True)
    half, parts = torch.zeros(2, 8, dtype=torch.bfloat16), {"ids": np.zeros((2, 8))}
    for action in (np.zeros(8), np.zeros((3, 8)), parts, None, ragged, graded, half, {"a": ragged}):
        with pytest.raises(ActionError):
            env.step(action)
    with pytest.raises(ActionError, match="row 1 holds NaN"):
        env.step(np.array([[0.0] * 8, [np.nan] * 8]))
    for _ in range(4):  # nothing of that counted
        result = env.step(np.zeros((2, 8)))
    assert (result[2] | result[3]).all()
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros((2, 8)))
    with pytest.raises(UsageError, match="one action at a time"):
        env.step_segment([[1], [2]])


def test_only_around_an_environment_of_ours(random_lm: Callable[..., Any]) -> None:
    wrapped = wrappers.NormalizeReward(make_vector_env(ENV, 2, **SHORT))
    for env in (wrapped, gym.make_vec("CartPole-v1", num_envs=2), made(2)):
        with pytest.raises(UsageError, match="without wrappers"):
            LatentDynamics(env, random_lm())


def test_more_rows_than_there_is_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentgym.lm.memory.free_bytes", lambda device: 10**6)
    env = made(64)
    with pytest.raises(UsageError, match=r"64 rows .* may take 0.0 GB on cpu, .* make fewer rows"):
        env.reset(seed=0)
    made(1, think=1, answer=1).reset(seed=0)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_rows_that_could_not_begin_are_over(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    env, actions = made(2, autoreset_mode=mode), np.zeros((2, 8))
    with monkeypatch.context() as patch:
        patch.setattr("latentgym.lm.memory.free_bytes", lambda device: 1)
        with pytest.raises(UsageError, match="may take"):
            env.reset(seed=0)
        assert env.episodes.state.done.all()
        with pytest.raises(gym.error.ResetNeeded):
            env.envs[0].step(actions[0])
    env.reset(options={"reset_mask": np.array([True, False])})  # there is room by now
    env.step(actions)
    assert env.episodes.state.done[1] == (mode != "NextStep")


def test_what_there_is_no_room_for_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    env = made(2)
    env.reset(seed=0)
    monkeypatch.setattr("latentgym.lm.memory.free_bytes", lambda device: 10**5)
    with env.lm.decoding(), pytest.raises(UsageError, match="2 rows of 1001 positions"):
        env._decoder.start(np.arange(2), [[1], [1]], 1000)
    env.reset(seed=0)


def test_a_reset_of_no_row_is_none() -> None:
    env = made(2)
    before, _ = env.reset(seed=0)
    after, infos = env.reset(options={"reset_mask": np.zeros(2, dtype=bool)})
    assert not infos and all(np.array_equal(before[name], after[name]) for name in before)


def test_another_has_episodes_and_rewards_of_its_own() -> None:
    def shaped(disturbed: bool) -> Any:
        env = made(2, shaping=1.0)
        env.reset(options={"index": [0, 1]})
        if disturbed:
            other = env.unwrapped.another()
            other.reset(options={"index": [2, 3]})
            other.step(np.ones((2, 8)))
        return env.step(np.zeros((2, 8)))[1]

    assert_close(shaped(True), shaped(False))


@pytest.mark.parametrize("name", ["hidden_scale", "lm"])
def test_what_belongs_to_a_controller_is_found_where_gymnasium_looks(name: str) -> None:
    env = made(2)
    assert [row.get_wrapper_attr(name) for row in env.envs] == [getattr(env.unwrapped, name)] * 2
    alone = gym.make(ENV, dynamics=TINY, **SHORT)
    assert alone.get_wrapper_attr(name) is not None and getattr(alone.unwrapped, name)
    assert env.get_attr("hidden_scale") == (env.unwrapped.hidden_scale,) * 2
    for plain in (gym.make(ENV, **SHORT), gym.make_vec(ENV, num_envs=2, **SHORT).envs[0]):
        assert not plain.has_wrapper_attr(name)


def test_threads_that_share_a_model_take_turns() -> None:
    env = make_vector_env("latent/MNNS-continuous", 2).unwrapped
    # With dropout, which training mode turns on, and weights large enough to be packed.
    lm = load_model("tiny:llama:1x2x256", tokenizer=env.task.tokenizer).train()
    inside = LatentDynamics(env, lm)

    def hidden(mine: Any) -> Any:
        seen = []
        for _ in range(8):
            mine.reset(options={"index": [0, 1]})
            seen.append(mine.step(np.zeros((2, 8)))[0]["hidden"])
        return seen

    expected = hidden(inside)[0]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(3) as pool:
            told = list(pool.map(hidden, [inside, inside.another(), LatentDynamics(env, lm)]))
    finally:
        sys.setswitchinterval(before)
    for seen in (x for each in told for x in each):
        assert_close(seen, expected, rtol=1e-3, atol=1e-3)
    assert lm.training and all(part.training for part in lm.modules())
