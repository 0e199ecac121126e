"""Search at test time: attempts at an answer, and what judges them."""

from latentgym.search.attempts import Attempt, attempts_of
from latentgym.search.rewards import RewardSource, Verdict
from latentgym.search.search import Search, Try
from latentgym.search.sources import SOURCES, check_source, is_oracle, reward_source
from latentgym.search.verifiers import SelfReward, VerifierConfig

__all__ = [
    "SOURCES",
    "Attempt",
    "RewardSource",
    "Search",
    "SelfReward",
    "Try",
    "Verdict",
    "VerifierConfig",
    "attempts_of",
    "check_source",
    "is_oracle",
    "reward_source",
]
