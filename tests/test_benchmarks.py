"""The suites' own logic, and the pages that show their records."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from benchmarks import causal_map, task_pages
from benchmarks.report import PAGES, ROOT, filled
from benchmarks.sections import suite_cells
from benchmarks.suite import RECORDS
from latentgym.agents.effect import refuse_idle
from latentgym.cli.agent_options import parse_with_agent
from latentgym.cli.baseline import BaselineOptions
from latentgym.cli.demo import majority
from latentgym.cli.evaluate import EvalOptions
from latentgym.cli.options import parse
from latentgym.cli.train import TrainCommand
from latentgym.evaluation.recommenders import RECOMMENDERS
from latentgym.evaluation.suites.cells import Cell
from latentgym.evaluation.suites.reading import read_suite, shipped
from latentgym.lm import LatentLM
from latentgym.registry import resolve, task_maker


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


@pytest.mark.parametrize(("suite", "record"), RECORDS.items(), ids=RECORDS)
def test_records_are_of_cells_that_suites_have(suite: str, record: str) -> None:
    cells = {cell.name: cell for cell in read_suite(suite).cells}
    path = ROOT / "benchmarks" / "records" / f"{record}.json"
    for entry in json.loads(path.read_text())["cells"] if path.exists() else ():
        cell = cells[entry["name"]]
        assert (cell.part, cell.paper) == (entry["part"], entry["paper"])


def test_records_are_json_that_any_program_reads() -> None:
    def refused(number: str) -> None:
        raise AssertionError(f"{number} is no JSON")

    records = [*(ROOT / "benchmarks" / "records").rglob("*.json")]
    assert records
    for path in records:
        json.loads(path.read_text(), parse_constant=refused)


def test_the_page_of_results_is_of_the_records() -> None:
    page = (ROOT / "docs" / "results-page.html").read_text(encoding="utf-8")
    block = re.search(r'id="runs">(.*?)</script>', page)
    assert block is not None and len(page) < 1_500_000
    text = gzip.decompress(base64.b64decode(block[1])).decode()
    runs = {run["id"]: run for run in json.loads(text)}
    told = set()
    lm = [cell for cell in suite_cells("small_lm").values() if cell["part"] == "free"]
    cells = [("chains", cell) for cell in suite_cells("chains").values()]
    for suite, cell in [*cells, *(("small-lm", cell) for cell in lm)]:
        for seed, accuracy in zip(cell["seeds"], cell["by_seed"], strict=True):
            path = f"/{suite}/{cell['name']}/seed-{seed}"
            (name,) = (name for name in runs if path.endswith(f"/{name}"))
            assert round(100 * runs[name]["values"]["accuracy"], 2) == accuracy, name
            assert runs[name]["values"]["n"] == cell["n"]
            told.add(name)
    assert told == runs.keys()
    assert not re.search(r'[ "]/\w', text), "a path of the machine where it was made"


SUITES: dict[str, Sequence[Cell]] = {
    **{name: read_suite(name).cells for name in shipped()},
    "causal_map": causal_map.cells(),
}


@pytest.mark.parametrize("cells", SUITES.values(), ids=SUITES)
def test_every_cell_is_a_command_whose_options_all_count(
    cells: Sequence[Cell], tmp_path: Path, random_lm: Callable[..., LatentLM]
) -> None:
    kinds = {"train": TrainCommand, "eval": EvalOptions}
    seen = set()
    for cell in cells:
        verb, who, env, *rest = cell.command(tmp_path, 0)
        _, task, _ = resolve(env)
        model = rest[rest.index("--model") + 1] if "--model" in rest else "tiny"
        known = task_maker(task).keywords(task, not model.startswith("tiny"))
        given = [word.partition("=")[0] for flag, word in pairwise(rest) if flag == "-o"]
        assert set(given) <= known.keys(), cell.name
        # Cells that differ in a task or the value of a knob are parsed as the first of them.
        form = verb, who, tuple(word for word in rest if word.startswith("-"))
        if form in seen:
            continue
        seen.add(form)
        if verb == "baseline":
            options = parse(BaselineOptions, [who, env, *rest, "--resume"], verb, "")
            assert options.name in RECOMMENDERS
        else:
            parsed = parse_with_agent(kinds[verb], [who, env, *rest], verb, "")
            settings = parsed.config, parsed.default, random_lm()
            refuse_idle(who, *settings, training=verb == "train")


def test_majority_rate_of_the_test_split() -> None:
    result = majority("latent/MNNS-token")
    assert result.n == 1308
    assert 0.30 < result.accuracy < 0.42
