"""One retriever for each index: of a process, or of all workers of a Ray cluster."""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from latentgym.errors import LatentGymError
from latentgym.retrieval.index import PREBUILT, open_index
from latentgym.retrieval.retriever import Hit, RetrievalError, Retriever, require_k


def retriever_of(where: str | Path) -> Retriever:
    """The retriever of an index, the same at every call.

    In a worker of a Ray cluster it asks one actor that all workers share, so that their machines
    hold the index once; anywhere else it is this process's own, and ends with it.

    Args:
        where: see `open_index`.

    Raises:
        RetrievalError: there is no such index, or its engine is missing.
    """
    name = str(where)
    if not name.startswith(PREBUILT):
        name = str(Path(name).expanduser().resolve())
    return _of_cluster(name) if _in_ray_worker() else _of_process(name)


@cache
def _of_process(where: str) -> Retriever:
    retriever = open_index(where)
    atexit.register(retriever.close)
    return retriever


@cache
def _of_cluster(where: str) -> Retriever:
    return ClusterRetriever(where)


def _in_ray_worker() -> bool:
    """Whether this process is a worker of Ray's; the driver is none."""
    if "ray" not in sys.modules:
        return False
    import ray

    return bool(ray.is_initialized() and ray.get_runtime_context().get_actor_id())


class ClusterRetriever:
    """Asks an actor that holds the retriever; see `Retriever`.

    Whoever asks first starts the actor, and whoever finds it dead starts another.

    Args:
        where: see `open_index`.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._actor: Any = None
        self.about: Mapping[str, Any] = self._call("about")

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        require_k(k)
        found: list[list[Hit]] = self._call("search", list(queries), k)
        return found

    def close(self) -> None:
        self._actor = None  # the others may still ask it

    def _call(self, method: str, *arguments: Any) -> Any:
        import ray
        from ray.exceptions import RayActorError, RayTaskError

        for wait in (0.0, 0.5, 2.0):
            time.sleep(wait)  # the name of a dead actor is given back a little later
            if self._actor is None:
                self._actor = self._begun()
            try:
                return ray.get(getattr(self._actor, method).remote(*arguments))
            except RayTaskError as error:
                cause = error.cause
                if isinstance(cause, LatentGymError):
                    raise cause from error
                raise
            except RayActorError:
                self._actor = None
        raise RetrievalError(
            f"the worker that searches {self._where} ended again and again; is there "
            "memory for it? Try again."
        )

    def _begun(self) -> Any:
        """The actor: the one that is there, or a new one."""
        import ray

        name = f"latentgym-index-{sha256(self._where.encode()).hexdigest()[:16]}"
        # It ends with the worker that started it, so that none is left on a cluster that goes on;
        # the others then start another. It takes no processor: who asks stands still meanwhile.
        options = {"name": name, "get_if_exists": True, "num_cpus": 0}
        return ray.remote(SharedIndex).options(**options, max_concurrency=8).remote(self._where)


class SharedIndex:
    """What runs in the actor.

    Args:
        where: see `open_index`.
    """

    def __init__(self, where: str) -> None:
        self._where = where

    def about(self) -> dict[str, Any]:
        """Of the retriever."""
        return dict(_of_process(self._where).about)

    def search(self, queries: list[str], k: int) -> list[list[Hit]]:
        """See `Retriever`."""
        return _of_process(self._where).search(queries, k)

    def process(self) -> int:
        """The number of this process."""
        return os.getpid()
