"""Bars over weights that are loaded are nobody's news; those of downloads are."""

from __future__ import annotations

import pytest
from huggingface_hub.utils import are_progress_bars_disabled
from transformers.utils import logging

from latentgym.lm.bars import without_loading_bars


@pytest.mark.parametrize("drawn", [True, False])
def test_bars_of_transformers_are_hidden_and_left_as_they_were(
    drawn: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    before = logging.is_progress_bar_enabled()
    (logging.enable_progress_bar if drawn else logging.disable_progress_bar)()
    downloads = are_progress_bars_disabled()
    try:
        with without_loading_bars():
            list(logging.tqdm(range(3), desc="Loading weights"))
            assert are_progress_bars_disabled() == downloads
        assert logging.is_progress_bar_enabled() is drawn
        assert are_progress_bars_disabled() == downloads
    finally:
        (logging.enable_progress_bar if before else logging.disable_progress_bar)()
    assert capsys.readouterr().err == ""
