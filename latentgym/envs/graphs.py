"""ProsQA and ProntoQA: which of two concepts a path reaches (CoT2, arXiv 2505.23648).

Legend: T thoughts, S support of a soft target.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from latentgym.data import DATASETS, Question, available, licence_of, load
from latentgym.envs.arguments import Arrow, Chain, Limit, Seed, Size, Source, Split
from latentgym.envs.problems import graph_text, graphs
from latentgym.envs.symbols import SymbolTask, check_limit
from latentgym.envs.task import Demonstration
from latentgym.episodes.spaces import Family
from latentgym.errors import UsageError
from latentgym.system.options.keywords import Option


class GraphTask(SymbolTask):
    """ProsQA or ProntoQA as reachability: which of two vertices can be reached from the root?

    The prompt lists the edges as pairs of symbols, then the two candidates and the root. Vertices
    are relabelled at random for every problem, so a symbol means nothing by itself.

    Args:
        name: `ProsQA` or `ProntoQA`.
        family: action family.
        split: `train` is generated; `valid` and `test` are the released files where they can be
            had, else generated.
        size: questions of a generated split.
        think, arrow: see `SymbolTask`.
        edge_end: close every edge with a symbol, so that its two vertices can be told apart by
            what stands next to them. The published layout is not known.
        slots: of ProsQA's generator, at most 28; fewer give smaller graphs to begin with.
        source: where to look for the released files.
        seed: of the generator.
        limit: use the first so many questions only.
    """

    splits = ("train", "valid", "test")
    max_nodes = 40

    def __init__(
        self,
        name: str,
        family: Family,
        *,
        split: Split = "train",
        size: Size = 20_000,
        think: Chain | None = None,
        arrow: Arrow | None = None,
        edge_end: Annotated[bool, Option("close every edge of the prompt with a symbol")] = False,
        slots: Annotated[int, Option("most vertices of ProsQA's generator", 6, graphs.N_SLOTS)]
        | None = None,
        source: Source | None = None,
        seed: Seed = 0,
        limit: Limit | None = None,
    ) -> None:
        super().__init__(family, graphs.vocabulary(self.max_nodes), _STEPS[name], think, arrow)
        self.name, self.split, self.edge_end = name, split, edge_end
        self.problems = _graph_problems(name, split, size, source, seed, limit, slots)
        self.source, self.dataset_hash = self.problems.source, self.problems.hash
        self.licence = licence_of(DATASETS[name], self.source)
        self.prompt_budget = 256
        self._memo: dict[int, tuple[graphs.GraphProblem, bool]] = {}

    def __len__(self) -> int:
        return len(self.problems)

    def apart(self, other: Any) -> bool:
        # Comparing would take minutes, and two random graphs are never the same.
        made = isinstance(other, GraphTask) and self.source == other.source == "generated"
        return made and self.problems.seed != other.problems.seed

    def _problem(self, index: int) -> tuple[graphs.GraphProblem, bool]:
        """The relabelled problem, and whether the wrong candidate is named first."""
        if index not in self._memo:
            rng = np.random.default_rng([7, self.problems.seed, index])
            problem = graphs.relabel(self.problems[index], rng, self.max_nodes)
            self._memo[index] = problem, bool(rng.random() < 0.5)
        return self._memo[index]

    def question(self, index: int) -> Question:
        problem, swapped = self._problem(index)
        end = f" {graphs.EDGE_END}" if self.edge_end else ""
        pairs = " ".join(f"N{a} N{b}{end}" for a, b in problem.edges)
        pair = (problem.target, problem.neg_target)
        one, other = pair[::-1] if swapped else pair
        return Question(f"{pairs} <think> N{one} N{other} N{problem.root}", f"N{problem.target}")

    def demonstration(self, index: int) -> Demonstration:
        chain = super().demonstration(index)
        problem, swapped = self._problem(index)
        pair = np.array([problem.target, problem.neg_target])[:: -1 if swapped else 1]
        # The root, named last, has the first step of the chain for its target.
        said_Rn = graphs.said_so_far(problem, pair)
        ids = np.asarray(self.prompt(index))
        named = np.flatnonzero(np.isin(ids, graphs.node_ids(np.arange(self.max_nodes))))
        support = int(said_Rn.sum(1).max())
        order = np.argsort(~said_Rn, axis=1, kind="stable")[:, :support]
        held = np.take_along_axis(said_Rn, order, axis=1)
        ids_PS = np.zeros((len(ids), support), dtype=np.int64)
        weights_PS = np.zeros((len(ids), support), dtype=np.float32)
        ids_PS[named[:-1]] = graphs.node_ids(order) * held
        weights_PS[named[:-1]] = held / held.sum(1, keepdims=True)
        return replace(chain, prompt_ids_PS=ids_PS, prompt_weights_PS=weights_PS)

    def chain(self, index: int) -> Demonstration:
        problem, _ = self._problem(index)
        steps = _STEPS[self.name]
        answer = int(graphs.node_ids(np.array(problem.target)))
        if not self.family.mixes:
            path = graphs.shortest_path(problem)[1:]
            path = (path + (problem.target,) * steps)[:steps]
            ids = [*graphs.node_ids(np.array(path)).tolist(), answer]
            return Demonstration.of_tokens(ids, steps)
        target_Tn = graphs.soft_targets(problem, steps)
        support = int((target_Tn > 0).sum(1).max())
        order = np.argsort(-target_Tn, axis=1, kind="stable")[:, :support]
        weights = np.take_along_axis(target_Tn, order, axis=1).astype(np.float32)
        last_ids = np.zeros((1, support), dtype=np.int64)
        last_ids[0, 0] = answer
        last_weights = np.eye(1, support, dtype=np.float32)
        ids_TS = np.concatenate([graphs.node_ids(order) * (weights > 0), last_ids])
        return Demonstration(ids_TS, np.concatenate([weights, last_weights]), steps)


_STEPS = {"ProsQA": 5, "ProntoQA": 6}
_GENERATORS: dict[str, Callable[..., graphs.GraphProblem]] = {
    "ProsQA": graphs.generate_prosqa,
    "ProntoQA": graphs.generate_prontoqa,
}
_SPLIT_SEEDS = {"train": 0, "valid": 1, "test": 2}


class _GraphProblems(Sequence[graphs.GraphProblem]):
    """Problems of a split: rows of a file, or generated one by one when they are asked for."""

    def __init__(
        self,
        name: str,
        rows: Sequence[Question] | None,
        size: int,
        seed: int,
        origin: str,
        slots: int | None = None,
    ) -> None:
        self._rows, self._size, self.seed, self.source = rows, size, seed, origin
        generate = _GENERATORS[name]
        self._generate = generate if slots is None else partial(generate, slots=slots)
        identity = f"{name} {seed} {size}" + ("" if slots is None else f" {slots}")
        self.hash = getattr(rows, "hash", hashlib.sha256(identity.encode()).hexdigest()[:16])

    def __len__(self) -> int:
        return self._size if self._rows is None else len(self._rows)

    def __getitem__(self, index: int) -> graphs.GraphProblem:  # type: ignore[override]
        if self._rows is None:
            return graphs.item(self._generate, self.seed, index)
        row = self._rows[index]
        return graph_text.from_row({"question": row.text, "answer": row.gold, **row.extra})


def _graph_problems(
    name: str,
    split: str,
    size: int,
    source: str | Path | None,
    seed: int,
    limit: int | None,
    slots: int | None,
) -> _GraphProblems:
    if split not in _SPLIT_SEEDS:
        raise UsageError(f"{name} has the splits {', '.join(_SPLIT_SEEDS)}, not {split!r}.")
    if slots is not None and not (name == "ProsQA" and 6 <= slots <= graphs.N_SLOTS):
        raise UsageError(
            f"slots, from 6 to {graphs.N_SLOTS}, are of ProsQA's generator; "
            f"{name} cannot have slots={slots}."
        )
    released = (
        slots is None and split != "train" and available(DATASETS[name], split) != "generated"
    )
    if source is not None or released:
        data = load(DATASETS[name], split, source=source, limit=limit)
        return _GraphProblems(name, data, len(data), seed, data.source)
    check_limit(limit, size, f"{name} {split}")
    seed = seed * len(_SPLIT_SEEDS) + _SPLIT_SEEDS[split]
    return _GraphProblems(name, None, limit or size, seed, "generated", slots)
