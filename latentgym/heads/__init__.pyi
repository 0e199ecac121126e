from .base import Action, PolicyHead, Readout
from .control import CONTROLS, ControlHead
from .distributions import gather_log_prob
from .gated import GatedHead
from .gaussian import GaussianHead
from .gumbel import GumbelHead
from .hidden import HiddenStateHead, PauseHead
from .multiplex import MultiplexHead
from .noisy import NoisyMixtureHead
from .ratt import RATTHead
from .routed import RoutedHead
from .superposition import DirichletHead, MixtureHead, MultiTokenHead
from .switching import ColdStopHead, SwitchingHead
from .token import TokenHead
from .transitions import FrozenTokenHead, TransitionHead

__all__ = [
    "CONTROLS",
    "Action",
    "ColdStopHead",
    "ControlHead",
    "DirichletHead",
    "FrozenTokenHead",
    "GatedHead",
    "GaussianHead",
    "GumbelHead",
    "HiddenStateHead",
    "MixtureHead",
    "MultiTokenHead",
    "MultiplexHead",
    "NoisyMixtureHead",
    "PauseHead",
    "PolicyHead",
    "RATTHead",
    "Readout",
    "RoutedHead",
    "SwitchingHead",
    "TokenHead",
    "TransitionHead",
    "gather_log_prob",
]
