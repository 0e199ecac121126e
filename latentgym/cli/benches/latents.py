"""Latents per second of every head, and the most that the memory's bandwidth allows.

The floor of a step is the time in which all that it cannot but read comes from memory once: the
model's matrices, what the head reads of its own or of the embedding table, and the caches. It is
told from the model's sizes (`latentgym.lm.footprint`) and a bandwidth that is measured here.

Legend: G rows of one prompt, P prompt tokens, T new positions, V vocabulary, D width.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import torch

from latentgym.cli.benches.clock import now
from latentgym.cli.benches.heads import every_head
from latentgym.episodes.protocol import Budget, Protocol
from latentgym.heads import PolicyHead
from latentgym.lm import LatentLM
from latentgym.lm.footprint import Layout, read_per_step
from latentgym.progress import progress_bar
from latentgym.rollout import Engine, Policy

TOKEN = "token"  # the head that all others are compared with
STEPS = 16  # of a rollout: a step costs next to the same wherever it stands
_BUFFER = 1 << 26  # fp32 numbers, 256 MB: more than caches hold
_READS = 4
_FP32 = torch.float32.itemsize


def latents_per_second(
    lm: LatentLM, sizes: Layout, prompt: Sequence[int], groups: Sequence[int], rounds: int
) -> dict[str, Any]:
    """The table, with the bandwidth behind its floors.

    Args:
        lm: the model.
        sizes: of it.
        prompt: token ids.
        groups: numbers of rows of the prompt.
        rounds: in each, every head thinks behind every group, in turn.

    Returns:
        By rows, as text, and then by head: latents (tokens, of the head `token`) per second, their
        floor, and a step's time over that of a token's, the median of ratios within a round.
    """
    made = every_head(lm.hidden_size)
    engines = {name: Engine(Policy(lm, head)) for name, head in made.items()}
    ms: dict[tuple[int, str], list[float]] = {}
    with progress_bar("latents per second", (rounds + 1) * len(groups)) as advance:
        for number in range(rounds + 1):
            for rows in groups:
                for name, engine in engines.items():
                    took = step_ms(engine, prompt, rows, STEPS)[1]
                    if number:  # the first warms up
                        ms.setdefault((rows, name), []).append(took)
                advance(1)
    speed = bandwidth(lm.device)

    def entry(rows: int, name: str) -> dict[str, float]:
        read = _read(lm, sizes, made[name], rows, len(prompt))
        pairs = zip(ms[rows, name], ms[rows, TOKEN], strict=True)
        return {
            "latents_per_s": 1000 * rows / statistics.median(ms[rows, name]),
            "floor_per_s": rows * speed / read,
            "of_token_step": statistics.median(head / token for head, token in pairs),
        }

    table = {str(rows): {name: entry(rows, name) for name in engines} for rows in groups}
    return {"bandwidth_bytes_per_s": speed, "latents_per_second": table}


def step_ms(engine: Engine, prompt: Sequence[int], rows: int, steps: int) -> tuple[float, float]:
    """Milliseconds per step of a rollout, with and without the prefill."""
    protocol = Protocol(Budget(steps, exact=True), Budget(0))
    device = engine.policy.lm.device
    started = now(device)
    session = engine.start([prompt], protocol, seed=0, group_size=rows)
    prefilled = now(device)
    session.run()
    ended = now(device)
    return (ended - started) / steps, (ended - prefilled) / steps


def bandwidth(device: torch.device) -> float:
    """Bytes per second that come from a device's memory, the best of a few long reads."""
    numbers = torch.ones(_BUFFER, device=device)
    numbers.sum()  # warms up
    took = []
    for _ in range(_READS):
        started = now(device)
        numbers.sum()
        took.append(now(device) - started)
    return 1000 * numbers.nbytes / min(took)


def _read(lm: LatentLM, sizes: Layout, head: PolicyHead, rows: int, prompt: int) -> float:
    """Bytes that a step cannot but read.

    A head counts two operations for each number of its own, or of the embedding table, that it
    multiplies with (`PolicyHead.flops`).
    """
    of_head = head.flops(lm.vocab_size, lm.hidden_size)[0] / 2 * _FP32
    if head.needs_memory:
        of_head += prompt * lm.hidden_size * lm.dtype.itemsize
    dtype = lm.autocast or lm.dtype
    return of_head + read_per_step(sizes, dtype, rows, prompt, STEPS // 2)
