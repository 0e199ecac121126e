"""The tasks as Gymnasium environments."""

from latentgym.envs.making import make_vec
from latentgym.envs.single import LatentEnv
from latentgym.envs.task import Choices, Demonstration, Task, TaskMaker, ToolCall
from latentgym.envs.vector import LatentVectorEnv
from latentgym.envs.wrappers import (
    BoxMixture,
    EpisodeStatistics,
    FlatHybrid,
    RecordTranscripts,
)

__all__ = [
    "BoxMixture",
    "Choices",
    "Demonstration",
    "EpisodeStatistics",
    "FlatHybrid",
    "LatentEnv",
    "LatentVectorEnv",
    "RecordTranscripts",
    "Task",
    "TaskMaker",
    "ToolCall",
    "make_vec",
]
