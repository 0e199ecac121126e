"""Wrappers that watch episodes from outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym


class RecordTranscripts(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Appends one JSON line per finished episode: question, answer, reward components.

    Args:
        env: a latentgym environment.
        path: of the `.jsonl` file; made if it is not there.
    """

    def __init__(self, env: gym.Env[Any, Any], path: str) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, path=path)
        super().__init__(env)
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        result = self.env.step(action)
        if result[2] or result[3]:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result[4], ensure_ascii=False) + "\n")
        return result


class EpisodeStatistics(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Running means over episodes, in `info["episode_means"]` at the end of each.

    Gymnasium's own statistics know return and length; these know thoughts, tokens, the share of
    episodes that were truncated and every component of the reward.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self.episodes = 0
        self._sums: dict[str, float] = {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            self.episodes += 1
            counted = {k: v for k, v in info.items() if k.startswith("reward/")}
            counted |= {"score": info["score"], "thoughts": info["thoughts"]}
            counted |= {"tokens": info["tokens"], "truncated": float(truncated)}
            for name, value in counted.items():
                self._sums[name] = self._sums.get(name, 0.0) + float(value)
            means = {name: total / self.episodes for name, total in self._sums.items()}
            info = {**info, "episode_means": means}
        return observation, reward, terminated, truncated, info
