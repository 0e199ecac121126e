"""SASRec (Kang and McAuley, ICDM 2018), as RecTools has it.

The network, its initialisation, the softmax over all items and the loop of training are RecTools'.
Here it is given purchases, told when to stop, and asked for scores of the whole catalogue.

Legend: E entries of the catalogue, K that occur in the training data, Q questions, L places of a
history.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from latentgym.errors import UsageError
from latentgym.evaluation.recommenders.base import (
    Floats,
    Histories,
    Recommender,
    Targets,
    counts,
    purchases,
)
from latentgym.progress import progress_bar

INSTALL = "pip install 'latentgym[recommend]' and pip install --no-deps rectools==0.19.0"


@dataclass(frozen=True)
class SASRecSettings:
    """Sizes and training.

    Attributes:
        width, blocks, heads: of the transformer.
        dropout: within it.
        lr, batch: of Adam; a row of a batch is a sequence.
        epochs: at most so many passes over the data.
        patience: after so many passes without a better NDCG@10 on the validation rows it stops,
            and takes the weights of the best. It learns popularity first, and on small sets falls
            below that for some twenty passes before it learns more: with less patience it would
            stop there.
    """

    width: int = 64
    blocks: int = 2
    heads: int = 2
    dropout: float = 0.5
    lr: float = 2e-3
    batch: int = 128
    epochs: int = 200
    patience: int = 30


class SASRec(Recommender):
    """Scores an entry by the dot product of its embedding with the state after the history.

    Training takes each customer's purchases in pieces as long as the longest history, so that
    every purchase is a target once. What training never saw comes behind all that it saw; a
    history of which it saw nothing is answered by popularity.

    Args:
        seed: of the weights, dropout and the order of the data.
        settings: sizes and training.

    Raises:
        UsageError: RecTools is not installed.
    """

    name = "sasrec"
    validates = True

    def __init__(self, seed: int = 0, settings: SASRecSettings | None = None) -> None:
        super().__init__(seed)
        self.settings = settings or SASRecSettings()
        self._library = _rectools()

    @property
    def config(self) -> Mapping[str, Any]:
        return asdict(self.settings)

    def fit(
        self,
        histories: Histories,
        targets: Targets,
        n_entries: int,
        valid: tuple[Histories, Targets] | None = None,
    ) -> None:
        if valid is None or not valid[1]:
            raise UsageError("sasrec stops by validation rows, so it cannot do without; give some.")
        sequences, s = purchases(histories, targets, n_entries), self.settings
        count_E = counts(sequences, n_entries)
        self._share_E: Floats = count_E / count_E.sum()
        places = max(map(len, histories))
        with progress_bar("sasrec", s.epochs) as advance:
            self._network, self.trained = self._library.fit_sasrec(
                list(_pieces(sequences, places)),
                valid,
                places,
                seed=self.seed,
                epochs=s.epochs,
                patience=s.patience,
                advance=advance,
                n_factors=s.width,
                n_blocks=s.blocks,
                n_heads=s.heads,
                dropout_rate=s.dropout,
                lr=s.lr,
                batch_size=s.batch,
            )
        self.device = self._network.device

    def scores(self, histories: Histories) -> Floats:
        place_QL = self._network.place(histories)
        score_QK = self._network.scores(place_QL)
        score_QE = np.repeat(score_QK.min(1, keepdims=True) - 1, len(self._share_E), axis=1)
        score_QE[:, self._network.known_K] = score_QK
        return np.where(place_QL.any(1)[:, None], score_QE, self._share_E)


def _pieces(sequences: Sequence[Sequence[int]], places: int) -> Iterator[Sequence[int]]:
    """Sequences in pieces of `places` targets; each begins with the last item of the one before."""
    for sequence in sequences:
        for start in range(0, len(sequence) - 1, places):
            yield sequence[start : start + places + 1]


def _rectools() -> Any:
    """What trains the network, loaded when it is wanted.

    Raises:
        UsageError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about newer versions of what it imports
            from latentgym.evaluation.recommenders import _rectools as library
    except ImportError as error:
        raise UsageError(f"sasrec needs RecTools ({error}); {INSTALL}.") from error
    return library
