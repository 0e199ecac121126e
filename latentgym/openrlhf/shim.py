"""Lets OpenRLHF 0.11 import and run without flash-attn, vllm or CUDA.

`install()` does five things, the first four only where they are needed, that is, where flash-attn,
vllm or CUDA are missing. All training code stays OpenRLHF's: nothing here computes.

1. OpenRLHF's modules that import names of flash-attn or vllm at their head are imported once with
   placeholders in the place of the missing package. A placeholder raises when it is called, and
   leaves `sys.modules` at once, so that nobody else takes it for the package.
2. Without CUDA, `torch.cuda.current_device()` is the CPU; `set_device`, `synchronize` do nothing.
3. Without CUDA, OpenRLHF's replay buffer, which spells its device "cuda:<index>", holds the CPU.
4. Without CUDA, DeepSpeed does not compile its shared-memory operation for gloo at first use.
5. What OpenRLHF logs goes to stderr, and only from warnings on: stdout is for results.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import os
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from latentgym.errors import UsageError

VERSION = "0.11.2"

# Package: the names that OpenRLHF takes from it at import, and its modules that do.
_MISSING: Mapping[str, tuple[Mapping[str, tuple[str, ...]], tuple[str, ...]]] = {
    "flash_attn": (
        {
            "flash_attn.bert_padding": (
                *("index_first_axis", "pad_input", "rearrange", "unpad_input"),
            ),
            "flash_attn.utils.distributed": ("all_gather",),
        },
        ("openrlhf.models.ring_attn_utils",),
    ),
    "vllm": (
        {
            "vllm": ("SamplingParams",),
            "vllm.inputs": ("TokensPrompt",),
            "vllm.utils": ("random_uuid",),
        },
        ("openrlhf.trainer.ray.vllm_engine", "openrlhf.trainer.ppo_utils.samples_generator"),
    ),
}


@functools.cache
def install() -> dict[str, Any]:
    """Do what is needed, once; what was done, for the log.

    Raises:
        UsageError: OpenRLHF is missing, or of another version than the one this was written for.
    """
    _check_version()
    import torch

    cpu = not torch.cuda.is_available()
    missing = [name for name in _MISSING if importlib.util.find_spec(name) is None]
    if cpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        _patch_cuda(torch.cuda)
    for name in missing:
        modules, users = _MISSING[name]
        if name == "vllm":
            # What is heavy, transformers and DeepSpeed, must not see the placeholders.
            importlib.import_module("openrlhf.utils.deepspeed")
        with _placeholders(modules):
            for user in users:
                importlib.import_module(user)
    if cpu:
        _patch_replay_buffer()
        import deepspeed.ops

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    _keep_stdout_clean()
    return {"placeholders": missing, "cpu": cpu}


def told() -> str:
    """What `install` did, for people; empty where nothing had to be done."""
    report = install()
    missing = [f"without {name}" for name in report["placeholders"]]
    where = ["on the CPU, for tests and small models"] if report["cpu"] else []
    return ", ".join([*where, *missing])


def _check_version() -> None:
    from importlib import metadata

    try:
        found = metadata.version("openrlhf")
    except metadata.PackageNotFoundError as error:
        raise UsageError(
            f"the backend needs OpenRLHF; pip install 'latentgym[openrlhf]', then "
            f"pip install --no-deps openrlhf=={VERSION}."
        ) from error
    if found != VERSION:
        raise UsageError(
            f"the backend is written for OpenRLHF {VERSION}, but {found} is installed; "
            f"pip install --no-deps openrlhf=={VERSION}."
        )


def _keep_stdout_clean() -> None:
    from openrlhf.utils import logging_utils

    handler = logging_utils._default_handler
    handler.setStream(sys.stderr)
    handler.flush = sys.stderr.flush  # OpenRLHF ties it to stdout
    handler.setLevel(logging.WARNING)


def _patch_cuda(cuda: Any) -> None:
    import torch

    cuda.current_device = lambda: torch.device("cpu")
    cuda.set_device = lambda device: None
    cuda.synchronize = lambda device=None: None


def _patch_replay_buffer() -> None:
    import torch
    from openrlhf.trainer.ppo_utils.replay_buffer import NaiveReplayBuffer

    original = NaiveReplayBuffer.__init__

    @functools.wraps(original)
    def build(self: Any, *args: Any, **kwargs: Any) -> None:
        with rebound(torch.cuda, current_device=lambda: 0):
            original(self, *args, **kwargs)
        self.target_device = torch.device("cpu")

    NaiveReplayBuffer.__init__ = build


@contextmanager
def _placeholders(modules: Mapping[str, tuple[str, ...]]) -> Iterator[None]:
    for module_name, names in modules.items():
        module = types.ModuleType(module_name)
        for name in names:
            setattr(module, name, _missing(f"{module_name}.{name}"))
        sys.modules[module_name] = module
    try:
        yield
    finally:
        for module_name in modules:
            del sys.modules[module_name]


def _missing(name: str) -> Any:
    def placeholder(*_: Any, **__: Any) -> None:
        raise RuntimeError(f"{name} is called, but {name.partition('.')[0]} is not installed")

    return placeholder


@contextmanager
def rebound(module: Any, **names: Any) -> Iterator[None]:
    """Within it, these names of a module stand for something else.

    OpenRLHF has no hook for the model class, the data or the samples generator; it looks them up
    by name, here.
    """
    before = {name: getattr(module, name) for name in names}
    for name, value in names.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


def plain(remote_class: Any) -> Any:
    """The Python class behind a Ray class of OpenRLHF's, which cannot be subclassed itself."""
    try:
        return remote_class.__ray_metadata__.modified_class.__ray_actor_class__
    except AttributeError as error:
        raise RuntimeError(
            "this version of ray keeps the class of an actor elsewhere; install ray==2.55.0"
        ) from error
