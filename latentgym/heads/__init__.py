"""Policy heads: the base class, and one file per way to think."""

from latentgym.heads.base import Action, PolicyHead, Readout
from latentgym.heads.control import CONTROLS, ControlHead
from latentgym.heads.gated import GatedHead
from latentgym.heads.gaussian import GaussianHead
from latentgym.heads.hidden import HiddenStateHead, PauseHead
from latentgym.heads.ratt import RATTHead
from latentgym.heads.superposition import DirichletHead, MixtureHead, MultiTokenHead
from latentgym.heads.token import TokenHead

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
]
