"""The recommendation benchmark on a tiny model: that it runs, and that both find the same."""

from __future__ import annotations

import pytest

from latentgym.cli.benches.recommend import RecommendBench, run
from latentgym.errors import UsageError


@pytest.mark.slow
def test_it_reports_and_both_find_the_same() -> None:
    options = RecommendBench(
        model="tiny:qwen2:2x2x16", items=300, users=3, beams=4, rounds=1, sizes=(50, 100)
    )
    report = run(options)
    assert report["settings"]["catalogue"] == 300
    assert report["same_answers"] == {"first title": 1.0, "among the 4 found": 1.0}
    assert all(rate > 0 for rate in report["users_per_second"].values())
    ours, peer = report["positions_per_user"].values()
    assert 0 < ours < peer


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        run(RecommendBench(users=0))
