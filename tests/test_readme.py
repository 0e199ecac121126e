"""The README's Python runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_readme_code_runs(number: int) -> None:
    exec(compile(BLOCKS[number], f"README block {number}", "exec"), {})


def test_readme_has_an_environment_and_an_agent() -> None:
    assert len(BLOCKS) == 2
    assert "gym.make(" in BLOCKS[0]
    assert "PolicyHead" in BLOCKS[1]
