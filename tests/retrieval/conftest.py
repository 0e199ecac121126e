"""One small corpus and its index by each engine, for all tests that only read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from latentgym.data.retrieval import sample_encyclopedia
from latentgym.retrieval import Passage, Retriever, build_index, open_index
from latentgym.retrieval.index import ENGINES


@pytest.fixture(scope="session")
def passages() -> Sequence[Passage]:
    """Three hundred of them."""
    return sample_encyclopedia().passages


@pytest.fixture(scope="session")
def index(
    passages: Sequence[Passage], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """`index(engine)`: the folder."""
    root, made = tmp_path_factory.mktemp("indexes"), dict[str, Path]()

    def of(engine: str) -> Path:
        if engine not in made:
            build_index(passages, root / engine, engine=engine)
            made[engine] = root / engine
        return made[engine]

    return of


@pytest.fixture(params=ENGINES, scope="session")
def retriever(request: pytest.FixtureRequest, index: Callable[[str], Path]) -> Iterator[Retriever]:
    """One of each engine: closed, it starts again when it is asked."""
    opened = open_index(index(request.param))
    yield opened
    opened.close()
