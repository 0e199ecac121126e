"""Wrappers where Gymnasium's own do not serve.

Budgets and prompts are arguments of the environments (`think`, `answer`, `system`, `format`),
because they are part of the task's rules. Here two watch an episode from outside, two turn the
actions of a family into one finite Box, and one puts a language model inside a batched environment.
"""

from typing import TYPE_CHECKING, Any

from latentgym.wrappers.boxes import BoxMixture, FlatHybrid
from latentgym.wrappers.episodes import EpisodeStatistics, RecordTranscripts

if TYPE_CHECKING:
    from latentgym.envs.dynamics.rows import LatentDynamics

__all__ = [
    "BoxMixture",
    "EpisodeStatistics",
    "FlatHybrid",
    "LatentDynamics",
    "RecordTranscripts",
]


def __getattr__(name: str) -> Any:
    if name == "LatentDynamics":  # torch loads with it
        from latentgym.envs.dynamics.rows import LatentDynamics

        return LatentDynamics
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
