"""One readable file per method."""

from latentgym.agents.base import Agent, agent_class, preset
from latentgym.evaluation.answers import Answer

__all__ = ["Agent", "Answer", "agent_class", "preset"]
