from .beams import Ranked, rank
from .choosing import choose, choose_in_batches
from .collect import Episodes, collect, collect_in_batches
from .diagnostics import latent_statistics
from .engine import Engine
from .policy import Policy
from .prefix_cache import PrefixCache
from .replay import Scores, log_probs, replay
from .rollouts import ACTIONS, THOUGHTS, Rollouts, StepKind
from .session import Session
from .thoughts import Segment, Step, segments, thought_steps

__all__ = [
    "ACTIONS",
    "THOUGHTS",
    "Engine",
    "Episodes",
    "Policy",
    "PrefixCache",
    "Ranked",
    "Rollouts",
    "Scores",
    "Segment",
    "Session",
    "Step",
    "StepKind",
    "choose",
    "choose_in_batches",
    "collect",
    "collect_in_batches",
    "latent_statistics",
    "log_probs",
    "rank",
    "replay",
    "segments",
    "thought_steps",
]
