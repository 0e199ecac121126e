"""The classical recommenders that agents are compared with, by name.

To add one, write its file and add its line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from latentgym.errors import UsageError, did_you_mean
from latentgym.evaluation.recommenders.base import Histories, Recommender, Targets

__all__ = ["RECOMMENDERS", "Histories", "Recommender", "Targets", "make_recommender"]

RECOMMENDERS: Mapping[str, str] = {
    "popularity": "latentgym.evaluation.recommenders.popularity:Popularity",
    "cooccurrence": "latentgym.evaluation.recommenders.cooccurrence:CoOccurrence",
    "sasrec": "latentgym.evaluation.recommenders.sasrec:SASRec",
}
"""Names of recommenders, each with its class."""


def make_recommender(name: str, seed: int = 0) -> Recommender:
    """A recommender by name, not fitted.

    Args:
        name: one of `RECOMMENDERS`.
        seed: of whatever is random in it.

    Raises:
        UsageError: no such name, a negative seed, or a library that is not installed.
    """
    if name not in RECOMMENDERS:
        raise UsageError(f"no baseline {name!r}; {did_you_mean(name, RECOMMENDERS)}")
    if seed < 0:
        raise UsageError(f"a seed is a whole number from 0 on, not {seed}.")
    module, attribute = RECOMMENDERS[name].split(":")
    made: Recommender = getattr(import_module(module), attribute)(seed)
    return made
