"""Wrappers that watch an episode change nothing of it; those of actions give its family's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

from latentgym.errors import ActionError, UsageError
from latentgym.wrappers import BoxMixture, EpisodeStatistics, FlatHybrid, RecordTranscripts


def play(env: Any, index: int, right: bool) -> tuple[float, dict[str, Any]]:
    _, info = env.reset(options={"index": index})
    encode = env.unwrapped.task.tokenizer.encode
    (answer,) = encode(info["target"])
    result: Any = None
    for token in [answer] * 3 + [answer if right else 0]:
        result = env.step(token)
    return result[1], result[4]


def test_transcripts_hold_a_line_per_episode(tmp_path: Path) -> None:
    path = tmp_path / "new" / "episodes.jsonl"
    env = RecordTranscripts(gym.make("latent/MNNS-token"), str(path))
    finals = [play(env, index, index == 1)[1] for index in range(3)]
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert lines == finals
    assert [line["score"] for line in lines] == [0, 1, 0]
    env.reset()
    env.step(0)
    assert len(path.read_text().splitlines()) == 3  # an unfinished episode is not recorded


def test_statistics_are_means_over_episodes() -> None:
    env = EpisodeStatistics(gym.make("latent/MNNS-token"))
    rewards = [play(env, index, index % 2 == 0) for index in range(4)]
    assert [reward for reward, _ in rewards] == [1, 0, 1, 0]
    means = [info["episode_means"] for _, info in rewards]
    assert [m["score"] for m in means] == [1, 1 / 2, 2 / 3, 1 / 2]
    assert means[3]["reward/correct"] == 1 / 2
    assert means[3]["thoughts"] == 3 and means[3]["tokens"] == 1 and means[3]["truncated"] == 0


def test_wrappers_survive_a_spec(tmp_path: Path) -> None:
    env = EpisodeStatistics(
        RecordTranscripts(gym.make("latent/MNNS-token"), str(tmp_path / "a.jsonl"))
    )
    assert env.spec is not None
    again = gym.make(env.spec)
    assert play(again, 0, True)[1]["episode_means"]["score"] == 1
    assert (tmp_path / "a.jsonl").exists()


# Actions as one Box.


@pytest.mark.parametrize(("family", "wrap"), [("continuous", BoxMixture), ("hybrid", FlatHybrid)])
def test_any_point_of_the_box_is_an_action_of_the_family(family: str, wrap: Any) -> None:
    env = wrap(gym.make(f"latent/MNNS-{family}"))
    inner = env.env.action_space
    space = env.action_space
    assert space.dtype == np.float32 and (space.low == -1).all() and (space.high == 1).all()
    space.seed(0)
    for box in (*(space.sample() for _ in range(50)), space.low, space.high, 0 * space.low):
        assert env.action(box) in inner
    # What a Gaussian policy draws outside of the box counts as its border.
    np.testing.assert_equal(env.action(9 * space.high), env.action(space.high))
    for bad in (space.low[1:], np.full(space.shape, np.nan), np.zeros((1, *space.shape))):
        env.reset(seed=0)
        with pytest.raises(ActionError, match="finite numbers"):
            env.step(bad)


@pytest.mark.parametrize("scale", [1e-300, 1e30, float(np.finfo(np.float32).max)])
@pytest.mark.parametrize(("family", "wrap"), [("continuous", BoxMixture), ("hybrid", FlatHybrid)])
def test_any_scale_makes_actions_that_the_environment_takes(
    family: str, wrap: Any, scale: float
) -> None:
    env = wrap(gym.make(f"latent/MNNS-{family}"), scale=scale)
    env.reset(seed=0)
    env.step(np.linspace(-1, 1, env.action_space.shape[0]))


def test_logits_make_a_superposition() -> None:
    env = BoxMixture(gym.make("latent/MNNS-continuous", support=3), scale=2.0)
    logits = np.full(89, -1.0, dtype=np.float32)
    logits[[7, 3, 50]] = 1.0, 0.5, 0.25
    action = env.action(logits)
    assert action["ids"].tolist() == [7, 3, 50]
    expected = np.exp([2.0, 1.0, 0.5])
    np.testing.assert_allclose(action["weights"], expected / expected.sum(), rtol=1e-6)
    logits[3] = 1.0
    assert env.action(logits)["ids"].tolist() == [3, 7, 50]


def test_scores_latents_and_gates_lie_behind_each_other() -> None:
    env = FlatHybrid(gym.make("latent/MNNS-hybrid", hidden_size=2), scale=3.0)
    assert env.action_space.shape == (89 + 4,)
    box = np.full(93, -1.0)
    box[5], box[89:] = 0.0, [0.5, -1.0, 1.0, 0.0]
    action = env.action(box)
    assert action["token"] == 5
    assert action["latent"].tolist() == [1.5, -3.0] and action["gate"].tolist() == [1.0, 0.5]


@pytest.mark.parametrize(("family", "wrap"), [("continuous", BoxMixture), ("hybrid", FlatHybrid)])
def test_a_right_answer_can_be_given_in_the_box(family: str, wrap: Any) -> None:
    env = wrap(gym.make(f"latent/MNNS-{family}"))
    _, info = env.reset(options={"index": 3})
    box = np.full(env.action_space.shape, -1.0)
    box[env.unwrapped.task.tokenizer.encode(info["target"])] = 1.0
    for _ in range(4):
        _, reward, terminated, _, info = env.step(box)
    assert terminated and reward == 1


@pytest.mark.parametrize(("family", "wrap"), [("continuous", BoxMixture), ("hybrid", FlatHybrid)])
def test_boxes_survive_a_spec_and_refuse_other_families(family: str, wrap: Any) -> None:
    env = wrap(gym.make(f"latent/MNNS-{family}"), scale=4.0)
    again: Any = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.get_wrapper_attr("scale") == 4.0 and again.action_space == env.action_space
    with pytest.raises(UsageError, match="use it around an environment of that family"):
        wrap(gym.make("latent/MNNS-token"))
    for scale in (0, -1, float("nan"), float("inf"), 1e39, 10**400, "2", None, True):
        with pytest.raises(UsageError, match=r"scale of .* is a number above 0 and at most"):
            wrap(gym.make(f"latent/MNNS-{family}"), scale=scale)
