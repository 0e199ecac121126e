"""verifiers loads our tasks by its own loader, and scores by them."""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path
from typing import Any

import pytest

ID = "latentgym_verifiers"
EXAMPLES = Path(__file__).parents[2] / "examples"
OPTIONS: dict[str, Any] = {"source": "sample", "limit": 3}


@pytest.fixture(scope="module", autouse=True)
def verifiers() -> None:
    """Imported here, as it takes many seconds: not where tests are merely collected."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it is deprecated for is its own
        pytest.importorskip("verifiers.v1", reason="pip install 'latentgym[verifiers]'")


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package of the examples, as if it were installed."""
    monkeypatch.syspath_prepend(str(EXAMPLES))


def taskset(**config: Any) -> Any:
    from verifiers.v1.utils.loaders import load_taskset

    from latentgym.adapters.verifiers import LatentGymConfig

    return load_taskset(LatentGymConfig(id=ID, **config))


def scored(task: Any, text: str) -> Any:
    """The trace of a model that says this, scored by the library."""
    import verifiers.v1 as vf
    from verifiers.v1.graph import MessageNode
    from verifiers.v1.trace import TraceTask

    said = vf.AssistantMessage(content=text)
    trace = vf.Trace.model_construct(
        task=TraceTask.model_construct(data=task.data),
        nodes=[MessageNode(message=said, sampled=True)],
        rewards={},
        metrics={},
        root_reply=None,
    )
    asyncio.run(task.score(trace))
    return trace


def test_its_loader_finds_the_questions() -> None:
    from verifiers.v1.utils.loaders import taskset_class

    found = list(taskset(options=OPTIONS))
    assert type(taskset(options=OPTIONS)) is taskset_class(ID)
    assert [task.data.idx for task in found] == [0, 1, 2]
    assert len({task.key for task in found}) == 3
    assert "####" in found[0].data.system_prompt and found[0].data.prompt
    assert len(list(taskset(options=OPTIONS).take(2))) == 2


def test_it_scores_as_the_environment_does() -> None:
    task = list(taskset(env="latent/GSM8K-token", options=OPTIONS))[1]
    right = scored(task, f"So it is.\n#### {task.data.answer}")
    wrong = scored(task, f"It is {task.data.answer}1.")
    assert right.metrics["timed_out"] == wrong.metrics["timed_out"] == 0
    assert right.rewards["correct"].value == 1 and right.metrics["formatted"] == 1
    assert wrong.rewards["correct"].value == 0 and wrong.metrics["formatted"] == 0


def test_options_may_hold_dicts() -> None:
    options = {"limit": 2, "config": {"min_terms": 2, "max_terms": 2}}
    task = next(iter(taskset(env="latent/RG_chain_sum-token", options=options)))
    assert task.data.prompt.count("+") + task.data.prompt.count("-") == 1
    assert "correct" in scored(task, "7").rewards
