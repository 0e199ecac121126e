"""Policy heads: the base class, and the heads that several methods share.

A head of one method stands in that method's own file in `latentgym.agents`.
"""

from latentgym.heads.base import Action, PolicyHead, Readout
from latentgym.heads.control import CONTROLS, ControlHead
from latentgym.heads.hidden import HiddenStateHead, PauseHead
from latentgym.heads.superposition import DirichletHead, MixtureHead, MultiTokenHead
from latentgym.heads.token import TokenHead

__all__ = [
    "CONTROLS",
    "Action",
    "ControlHead",
    "DirichletHead",
    "HiddenStateHead",
    "MixtureHead",
    "MultiTokenHead",
    "PauseHead",
    "PolicyHead",
    "Readout",
    "TokenHead",
]
