"""The page of an analysis in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentgym.analysis.page import PAGE, write_report


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_of_it_can_be_read(
    scheme: str,
    latents_report: dict[str, Any],
    tmp_path: Path,
    illegible: Callable[[Path, str], list[str]],
) -> None:
    write_report(latents_report, tmp_path)
    assert illegible(tmp_path / PAGE, scheme) == []
