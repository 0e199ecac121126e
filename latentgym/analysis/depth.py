"""The depth report: everything that "Do Language Models Use Their Depth Efficiently?" measures.

Legend: N rows, L blocks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

from latentgym.analysis import contributions as added
from latentgym.analysis import erasure, gradients, lens, scores, skips
from latentgym.analysis.pooling import ALL
from latentgym.analysis.residual import PARTS, Part, ResidualStream
from latentgym.analysis.sequences import PositionKind, Sequences
from latentgym.analysis.skips import LayerSkips
from latentgym.errors import UsageError
from latentgym.progress import progress_bar

Measure = Literal[
    "contributions", "lens", "skips", "future", "thoughts", "local", "gradients", "erasure"
]
MEASURES: tuple[Measure, ...] = get_args(Measure)
_ERASED = 4  # layers before which is erased, unless others are chosen


def depth_report(
    stream: ResidualStream,
    sequences: Sequences,
    *,
    measures: Sequence[Measure] = MEASURES,
    layers: Sequence[int] | None = None,
    parts: Sequence[Part] = PARTS,
    difficulty: Mapping[str, Sequence[float]] | None = None,
    draws: int = 1,
    explained: int = 1,
    positions_at_once: int = 1024,
    seed: int = 0,
) -> dict[str, Any]:
    """What each layer adds and what depends on it, by kind of position.

    Args:
        stream: of the model, L blocks.
        sequences: N rows that it reads.
        measures: what is measured. Skips, future effects and local effects cost (L - 1) / 2 passes
            of the model each (skips once for each of `parts`, future effects once for each draw),
            integrated gradients and erasure hundreds, of `explained` sequences alone.
        layers: that are skipped, explained and erased; by default all are skipped, gradients are
            taken at a third and two thirds of the depth, and erasure looks at four layers.
        parts: of a layer, which `skips` leaves out one at a time; depth scores are of `block`.
        difficulty: by name, how hard each row's question is.
        draws: future effects are measured behind so many positions of each sequence (the authors
            take four, at four times the cost).
        explained: how many sequences gradients and erasure look at.
        positions_at_once: bounds the memory.
        seed: of what is drawn.

    Returns:
        JSON-ready: `definitions` of all that is told, and each measure under its name.

    Raises:
        UsageError: a layer that there is not, sequences without answers where they are needed, or
            of nothing but a first position.
    """
    layers = _checked(layers, len(stream))
    if not bool((sequences.mask_NT & ~sequences.first_NT).any()):
        raise UsageError(
            "no sequence has a position behind its first one, which is told apart from all others; "
            "give longer sequences."
        )
    if {"gradients", "erasure"} & {*measures}:
        # Before minutes are spent on the rest.
        for row in range(min(explained, len(sequences))):
            gradients.answer_places(sequences.select([row]))
    chunks = len(list(sequences.chunks(positions_at_once)))
    chosen = len(stream) if layers is None else len(layers)
    loops = {"skips": len(parts), "future": draws, "thoughts": 1, "local": 1}
    total = chunks * chosen * sum(loops.get(measure, 0) for measure in measures)
    report: dict[str, Any] = {
        "blocks": len(stream),
        **sequences.counts(),
        "definitions": {},
        "seconds": {},
    }
    with progress_bar("depth", total or None) as advance:
        work = _Measuring(
            sequences,
            LayerSkips(stream, sequences, positions_at_once, layers, advance),
            layers,
            parts,
            sequences.select(slice(explained)),
            difficulty or {},
            {"draws": draws, "seed": seed},
            {"positions_at_once": positions_at_once},
        )
        for measure in MEASURES:
            if measure in measures:
                advance(0, measure)
                with _timed(report["seconds"], measure):
                    report[measure], definitions = getattr(work, f"_{measure}")()
                report["definitions"][measure] = definitions
    report["scalars"] = _scalars(report, len(stream))
    return report


@dataclass(frozen=True)
class _Measuring:
    """The measures by name, over the same sequences.

    Attributes:
        sequences: that are read.
        skips: of their layers.
        layers: that are looked at; None for the usual ones.
        parts: of a layer that are skipped everywhere.
        explained: those of the sequences that gradients and erasure look at.
        difficulty: by name, how hard each row's question is.
        drawn: how future effects are.
        bound: of the memory.
    """

    sequences: Sequences
    skips: LayerSkips
    layers: Sequence[int] | None
    parts: Sequence[Part]
    explained: Sequences
    difficulty: Mapping[str, Sequence[float]]
    drawn: dict[str, Any]
    bound: dict[str, Any]

    @property
    def stream(self) -> ResidualStream:
        return self.skips.stream

    def _spread(self, count: int, ends: int) -> list[int]:
        """Some layers for what costs most, evenly spaced, with or without the first and last."""
        if self.layers is not None:
            return list(self.layers)
        last = len(self.stream) - 1
        return sorted({round(last * (i + 1 - ends) / (count + 1 - 2 * ends)) for i in range(count)})

    def _contributions(self) -> tuple[Any, Any]:
        found = added.layer_contributions(self.stream, self.sequences, **self.bound)
        return found, added.DEFINITIONS

    def _lens(self) -> tuple[Any, Any]:
        found = lens.logit_lens(self.stream, self.sequences, **self.bound)
        return found, found.pop("definitions")

    def _skips(self) -> tuple[Any, Any]:
        by_part = {part: self.skips.everywhere(part) for part in PARTS if part in self.parts}
        found: dict[str, Any] = {part: effects.as_dict() for part, effects in by_part.items()}
        scored = self.layers is None and "block" in by_part
        for statistic in ("mean", "max") if scored else ():
            score_N = scores.skip_scores(by_part["block"].per_sequence(statistic)).tolist()
            found[f"depth_score_{statistic}"] = {
                "by_sequence": score_N,
                "against": {
                    name: scores.against_difficulty(score_N, values)
                    for name, values in self.difficulty.items()
                },
            }
        names = ("layers", "output", "pooled")
        told = {name: skips.DEFINITIONS[name] for name in names}
        return found, {**told, "depth_score": scores.DEFINITION}

    def _future(self) -> tuple[Any, Any]:
        found = self.skips.future(**self.drawn)
        return {**found.as_dict(), **self.drawn}, skips.DEFINITIONS["future"]

    def _thoughts(self) -> tuple[Any, Any]:
        found = self.skips.thoughts()
        return found.as_dict(), skips.DEFINITIONS["thoughts"]

    def _local(self) -> tuple[Any, Any]:
        found = self.skips.local()
        return {"layers": found.layers.as_dict()}, skips.DEFINITIONS["local"]

    def _gradients(self) -> tuple[Any, Any]:
        found = []
        for layer in self._spread(2, ends=0):
            each = gradients.integrated_gradients(self.stream, self.explained, layer, **self.bound)
            for row, attribution in enumerate(each):
                one = self.explained.select([row])  # in whose columns the values stand
                real_T = one.mask_NT[0].cpu()
                kinds = one.kind_NT[0].cpu()[real_T]
                found.append(
                    {
                        "layer": layer,
                        "sequence": row,
                        "value": attribution.value_T[real_T].tolist(),
                        "kinds": [PositionKind(int(k)).name.lower() for k in kinds],
                        "change": attribution.change,
                        "completeness_error": attribution.error,
                        "steps": attribution.steps,
                        "complete": attribution.complete,
                    }
                )
        return found, gradients.DEFINITION

    def _erasure(self) -> tuple[Any, Any]:
        layers = self._spread(_ERASED, ends=1)
        found = erasure.residual_erasure(self.stream, self.explained, layers=layers, **self.bound)
        return {"layers": layers, "by_sequence": found}, erasure.DEFINITION


def _scalars(report: Mapping[str, Any], blocks: int) -> dict[str, Any]:
    """The turning points of arXiv 2512.14064 over all positions, each as l and as (l + 1) / L."""
    found: dict[str, Any] = {}
    if "contributions" in report:
        layer = added.turning_layer(report["contributions"]["cosine_block"][ALL]["mean"])
        share = None if layer is None else (layer + 1) / blocks
        found["last_turn_of_cosine_block"] = {"l": layer, "depth": share}
    if "lens" in report:
        told = report["lens"]["scalars"][ALL]
        found["first_overlap_above"] = told["first_overlap_above"]
        for name, at in told["first_kl_below_half"].items():
            found[f"first_{name}_below_half"] = at
    return found


def _checked(layers: Sequence[int] | None, blocks: int) -> list[int] | None:
    """The layers in order, each once; None for all."""
    if layers is None:
        return None
    if not layers or any(not 0 <= layer < blocks for layer in layers):
        raise UsageError(f"layers are numbers from 0 to {blocks - 1}; name some of those.")
    return sorted(set(layers))


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - start, 2)
