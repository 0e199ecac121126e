"""Latentgym's tasks as an environment package of verifiers, which knows packages by a plain name.

vf-eval latentgym_verifiers --env.taskset.env latent/SVAMP-token --model ...
"""

from latentgym.adapters.verifiers import LatentGymTaskset

__all__ = ["LatentGymTaskset"]
