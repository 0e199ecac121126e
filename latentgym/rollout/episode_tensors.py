"""An episode's state where the model is, and the random numbers of its steps.

Legend: N rows, S states of a matcher, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from latentgym.episodes.protocol import EpisodeState, Protocol, StopMatcher


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
            matcher.text: torch.from_numpy(matcher.next_SV).to(device)
            for matcher in (protocol.marker, protocol.stop, protocol.tool_call)
            if matcher is not None
        }
        super().__init__(protocol, n)

    def _array(self, values: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(values.copy()).to(self._device)

    def _table(self, matcher: StopMatcher) -> Tensor:
        return self._tables[matcher.text]
