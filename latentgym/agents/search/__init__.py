"""Search at test time: attempts at an answer, and what judges them."""

from latentgym.agents.search.agent import SearchAgent, SearchConfig, Seeker
from latentgym.agents.search.attempts import Attempt, attempts_of
from latentgym.agents.search.rewards import RewardSource, Verdict
from latentgym.agents.search.search import Search, Try
from latentgym.agents.search.sources import SOURCES, check_source, is_oracle, reward_source
from latentgym.agents.search.verifiers import SelfReward, VerifierConfig

__all__ = [
    "SOURCES",
    "Attempt",
    "RewardSource",
    "Search",
    "SearchAgent",
    "SearchConfig",
    "Seeker",
    "SelfReward",
    "Try",
    "Verdict",
    "VerifierConfig",
    "attempts_of",
    "check_source",
    "is_oracle",
    "reward_source",
]
