"""The step of a batch as one compiled graph.

On a GPU a step of a small model is thousands of short kernels that the host starts one by one.
Compiled, they are few, and started together. On a CPU nothing is gained but the same check: one
graph without a break, compiled once for each capacity of the cache and number of rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from latentgym.errors import UsageError
from latentgym.heads import Action
from latentgym.rollout.batch import Batch
from latentgym.rollout.recorder import Frame
from latentgym.rollout.step import Doing

BACKEND = "inductor"
_MOST_GRAPHS = 64  # shapes that one process may compile; more are a fault of ours


def whole_step(batch: Batch, doing: Doing, answers: bool, log_prob: bool, heaviest: int) -> Frame:
    """Act and read; see `Batch`."""
    frame, chosen = batch.act(doing, answers, log_prob=log_prob, heaviest=heaviest)
    batch.read(frame, chosen, doing)
    return frame


@functools.cache
def _compiled(backend: str, mode: str | None) -> Callable[..., Frame]:
    step: Callable[..., Frame] = torch.compile(
        whole_step, fullgraph=True, dynamic=False, backend=backend, mode=mode
    )
    return step


def compiled_step(
    batch: Batch, doing: Doing, answers: bool, log_prob: bool, heaviest: int
) -> Frame:
    """`whole_step`, compiled.

    Raises:
        UsageError: what the policy computes cannot be compiled as a whole.
    """
    import torch._dynamo
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    gpu = batch.length_N.device.type == "cuda"
    step = _compiled(BACKEND, "reduce-overhead" if gpu else None)
    with torch._dynamo.config.patch(recompile_limit=_MOST_GRAPHS):
        if gpu:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        try:
            frame = step(batch, doing, answers, log_prob, heaviest)
        except (torch._dynamo.exc.TorchDynamoException, GuardOnDataDependentSymNode) as error:
            raise UsageError(
                f"the step of {type(batch.policy.head).__name__} cannot be compiled as a whole "
                f"({str(error).splitlines()[0]}); leave compile out."
            ) from error
    return _copied(frame) if gpu else frame


def _copied(frame: Frame) -> Frame:
    """Out of the memory of the graph, which the next step overwrites."""

    def copies(values: Action) -> Action:
        return {name: x.clone() for name, x in values.items()}

    return Frame(
        *(frame.rows, frame.step_B.clone(), frame.token_B.clone(), frame.kind_B.clone()),
        copies(frame.action),
        None if frame.logp_B is None else frame.logp_B.clone(),
        copies(frame.seen),
    )


def whole_groups(going_B: Tensor, group: int) -> Tensor:
    """Places of a batch to keep: of groups with rows that go on, and others up to a power of two.

    So that a batch is compiled for few numbers of rows, and its groups stay whole.

    Args:
        going_B: which rows go on.
        group: rows of a group, neighbours all of them.
    """
    going_Q = going_B.view(-1, group).any(1)
    wanted, groups = int(going_Q.sum()), len(going_Q)
    size = min(groups, 1 << max(0, wanted - 1).bit_length())
    first = torch.sort(going_Q, descending=True, stable=True).indices[:size].sort().values
    keep_BG = first[:, None] * group + torch.arange(group, device=first.device)
    return keep_BG.ravel()
