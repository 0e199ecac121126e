"""What a checkpoint of adapters leaves out: the weights that are not trained, known by a digest.

They are those of the model that the run names, so they are there already; the digest makes sure
that adapters are not put on another model. It is of names, shapes and some of the numbers of
embeddings and norms, rounded to bf16: the same in every precision that a model may be loaded in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from latentgym.lm.model import LatentLM
from latentgym.rollout import Policy

_SAMPLES = 1024  # numbers of each tensor
LM = "lm."  # where a policy's language model stands


def frozen_names(module: nn.Module) -> set[str]:
    """Names of what a policy's language model, or a model, has in weights that are not trained."""
    prefix = LM if isinstance(module, Policy) else ""
    lm = module.lm if isinstance(module, Policy) else module
    frozen = {name for name, p in lm.named_parameters() if not p.requires_grad}
    # Of weights in 4 bits scales and tables stand behind their name.
    behind = {n for n in lm.state_dict() if any(p in frozen for p in _prefixes(n))}
    return {f"{prefix}{name}" for name in frozen | behind}


def _prefixes(name: str) -> Iterator[str]:
    while name:
        name = name.rpartition(".")[0]
        yield name


def digest_of_frozen(lm: LatentLM) -> str:
    """What tells the weights of a model that are not trained from those of another model."""
    sha = hashlib.sha256()
    linear = {
        f"{name}.weight" for name, layer in lm.named_modules() if isinstance(layer, nn.Linear)
    }
    for name, parameter in sorted(lm.named_parameters()):
        if parameter.requires_grad or name in linear:
            continue
        sha.update(f"{name} {tuple(parameter.shape)}".encode())
        sha.update(_sampled(parameter).numpy().tobytes())
    return sha.hexdigest()


def _sampled(parameter: Tensor) -> Tensor:
    flat = parameter.detach().flatten()
    some = flat[:: max(1, flat.numel() // _SAMPLES)]
    return some.to(torch.bfloat16).cpu().view(torch.int16)
