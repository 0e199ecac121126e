"""The suites' own logic, and the pages that show their records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from benchmarks import (
    causal_map,
    coconut_chains,
    cot2_mnns,
    cot2_prosqa,
    encyclopedia,
    hrpo_gsm8k,
    hrpo_retrieval,
    hybrid_chains,
    openrlhf_mnns,
    recommendation,
    retrieval_qa,
    task_pages,
)
from benchmarks.report import PAGES, ROOT, filled
from latentgym.cli.agent_options import parse_with_agent
from latentgym.cli.baseline import BaselineOptions
from latentgym.cli.demo import majority
from latentgym.cli.evaluate import EvalOptions
from latentgym.cli.options import parse
from latentgym.cli.train import TrainOptions
from latentgym.evaluation.recommenders import RECOMMENDERS
from latentgym.evaluation.suite import Cell, waves
from latentgym.lm import LatentLM


def test_pages_are_what_the_records_say() -> None:
    for name in PAGES:
        text = (ROOT / name).read_text()
        assert filled(text) == text, f"{name} is stale: run python -m benchmarks.report"


def test_pages_of_tasks_are_what_the_registry_says() -> None:
    pages = task_pages.pages()
    for name, text in pages.items():
        assert (ROOT / name).read_text() == text, (
            f"{name} is stale: run python -m benchmarks.report"
        )
    there = {f"docs/tasks/{path.name}" for path in (ROOT / "docs/tasks").iterdir()}
    assert there == pages.keys()
    nav = (ROOT / "mkdocs.yml").read_text()
    assert all(f" {name.removeprefix('docs/')}\n" in nav for name in pages)
    assert task_pages.ABOUT.keys() == set(task_pages.names())


def test_tasks_of_others_have_no_page(registered: Callable[..., Any]) -> None:
    before = task_pages.names()
    with registered("Others", object):
        assert task_pages.names() == before


def test_every_entry_of_an_observation_is_described() -> None:
    spaces = gym.make("latent/MNNS-token").observation_space
    assert isinstance(spaces, gym.spaces.Dict) and set(spaces) == task_pages.OBSERVATION.keys()


SUITES = {
    "cot2_mnns": ("latent/MNNS-", list(cot2_mnns.cells())),
    "causal_map": ("latent/MNNS-", causal_map.cells()),
    "openrlhf_mnns": ("latent/MNNS-", list(openrlhf_mnns.cells())),
    "hybrid_chains": ("latent/GSM8KAug-", list(hybrid_chains.cells())),
    "coconut_chains": ("latent/GSM8KAug-", list(coconut_chains.cells())),
    "cot2_prosqa": ("latent/ProsQA-", list(cot2_prosqa.cells())),
    "encyclopedia": ("latent/NQ-", list(encyclopedia.cells())),
    "hrpo_retrieval": ("latent/HotpotQA-", list(hrpo_retrieval.cells())),
    "recommendation": ("latent/", list(recommendation.cells())),
    "retrieval_qa": ("latent/", list(retrieval_qa.cells())),
    "hrpo_gsm8k": ("latent/GSM8K-", list(hrpo_gsm8k.cells())),
}


@pytest.mark.parametrize("cells", [cells for _, cells in SUITES.values()], ids=SUITES)
def test_cells_have_names_of_their_own_and_starts_that_exist(cells: list[Cell]) -> None:
    names = [cell.name for cell in cells]
    assert len(names) == len(set(names))
    assert {cell.start for cell in cells} - {None} <= set(names)


@pytest.mark.parametrize(("task", "cells"), SUITES.values(), ids=SUITES)
def test_every_cell_is_a_command_whose_options_all_count(
    task: str, cells: list[Cell], tmp_path: Path, random_lm: Callable[..., LatentLM]
) -> None:
    kinds = {"train": TrainOptions, "eval": EvalOptions}
    for cell in cells:
        verb, *rest = cell.command(tmp_path, 0)
        options: Any
        if verb == "baseline":
            options = parse(BaselineOptions, [*rest, "--resume"], verb, "")
            assert options.name in RECOMMENDERS
        else:
            parsed = parse_with_agent(kinds[verb], rest, verb, "")
            parsed.refuse_idle(random_lm(), training=verb == "train")
            options = parsed.options
        assert options.env.startswith(task)


def test_cells_come_after_what_they_start_from() -> None:
    chain = [Cell("a", "z", (), start="y"), Cell("a", "y", (), start="x"), Cell("a", "x", ())]
    assert [[cell.name for cell in wave] for wave in waves(chain)] == [["x"], ["y"], ["z"]]
    # A start that is not among the chosen cells has been run before.
    assert [[cell.name for cell in wave] for wave in waves(chain[:1])] == [["z"]]
    with pytest.raises(ValueError, match="ring"):
        list(waves([Cell("a", "x", (), start="y"), Cell("a", "y", (), start="x")]))


def test_majority_rate_of_the_test_split() -> None:
    result = majority("latent/MNNS-token")
    assert result.n == 1308
    assert 0.30 < result.accuracy < 0.42
