"""Rolling a policy out, and replaying what it did."""

from latentgym.rollout.beams import Ranked, rank
from latentgym.rollout.choosing import choose, choose_in_batches
from latentgym.rollout.collect import Episodes, collect, collect_in_batches
from latentgym.rollout.diagnostics import latent_statistics
from latentgym.rollout.engine import Engine
from latentgym.rollout.policy import Policy
from latentgym.rollout.prefix_cache import PrefixCache
from latentgym.rollout.replay import Scores, log_probs, replay
from latentgym.rollout.rollouts import Rollouts, StepKind
from latentgym.rollout.session import Session

__all__ = [
    "Engine",
    "Episodes",
    "Policy",
    "PrefixCache",
    "Ranked",
    "Rollouts",
    "Scores",
    "Session",
    "StepKind",
    "choose",
    "choose_in_batches",
    "collect",
    "collect_in_batches",
    "latent_statistics",
    "log_probs",
    "rank",
    "replay",
]
