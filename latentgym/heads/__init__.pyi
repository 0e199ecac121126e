from .base import Action, PolicyHead, Readout
from .control import CONTROLS, ControlHead
from .distributions import gather_log_prob
from .gated import GatedHead
from .gaussian import GaussianHead
from .hidden import HiddenStateHead, PauseHead
from .ratt import RATTHead
from .superposition import DirichletHead, MixtureHead, MultiTokenHead
from .token import TokenHead

__all__ = [
    "CONTROLS",
    "Action",
    "ControlHead",
    "DirichletHead",
    "GatedHead",
    "GaussianHead",
    "HiddenStateHead",
    "MixtureHead",
    "MultiTokenHead",
    "PauseHead",
    "PolicyHead",
    "RATTHead",
    "Readout",
    "TokenHead",
    "gather_log_prob",
]
