"""Latent reasoning as Gymnasium environments.

Importing the package registers the environments, so that `gymnasium.make("latent/GSM8K-token")`
works; it loads neither torch nor transformers, and nothing of packages that announce theirs.
"""

from latentgym.registry import read_plugins as _read_plugins
from latentgym.registry import register_envs as _register_envs

__version__ = "0.1.0"

_read_plugins()
_register_envs()
