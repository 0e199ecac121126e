"""The tasks as Gymnasium environments."""

from latentgym.envs.single import LatentEnv
from latentgym.envs.task import Demonstration, Task
from latentgym.envs.vector import LatentVectorEnv

__all__ = ["Demonstration", "LatentEnv", "LatentVectorEnv", "Task"]
