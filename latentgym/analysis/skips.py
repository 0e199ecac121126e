"""What depends on a layer: skip it, and see what changes in the layers and positions behind.

"Do Language Models Use Their Depth Efficiently?" (arXiv 2505.13898), figure 4. A block, or its
attention or MLP alone, adds nothing at some positions, never at the first one of a sequence, where
models keep a sink. The effect on block l > s is how much of what it adds changes,

    |d_l - d'_l| / |d_l|,     d_l = h_{l+1} - h_l,

and the effect on the output is the L2 norm of the difference of the next-token distributions.

Runs share what is below the skip, so skipping each of L layers costs (L - 1) / 2 passes.

Legend: N rows, T positions, L blocks, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from latentgym.analysis.contributions import relative
from latentgym.analysis.pooling import ALL, DEFINITION, Pool, groups
from latentgym.analysis.residual import Part, ResidualStream, Trajectory
from latentgym.analysis.sequences import THOUGHTS, PositionKind, Sequences

DEFINITIONS = {
    "layers": "[s][l]: relative change of what block l > s adds where layer s is skipped at all "
    "positions but the first; cells with l <= s, the diagonal with them, are empty",
    "output": "[s]: L2 norm of the change of the next-token distribution (softmax)",
    "future": "[s][l] and [s] as above, but skipped at positions 1 <= t < t_s alone and measured "
    "at t >= t_s; t_s is drawn from 8, 16, .. below len - 4 (counted from the sequence's first "
    "position), the number of draws is told",
    "thoughts": "[s][l] and [s] as above, but skipped at the thoughts alone (chain-of-thought "
    "tokens, hybrid steps, latents) and measured where the answer's tokens are predicted: at the "
    "position before each, which is not skipped even if it is a thought",
    "local": "[s][l]: relative change of what block l > s adds where what layer s has added is "
    "taken from the residual stream that block l reads, and nothing else",
    "pooled": DEFINITION,
}
_GRID = 8  # candidates of t_s stand that far apart
_END = 4  # and that far from the end


@dataclass
class Effects:
    """Effects of skipping each layer.

    Attributes:
        layers: on what later layers add, cells [s][l].
        output: on the next-token distribution, cells [s].
        rows: means and maxima over the positions of single sequences, lists of (N, L, L) tensors
            by statistic.
    """

    layers: Pool
    output: Pool
    rows: dict[str, list[Tensor]] = field(default_factory=lambda: {"mean": [], "max": []})

    @staticmethod
    def of(stream: ResidualStream) -> Effects:
        """None counted yet."""
        return Effects(Pool(len(stream), len(stream)), Pool(len(stream)))

    def per_sequence(self, statistic: str = "mean") -> Tensor:
        """Effects on later layers in each sequence, (N, L, L); nan for l <= s."""
        return torch.cat(self.rows[statistic])

    def as_dict(self) -> dict[str, Any]:
        """For a record."""
        return {"layers": self.layers.as_dict(), "output": self.output.as_dict()}


@dataclass(frozen=True)
class LayerSkips:
    """Skips the layers of a model, one at a time, while it reads sequences.

    Attributes:
        stream: of the model.
        sequences: that it reads.
        positions_at_once: bounds the memory.
        layers: that are skipped; None for all.
        advance: called when a layer of a chunk is done.
        outputs: whether effects on the output are measured too; the head of a small model costs as
            much as several blocks.
    """

    stream: ResidualStream
    sequences: Sequences
    positions_at_once: int = 1024
    layers: Collection[int] | None = None
    advance: Callable[[], None] | None = None
    outputs: bool = True

    @torch.no_grad()
    def everywhere(self, part: Part = "block") -> Effects:
        """Effects of skipping a part of each layer at all positions but the first."""
        effects = Effects.of(self.stream)
        for chunk in self._chunks():
            where_NT = chunk.mask_NT & ~chunk.first_NT
            self._skip_each(chunk, part, where_NT, groups(chunk), effects)
        return effects

    @torch.no_grad()
    def future(self, *, draws: int = 4, seed: int = 0) -> Effects:
        """Effects of skipping each block at early positions on those behind.

        Args:
            draws: how many t_s each sequence has at most.
            seed: of the draws.
        """
        effects = Effects.of(self.stream)
        generator = torch.Generator().manual_seed(seed)
        for chunk in self._chunks():
            place_NT = chunk.mask_NT.cumsum(1) - 1  # counted from the first real position
            drawn = [_boundaries(int(n), draws, generator) for n in chunk.mask_NT.sum(1)]
            for each in range(draws):
                # A sequence with fewer of them takes no part in the later draws.
                at = [row[each] if each < len(row) else 0 for row in drawn]
                begin_N1 = torch.tensor(at, device=place_NT.device)[:, None]
                early_NT = chunk.mask_NT & ~chunk.first_NT & (place_NT < begin_N1)
                late_NT = chunk.mask_NT & (place_NT >= begin_N1) & (begin_N1 > 0)
                where = {name: group & late_NT for name, group in groups(chunk).items()}
                self._skip_each(chunk, "block", early_NT, where, effects)
        return effects

    @torch.no_grad()
    def thoughts(self) -> Effects:
        """Effects of skipping each block at the thoughts on the prediction of the answer."""
        effects = Effects.of(self.stream)
        for chunk in self._chunks():
            kinds = torch.tensor(THOUGHTS, device=chunk.kind_NT.device)
            answers_NT = chunk.kind_NT == PositionKind.ANSWER
            # The position before an answer token predicts it; the last thought often is one.
            predicts_NT = torch.zeros_like(answers_NT)
            predicts_NT[:, :-1] = answers_NT[:, 1:]
            where_NT = torch.isin(chunk.kind_NT, kinds) & ~chunk.first_NT & ~predicts_NT
            self._skip_each(chunk, "block", where_NT, {ALL: predicts_NT}, effects)
        return effects

    @torch.no_grad()
    def local(self) -> Effects:
        """Effects of what each block has added on each later one, nothing recomputed between."""
        effects = Effects.of(self.stream)
        for chunk in self._chunks():
            trajectory = self.stream.trajectory(chunk.x_NTD, chunk.mask_NT)
            where, where_NT1 = groups(chunk), (chunk.mask_NT & ~chunk.first_NT)[..., None]
            for layer in self._skipped():
                written = trajectory.added(layer, "block").masked_fill(~where_NT1, 0.0)
                for later in range(layer + 1, len(self.stream)):
                    h = trajectory.resid_pre[later] - written
                    change_NT = _change(
                        trajectory, later, self.stream.block(trajectory, later, h) - h
                    )
                    effects.layers.add((layer, later), change_NT, where)
        return effects

    def _chunks(self) -> Iterator[Sequences]:
        return self.sequences.chunks(self.positions_at_once)

    def _skipped(self) -> Iterator[int]:
        """The layers that are skipped, each told when it is done."""
        for layer in range(len(self.stream)) if self.layers is None else self.layers:
            yield layer
            if self.advance is not None:
                self.advance()

    def _skip_each(
        self,
        chunk: Sequences,
        part: Part,
        where_NT: Tensor,
        measured: dict[str, Tensor],
        effects: Effects,
    ) -> None:
        """Skip each layer at some positions of a chunk, and count what changes at others."""
        stream, count = self.stream, len(self.stream)
        rows = {name: torch.full((len(chunk), count, count), float("nan")) for name in effects.rows}
        for name, table in rows.items():
            effects.rows[name].append(table)
        anywhere_NT = torch.stack(list(measured.values())).any(0)
        if not bool(anywhere_NT.any()):  # a future of sequences that have none
            for _ in self._skipped():
                pass
            return
        trajectory = stream.trajectory(chunk.x_NTD, chunk.mask_NT)
        moved = _moved(stream, anywhere_NT, trajectory.final) if self.outputs else None
        for layer in self._skipped():
            h = stream.skipped(trajectory, layer, part, where_NT)
            for later, after in enumerate(stream.onward(trajectory, h, layer + 1), start=layer + 1):
                if later > layer + 1:
                    change_NT = _change(trajectory, later - 1, after - h)
                    effects.layers.add((layer, later - 1), change_NT, measured)
                    _by_row(rows, layer, later - 1, change_NT, measured[ALL])
                h = after
            if moved is not None:
                effects.output.add((layer,), moved(h), measured)


def _change(trajectory: Trajectory, layer: int, added: Tensor) -> Tensor:
    """Relative change of what a block adds, (N, T)."""
    before = trajectory.added(layer, "block")
    return relative(before - added, before)


def _moved(
    stream: ResidualStream, where_NT: Tensor, final_NTD: Tensor
) -> Callable[[Tensor], Tensor]:
    """What tells how far another last residual stream moves the next-token distributions there."""
    # Their probabilities are kept: the head of a small model costs as much as several blocks.
    before = [stream.logits(h).softmax(-1) for h in _in_blocks(stream, final_NTD[where_NT])]

    def moved(h_NTD: Tensor) -> Tensor:
        moved_M = [
            (stream.logits(h).softmax(-1) - probs).norm(dim=-1)
            for h, probs in zip(_in_blocks(stream, h_NTD[where_NT]), before, strict=True)
        ]
        moved_NT = torch.zeros(where_NT.shape, device=where_NT.device)
        return moved_NT.masked_scatter(where_NT, torch.cat(moved_M))

    return moved


def _in_blocks(stream: ResidualStream, h_MD: Tensor) -> Sequence[Tensor]:
    """Positions in blocks whose logits may be held at once."""
    return torch.split(h_MD, stream.lm.logits_at_once)


def _by_row(
    rows: dict[str, Tensor], layer: int, later: int, change_NT: Tensor, where_NT: Tensor
) -> None:
    count_N = where_NT.sum(1)
    total_N = change_NT.masked_fill(~where_NT, 0.0).sum(1)
    most_N = change_NT.masked_fill(~where_NT, float("-inf")).amax(1)
    none_N = count_N == 0
    rows["mean"][:, layer, later] = (total_N / count_N).masked_fill(none_N, float("nan")).cpu()
    rows["max"][:, layer, later] = most_N.masked_fill(none_N, float("nan")).cpu()


def _boundaries(length: int, draws: int, generator: torch.Generator) -> list[int]:
    """Where the future begins in a sequence: some of 8, 16, .. below its end."""
    candidates = torch.arange(_GRID, max(_GRID, length - _END), _GRID)
    order = torch.randperm(len(candidates), generator=generator)[:draws]
    return [int(t) for t in candidates[order]]
