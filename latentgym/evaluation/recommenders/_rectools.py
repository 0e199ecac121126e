"""What RecTools needs to train SASRec here; imported only where that is asked for.

Legend: K items that the network knows, Q questions, L places of a history, D width.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.item_net import IdEmbeddingsItemNet
from rectools.models.nn.transformers.sasrec import SASRecDataPreparator

from latentgym.evaluation.ranking import ranking_metrics
from latentgym.evaluation.recommenders.base import Floats, Ints, ranks

_AT_ONCE = 256  # questions
_WATCHED = "ndcg@10"


class _Preparator(SASRecDataPreparator):  # type: ignore[misc]  # without the library it is Any
    """RecTools' own; pandas 3 takes no tuple where 2 did."""

    item_extra_tokens = np.array(SASRecDataPreparator.item_extra_tokens, dtype=object)


class Network:
    """A network of RecTools, and the numbers by which it knows entries.

    Args:
        net: the network.
        known_K: the entries that it knows, in its order; it counts them from 1, 0 is padding.
        places: of the longest history.
    """

    def __init__(self, net: Any, known_K: Ints, places: int) -> None:
        self.net, self.known_K, self.places = net, known_K, places
        self.number_of = {int(entry): number for number, entry in enumerate(known_K, start=1)}

    @property
    def device(self) -> str:
        """Where it is."""
        return str(self.net.item_model.device)

    def place(self, histories: Sequence[Sequence[int]]) -> Ints:
        """Histories as the network reads them, (Q, L), the newest last, without unknown entries."""
        place_QL = np.zeros((len(histories), self.places), dtype=np.int64)
        for row, history in enumerate(histories):
            numbers = [self.number_of[e] for e in history if e in self.number_of][-self.places :]
            if numbers:
                place_QL[row, -len(numbers) :] = numbers
        return place_QL

    @torch.no_grad()
    def scores(self, place_QL: Ints) -> Floats:
        """Scores of the known entries, (Q, K)."""
        training = self.net.training
        self.net.eval()
        item_KD = self.net.item_model.get_all_embeddings()
        made = []
        for start in range(0, len(place_QL), _AT_ONCE):
            x = torch.from_numpy(place_QL[start : start + _AT_ONCE]).to(item_KD.device)
            state_QLD = self.net.encode_sessions({"x": x}, item_KD)
            made.append((state_QLD[:, -1] @ item_KD[1:].T).cpu().double().numpy())
        self.net.train(training)
        return np.concatenate(made)


class _KeepBest(Callback):  # type: ignore[misc]
    """Stops when validation gets no better, and takes the weights of the best epoch.

    Args:
        histories, targets: validation rows.
        places: of the longest history.
        patience: epochs without a better one.
        advance: of a progress bar.
    """

    def __init__(
        self,
        histories: Sequence[Sequence[int]],
        targets: Sequence[int],
        places: int,
        patience: int,
        advance: Callable[[int, str], None],
    ) -> None:
        self._rows = histories, np.array(targets)
        self._places, self._patience, self._advance = places, patience, advance
        self._weights: dict[str, torch.Tensor] = {}
        self.value, self.best, self.epochs = -1.0, 0, 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        known_K = pl_module.data_preparator.get_known_item_ids().astype(np.int64)
        self._network = Network(pl_module.torch_model, known_K, self._places)
        histories, target_Q = self._rows
        place_QL = self._network.place(histories)
        # Rows that the network cannot get right do not say which epoch is better.
        asked_Q = place_QL.any(1) & np.isin(target_Q, known_K)
        self._place_QL = place_QL[asked_Q]
        self._number_Q = np.array([self._network.number_of[e] - 1 for e in target_Q[asked_Q]])

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.epochs += 1
        value = self._value() if len(self._place_QL) else 0.0
        if value > self.value:
            self.value, self.best = value, self.epochs
            state = pl_module.torch_model.state_dict()
            self._weights = {name: tensor.clone() for name, tensor in state.items()}
        trainer.should_stop = self.epochs - self.best >= self._patience
        self._advance(1, f"{_WATCHED} {value:.4f}")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.torch_model.load_state_dict(self._weights)

    def _value(self) -> float:
        rank_Q = ranks(self._network.scores(self._place_QL), self._number_Q)
        return float(ranking_metrics(rank_Q)[_WATCHED].mean())


def fit_sasrec(
    sequences: Sequence[Sequence[int]],
    valid: tuple[Sequence[Sequence[int]], Sequence[int]],
    places: int,
    *,
    seed: int,
    epochs: int,
    patience: int,
    advance: Callable[[int, str], None],
    **settings: Any,
) -> tuple[Network, dict[str, Any]]:
    """Train a network.

    Args:
        sequences: of entries, at most `places` + 1 each.
        valid: histories and targets by which it stops.
        places: of the longest history.
        seed: of all that is random.
        epochs: at most.
        patience: epochs without a better one.
        advance: of a progress bar.
        settings: of `rectools.models.SASRecModel`.

    Returns:
        The network of the best epoch, and what to tell of its training.
    """
    stop = _KeepBest(*valid, places, patience, advance)

    def trainer() -> Any:
        return Trainer(
            max_epochs=epochs,
            devices=1,
            deterministic=True,
            callbacks=[stop],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    with _quiet(), _undisturbed():
        torch.manual_seed(seed)
        model = SASRecModel(
            session_max_len=places,
            item_net_block_types=(IdEmbeddingsItemNet,),
            data_preparator_type=_Preparator,
            get_trainer_func=trainer,
            **settings,
        )
        try:
            model.fit(_dataset(sequences))
        except SystemExit as exit:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from exit
    # The trainer worked with a copy of its callbacks.
    [kept] = [c for c in model.fit_trainer.callbacks if isinstance(c, _KeepBest)]
    known_K = np.asarray(model.data_preparator.get_known_item_ids(), dtype=np.int64)
    told = {"epochs": kept.epochs, "best_epoch": kept.best, f"valid_{_WATCHED}": kept.value}
    return Network(model.torch_model.eval(), known_K, places), told


def _dataset(sequences: Sequence[Sequence[int]]) -> Any:
    """Sequences as interactions of as many users; time is the place in the sequence."""
    lengths = [len(sequence) for sequence in sequences]
    place = np.concatenate([np.arange(length) for length in lengths])
    table = {
        Columns.User: np.repeat(np.arange(len(lengths)), lengths),
        Columns.Item: np.concatenate([np.asarray(sequence) for sequence in sequences]),
        Columns.Weight: 1.0,
        Columns.Datetime: place.astype("datetime64[s]"),
    }
    return Dataset.construct(pd.DataFrame(table))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice that Lightning logs, and warnings about versions of libraries."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """What the trainer changes in torch for all is as it was afterwards."""
    strict = torch.are_deterministic_algorithms_enabled()
    warn = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=warn)
        torch.backends.cudnn.benchmark = benchmark
