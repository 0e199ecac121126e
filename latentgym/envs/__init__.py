"""The tasks as Gymnasium environments."""

from latentgym.envs.single import LatentEnv
from latentgym.envs.task import Call, Choices, Demonstration, Task
from latentgym.envs.vector import LatentVectorEnv
from latentgym.envs.wrappers import EpisodeStatistics, RecordTranscripts

__all__ = [
    "Call",
    "Choices",
    "Demonstration",
    "EpisodeStatistics",
    "LatentEnv",
    "LatentVectorEnv",
    "RecordTranscripts",
    "Task",
]
