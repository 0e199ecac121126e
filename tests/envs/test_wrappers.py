"""Wrappers watch an episode and change nothing of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym

from latentgym.envs.wrappers import EpisodeStatistics, RecordTranscripts


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
