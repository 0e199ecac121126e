from .contributions import layer_contributions
from .depth import depth_report
from .erasure import residual_erasure
from .gradients import integrated_gradients
from .lens import decode_latents, logit_lens
from .residual import ResidualStream, Trajectory
from .sequences import PositionKind, Sequences, of_demonstrations, of_questions, of_rollouts
from .skips import future_effects, local_effects, skip_effects, thought_effects

__all__ = [
    "PositionKind",
    "ResidualStream",
    "Sequences",
    "Trajectory",
    "decode_latents",
    "depth_report",
    "future_effects",
    "integrated_gradients",
    "layer_contributions",
    "local_effects",
    "logit_lens",
    "of_demonstrations",
    "of_questions",
    "of_rollouts",
    "residual_erasure",
    "skip_effects",
    "thought_effects",
]
