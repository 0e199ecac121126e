from .contributions import layer_contributions
from .depth import depth_report
from .erasure import residual_erasure
from .gradients import integrated_gradients
from .latents import causal_map
from .lens import decode_latents, logit_lens
from .residual import ResidualStream, Trajectory
from .sequences import PositionKind, Sequences, of_demonstrations, of_rollouts
from .skips import LayerSkips

__all__ = [
    "LayerSkips",
    "PositionKind",
    "ResidualStream",
    "Sequences",
    "Trajectory",
    "causal_map",
    "decode_latents",
    "depth_report",
    "integrated_gradients",
    "layer_contributions",
    "logit_lens",
    "of_demonstrations",
    "of_rollouts",
    "residual_erasure",
]
