"""The most memory that something takes while it runs, beside what stood before."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages that operators have made and that something still holds."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        for given in tree_leaves((args, kwargs)):  # what stood before is not counted
            self._count(given, 0)
        out = func(*args, **kwargs)
        for made in tree_leaves(out):
            self._count(made, 1)
        return out

    def _count(self, x: Any, times: int) -> None:
        if not isinstance(x, Tensor) or x.device.type != "cpu":
            return
        if x.layout != torch.strided:  # packed copies have no storage
            return
        storage = x.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = times * storage.nbytes()
        self._known.add(key)
        self.alive += size
        self.most = max(self.most, self.alive)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive -= size


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Most bytes of tensors that were alive together, beside those that stood before.

    On a GPU as its allocator counts. On a CPU of all that operators made, whatever other programs
    do; what an operator takes and gives back within itself is not in it, nor what oneDNN packs.

    Args:
        run: what is watched.
        device: where it takes memory.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = int(torch.cuda.memory_allocated(device))
        run()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device)) - before
    with _Alive() as seen:
        run()
    return int(seen.most)
