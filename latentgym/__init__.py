"""Latent reasoning as Gymnasium environments.

Importing the package registers the environments, so that `gymnasium.make("latent/GSM8K-token")`
works; it loads neither torch nor transformers, and nothing of packages that announce theirs.
"""

from __future__ import annotations

from typing import Any

from latentgym.registry import read_plugins as _read_plugins
from latentgym.registry import register_envs as _register_envs

__version__ = "0.1.0"

_read_plugins()
_register_envs()

__all__ = ["evaluate", "load", "train"]


def __getattr__(name: str) -> Any:
    """`load`, `evaluate` and `train`, which come with torch, when they are first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from latentgym.agents import api

    return getattr(api, name)
