"""A process has one retriever for each index, and the workers of a cluster share one."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from latentgym.cluster.connection import connected
from latentgym.errors import UsageError
from latentgym.retrieval import Passage, RetrievalError, retriever_of

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore")]  # Ray's own


def test_a_process_has_one_of_each(index: Callable[[str], Path]) -> None:
    folder = index("bm25s")
    one = retriever_of(folder)
    assert retriever_of(str(folder)) is one
    assert retriever_of(folder / ".." / folder.name) is one
    assert retriever_of(index("lucene")) is not one


def test_no_index(tmp_path: Path) -> None:
    with pytest.raises(RetrievalError, match="is no index"):
        retriever_of(tmp_path)


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason="needs ray (extra openrlhf)")
    # Workers cannot import a test's module.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with connected(2, option="", afterwards="Again."):
        yield ray


class Asker:
    """A worker as those that roll out."""

    def __init__(self, where: str) -> None:
        import ray  # noqa: F401 - as workers of ours do

        self.retriever = retriever_of(where)

    def ask(self, query: str, k: int = 1) -> tuple[str, list[Any]]:
        return type(self.retriever).__name__, self.retriever.search([query], k)[0]

    def process(self) -> int:
        import ray

        held: Any = self.retriever
        pid: int = ray.get(held._actor.process.remote())
        return pid


@pytest.mark.slow
def test_workers_share_one_that_may_be_killed(
    ray: Any, index: Callable[[str], Path], passages: Sequence[Passage]
) -> None:
    where = str(index("lucene"))
    actors = [ray.remote(Asker).remote(where) for _ in range(2)]
    found = ray.get([actor.ask.remote(passages[7].title) for actor in actors])
    assert [name for name, _ in found] == ["ClusterRetriever"] * 2
    assert all(hits[0].passage == passages[7] for _, hits in found)
    holders = set(ray.get([actor.process.remote() for actor in actors]))
    assert len(holders) == 1 and os.getpid() not in holders
    assert type(retriever_of(where)).__name__ == "LuceneRetriever"  # the driver has its own
    os.kill(holders.pop(), signal.SIGKILL)
    again = ray.get([actor.ask.remote(passages[7].title) for actor in actors])
    assert again == found
    with pytest.raises(ray.exceptions.RayTaskError) as caught:
        ray.get(actors[0].ask.remote("x", 0))
    assert isinstance(caught.value.cause, UsageError)
