"""The README's Python runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
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
