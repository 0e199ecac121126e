"""The depth report of sequences that are short."""

from __future__ import annotations

from collections.abc import Callable
from math import isnan

import pytest

from latentgym.analysis import depth_report
from latentgym.analysis.residual import ResidualStream
from latentgym.analysis.sequences import Sequences
from latentgym.errors import UsageError


def first_only(sequences: Sequences, row: int) -> Sequences:
    """The same with nothing but the first position in a row."""
    kind_NT = sequences.kind_NT.clone()
    kind_NT[row] *= sequences.first_NT[row]
    return Sequences(sequences.token_NT, kind_NT, sequences.x_NTD)


def test_first_positions_alone_are_refused(
    stream: ResidualStream, random_sequences: Callable[..., Sequences]
) -> None:
    one = first_only(random_sequences(stream.lm, (12,)), 0)
    with pytest.raises(UsageError, match="no sequence has a position behind its first one"):
        depth_report(stream, one)


def test_a_row_of_one_position_takes_no_part(
    stream: ResidualStream, random_sequences: Callable[..., Sequences]
) -> None:
    with_one = first_only(random_sequences(stream.lm, (24, 17, 12)), 2)
    told, more = (
        depth_report(stream, each, measures=["contributions", "skips", "future"])
        for each in (with_one.select(slice(2)), with_one)
    )
    for name in ("norm_h", "relative_block", "cosine_mlp"):
        expected = told["contributions"][name]["all"]["mean"]
        assert more["contributions"][name]["all"]["mean"] == pytest.approx(expected, rel=1e-4)
    *scores, alone = more["skips"]["depth_score_mean"]["by_sequence"]
    assert scores == pytest.approx(told["skips"]["depth_score_mean"]["by_sequence"], rel=1e-4)
    assert isnan(alone)
