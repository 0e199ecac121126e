"""Reward sources by name."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from latentgym.agents.search.rewards import (
    ConfidenceReward,
    ConstantReward,
    FunctionReward,
    PerfectSparseReward,
    RewardSource,
)
from latentgym.agents.search.verifiers import SelfReward, VerifierConfig
from latentgym.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from latentgym.lm import LatentLM

_PLAIN: Mapping[str, type[RewardSource]] = {
    "psrm": PerfectSparseReward,
    "confidence": ConfidenceReward,
    "constant": ConstantReward,
}
_SELF = "self"
SOURCES = (_SELF, *_PLAIN)
"""`self`: the model verifies its own answer. `psrm`: the gold answer, an oracle. `confidence`: how
sure the model was. `constant`: -1, a control."""
_FUNCTION = re.compile(r"\w+(\.\w+)*:\w+")


def check_source(name: str) -> None:
    """Whether there is a source of that name; a function of a user's own is not imported yet.

    Raises:
        UsageError: there is none.
    """
    if name not in SOURCES and not _FUNCTION.fullmatch(name):
        raise UsageError(
            f"no reward {name!r}; {did_you_mean(name, SOURCES)} A function of your own is named "
            "module:function."
        )


def is_oracle(name: str) -> bool:
    """Whether the source of that name looks at the gold answer."""
    return name in _PLAIN and _PLAIN[name].oracle


def reward_source(name: str, lm: LatentLM, config: VerifierConfig) -> RewardSource:
    """The source of that name, or one around the function `module:function`.

    Args:
        name: of the source.
        lm: the model, which verifies itself.
        config: of its verifiers.

    Raises:
        UsageError: there is no such source, or the function cannot be imported.
    """
    check_source(name)
    if name == _SELF:
        return SelfReward(lm, config)
    if name in _PLAIN:
        return _PLAIN[name]()
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"cannot import the reward {name!r} ({error}); write module:function, with the module "
            "on PYTHONPATH."
        ) from error
    if not callable(found):
        raise UsageError(f"the reward {name!r} is no function, but {found!r}; name a function.")
    return FunctionReward(found)
