"""The suites' own logic, and the pages that show their records."""

from __future__ import annotations

from pathlib import Path

from benchmarks.cot2_mnns import cells
from benchmarks.demo import majority
from benchmarks.report import PAGES, ROOT, filled
from latentgym.cli.agent_options import parse_with_agent
from latentgym.cli.evaluate import EvalOptions
from latentgym.cli.train import TrainOptions


def test_pages_are_what_the_records_say() -> None:
    for name in PAGES:
        text = (ROOT / name).read_text()
        assert filled(text) == text, f"{name} is stale: run python -m benchmarks.report"


def test_cells_have_names_of_their_own_and_starts_that_exist() -> None:
    names = [cell.name for cell in cells()]
    assert len(names) == len(set(names))
    assert {cell.start for cell in cells()} - {None} <= set(names)


def test_every_cell_is_a_command_that_parses(tmp_path: Path) -> None:
    kinds = {"train": TrainOptions, "eval": EvalOptions}
    for cell in cells():
        verb, *rest = cell.command(tmp_path, 0)
        options, _ = parse_with_agent(kinds[verb], rest, verb, "")
        assert options.env.startswith("latent/MNNS-")


def test_majority_rate_of_the_test_split() -> None:
    result = majority("latent/MNNS-token")
    assert result.n == 1308
    assert 0.30 < result.accuracy < 0.42
