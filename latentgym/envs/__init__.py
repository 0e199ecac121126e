"""The tasks as Gymnasium environments."""

from latentgym.envs.single import LatentEnv
from latentgym.envs.task import Call, Demonstration, Task
from latentgym.envs.vector import LatentVectorEnv
from latentgym.envs.wrappers import EpisodeStatistics, RecordTranscripts

__all__ = [
    "Call",
    "Demonstration",
    "EpisodeStatistics",
    "LatentEnv",
    "LatentVectorEnv",
    "RecordTranscripts",
    "Task",
]
