"""An agent of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from latentgym.agents import Agent
from latentgym.heads import TokenHead
from latentgym.lm.model import LatentLM
from latentgym.rollout import Policy
from latentgym.system.options.ranges import NotNegative
from latentgym.training import Optimisation, Recipe, SupervisedConfig


@dataclass(frozen=True)
class MineConfig:
    """Its settings."""

    temperature: NotNegative = 0.0
    """When answering; 0 is greedy."""


class Mine(Agent[MineConfig]):
    """Thinks in tokens, and learns from demonstrations."""

    name = "mine"
    families = ("token",)
    config_class = MineConfig
    presets: ClassVar[dict[str, MineConfig]] = {"warm": MineConfig(temperature=0.7)}

    def policy(self, lm: LatentLM, *, acting: bool) -> Policy:
        return Policy(lm, TokenHead(self.config.temperature if acting else 1.0))

    def recipe(self) -> Recipe:
        return Recipe(SupervisedConfig(batch_size=8), Optimisation(lr=3e-3))
