"""Latent reasoning as Gymnasium environments.

Importing the package registers the environments, so that `gymnasium.make("latent/GSM8K-token")`
works; it loads neither torch nor transformers.
"""

from latentgym.registry import register_envs as _register_envs

__version__ = "0.1.0"

_register_envs()
