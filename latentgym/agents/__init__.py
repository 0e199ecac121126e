"""One readable file per method."""

from latentgym.agents.base import Agent, Answer, agent_class, preset

__all__ = ["Agent", "Answer", "agent_class", "preset"]
