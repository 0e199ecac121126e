"""Integrated gradients: they add up, where the integrand bends too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from latentgym.analysis.gradients import integrated_gradients
from latentgym.analysis.residual import ResidualStream
from latentgym.analysis.sequences import PositionKind, Sequences
from latentgym.errors import UsageError
from latentgym.lm import LatentLM


@pytest.mark.parametrize("layer", [0, 1])
def test_attributions_add_up_to_the_change(
    layer: int, stream: ResidualStream, sequences: Sequences
) -> None:
    for row, found in enumerate(integrated_gradients(stream, sequences, layer)):
        assert found.complete and found.error <= 0.01
        one = sequences.select([row])
        answer = one.kind_NT[0] == PositionKind.ANSWER
        trajectory = stream.trajectory(one.x_NTD, one.mask_NT)
        mean = trajectory.states[layer].mean(1, keepdim=True).expand(-1, one.x_NTD.shape[1], -1)
        values = []
        for h in (mean, trajectory.states[layer]):
            *_, final = stream.onward(trajectory, h, layer)
            probs = stream.logits(final)[0, :-1].softmax(-1)
            right = probs.gather(-1, one.token_NT[0, 1:, None])[:, 0]
            values.append(float(right[answer[1:]].detach().sum()))
        assert found.change == pytest.approx(values[1] - values[0], rel=1e-3)
        assert float(found.value_T.sum()) == pytest.approx(found.change, rel=0.011)
        # Nothing flows from positions that nobody reads.
        assert float(found.value_T[-1]) == 0.0


def test_a_sharp_bend_is_found(random_lm: Callable[..., LatentLM]) -> None:
    """A step of the integrand that equal steps would miss is cut into small pieces."""
    from latentgym.analysis.gradients import _Line

    class Bent(_Line):
        """F(alpha) = sigmoid(2000 (alpha - .0123)), which changes in a thousandth of the line."""

        def __init__(self) -> None:
            self.rows = 16

        def _values(self, alpha):  # type: ignore[no-untyped-def]
            at = torch.from_numpy(alpha)
            return torch.sigmoid(2000 * (at - 0.0123)).tolist()

        def _in_batches(self, alpha, compute):  # type: ignore[no-untyped-def]
            f = torch.sigmoid(2000 * (torch.from_numpy(alpha) - 0.0123))
            return [(2000 * f * (1 - f))[:, None]]

    found = Bent().attribution(0.01, 2048)
    assert found.complete and found.steps < 300
    assert float(found.value_T.sum()) == pytest.approx(1.0, abs=0.011)
    cut_short = Bent().attribution(0.01, 16)
    assert not cut_short.complete and cut_short.error > 0.1 and cut_short.steps == 16


def test_one_sequence_is_one_of_many(stream: ResidualStream, sequences: Sequences) -> None:
    many = integrated_gradients(stream, sequences, 1)
    one = integrated_gradients(stream, sequences.select([1]), 1, positions_at_once=1)[0]
    torch.testing.assert_close(one.value_T, many[1].value_T, rtol=0.03, atol=1e-6)


def test_without_an_answer_there_is_nothing_to_explain(
    stream: ResidualStream, sequences: Sequences
) -> None:
    kind = sequences.kind_NT
    chain = kind.masked_fill(kind == PositionKind.ANSWER, PositionKind.CHAIN)
    with pytest.raises(UsageError, match="no answer token"):
        integrated_gradients(stream, replace(sequences, kind_NT=chain), 0)
