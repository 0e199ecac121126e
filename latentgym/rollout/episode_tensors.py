"""An episode's state where the model is.

Legend: N rows, S states of a matcher, V vocabulary.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from latentgym.episodes.protocol import EpisodeState, Protocol, StopMatcher

_OF_ROWS = (
    *("phase", "think_used", "answer_used", "tool_calls_used", "forced_left"),
    *("terminated", "truncated", "_marker_state", "_stop_state", "_tool_call_state"),
)


class EpisodeTensors(EpisodeState):
    """`EpisodeState` in tensors, so that a step never waits for the device.

    Args:
        protocol: the rules.
        n: N.
        device: where the tensors are.
    """

    _where = staticmethod(torch.where)

    def __init__(self, protocol: Protocol, n: int, device: torch.device) -> None:
        self._device = device
        self._tables = {
            id(matcher): torch.from_numpy(matcher.next_SV).to(device)
            for matcher in (protocol.marker, protocol.stop, protocol.tool_call)
            if matcher is not None
        }
        super().__init__(protocol, n)

    def select(self, rows: Tensor) -> EpisodeTensors:
        """Some of the rows, by their numbers."""
        return self._with({name: getattr(self, name)[rows] for name in _OF_ROWS})

    def joined(self, other: EpisodeTensors) -> EpisodeTensors:
        """The rows of both, under the same rules."""
        both = {name: (getattr(self, name), getattr(other, name)) for name in _OF_ROWS}
        return self._with({name: torch.cat(parts) for name, parts in both.items()})

    def _with(self, arrays: dict[str, Tensor]) -> EpisodeTensors:
        state = copy.copy(self)
        state.__dict__ |= arrays
        return state

    def _array(self, values: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(values.copy()).to(self._device)

    def _table(self, matcher: StopMatcher) -> Tensor:
        return self._tables[id(matcher)]
