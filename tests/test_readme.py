"""The Python of the README runs as it stands; the page on data has the fields that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from latentgym.data import DATASETS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
OWN_DATA = (ROOT / "docs" / "your-own-data.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def shown(code: str) -> str:
    """The output that stands behind a block of code."""
    behind = README.partition(code)[2].removeprefix("```")
    block = re.match(r"\s*```\n(.*?)```", behind, re.DOTALL)
    assert block is not None
    return block[1].strip()


def test_the_environment_shows_what_the_readme_shows(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(BLOCKS[0], "README block 0", "exec"), {})
    assert capsys.readouterr().out.strip() == shown(BLOCKS[0])


def test_the_agent_runs_as_it_stands() -> None:
    """With few steps; `make test-docs` takes all of them, and looks at what was learnt."""
    fewer = re.sub(r"(steps|range)(=|\()\d+", r"\g<1>\g<2>2", BLOCKS[1])
    assert fewer != BLOCKS[1]
    exec(compile(fewer, "README block 1", "exec"), {})


@pytest.mark.docs
def test_the_agent_learns_as_the_readme_says(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(BLOCKS[1], "README block 1", "exec"), {})
    told = capsys.readouterr().out
    untrained, demonstrations, rewards = (float(line.split()[-1]) for line in told.splitlines())
    assert untrained < 0.05 and demonstrations > 0.38 and rewards > demonstrations + 0.08
    # Other processors round otherwise, and training carries that on.
    expected = [float(line.split()[-1]) for line in shown(BLOCKS[1]).splitlines()]
    assert [untrained, demonstrations, rewards] == pytest.approx(expected, abs=0.1)


def test_readme_has_an_environment_and_an_agent() -> None:
    assert len(BLOCKS) == 2
    assert "gym.make(" in BLOCKS[0]
    assert "PolicyHead" in BLOCKS[1]


def test_the_page_on_ones_own_data_has_the_fields_of_every_data_set() -> None:
    table = OWN_DATA.partition("<!-- fields -->")[2].partition("<!-- /fields -->")[0]
    told = {}
    for tasks, fields, _ in (row.strip("| ").split(" | ") for row in table.splitlines()[3:] if row):
        told |= dict.fromkeys(tasks.split(", "), re.findall(r"`(\w+)`", fields.partition(";")[0]))
    assert set(told) == set(DATASETS)
    for name, fields in told.items():
        if fields:  # others are told on a page of their own
            assert fields == list(DATASETS[name].fields)
