"""The tasks as Gymnasium environments."""

from latentgym.envs.making import make_vec
from latentgym.envs.single import LatentEnv
from latentgym.envs.task import Choices, Demonstration, Task, TaskMaker, ToolCall
from latentgym.envs.vector import LatentVectorEnv

__all__ = [
    "Choices",
    "Demonstration",
    "LatentEnv",
    "LatentVectorEnv",
    "Task",
    "TaskMaker",
    "ToolCall",
    "make_vec",
]
