"""What people look at of a rollout: its thoughts one by one, and its text by who wrote it.

A thought is shown by tokens: those that it mixes, with their weights, where the head mixes tokens
(`PolicyHead.heaviest`), and else those whose embeddings are nearest to it, with their cosines.

Legend: N rows, T steps, M thoughts, D width, k tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from latentgym.episodes.protocol import EpisodeState, Phase, Protocol
from latentgym.heads import Action
from latentgym.rollout.diagnostics import nearest_tokens
from latentgym.rollout.policy import Policy
from latentgym.rollout.rollouts import MOST_STEPS, THOUGHTS, IntArray, Rollouts, StepKind
from latentgym.text.lengths import shortened

Step = dict[str, Any]
"""A thought to look at, in what JSON can say; the format is in docs/records.md."""

Segment = dict[str, str]
"""A piece of text: its `kind`, one of `SEGMENTS`, and the `text`."""

THOUGHT, ANSWER = "thought", "answer"
TOOL_CALL, TOOL_RESPONSE, FORCED_PROMPT = "tool_call", "tool_response", "forced_prompt"
SEGMENTS = (THOUGHT, ANSWER, TOOL_CALL, TOOL_RESPONSE, FORCED_PROMPT)

_MOST_SEGMENTS = 64  # of a row
_AT_ONCE = 256  # thoughts that are embedded and compared together


@torch.no_grad()
def thought_steps(policy: Policy, rollouts: Rollouts, most: int) -> list[list[Step]]:
    """The thoughts of each row, the first `MOST_STEPS` of them.

    Args:
        policy: that thought them.
        rollouts: of an engine with `keep_thoughts`. Of tokens that were given, not decoded, it has
            kept nothing.
        most: so many tokens of each.
    """
    found: list[list[Step]] = [[] for _ in range(len(rollouts))]
    thought_NT = np.isin(rollouts.kind_NT, THOUGHTS)
    row_M, step_M = np.nonzero(thought_NT & (thought_NT.cumsum(1) <= MOST_STEPS))
    shown = _Shown(policy)
    for start in range(0, len(row_M), _AT_ONCE):
        rows, steps = row_M[start : start + _AT_ONCE], step_M[start : start + _AT_ONCE]
        made = _steps(policy, rollouts, rows, steps, most, shown)
        for row, step in zip(rows.tolist(), made, strict=True):
            found[row].append(step)
    return found


def _steps(
    policy: Policy,
    rollouts: Rollouts,
    row_M: IntArray,
    step_M: IntArray,
    most: int,
    shown: Callable[[int], str],
) -> list[Step]:
    lm, device = policy.lm, policy.lm.device
    token_M = torch.from_numpy(rollouts.token_NT[row_M, step_M]).to(device)
    thoughts = {name: value[row_M, step_M].to(device) for name, value in rollouts.actions.items()}
    plain_M = torch.from_numpy(rollouts.kind_NT[row_M, step_M] == StepKind.PLAIN).to(device)
    thoughts |= {"token": token_M, "plain": plain_M}
    seen = {name: value[row_M, step_M].float() for name, value in rollouts.seen.items()}
    table_VD, norm_V = lm.table_VD, lm.table_norms()
    x_MD = policy.thought_inputs(thoughts, table_VD)
    numbers = {"norm": x_MD.float().norm(dim=-1) / norm_V.mean(), **_of_model(seen)}
    if (gate_M := policy.head.statistics(thoughts, table_VD).get("gate")) is not None:
        numbers["gate"] = gate_M
    if policy.thinks_in_tokens:
        by, weights_Mk, ids_Mk = "weights", torch.ones(len(token_M), 1), token_M[:, None]
    elif "ids" in seen:
        by, weights_Mk, ids_Mk = "weights", seen["weights"], rollouts.seen["ids"][row_M, step_M]
    else:
        by, (weights_Mk, ids_Mk) = "cosine", nearest_tokens(x_MD, table_VD, norm_V, most)
    columns = {name: value.tolist() for name, value in numbers.items()}
    made = []
    for i, (ids, weights) in enumerate(zip(ids_Mk.tolist(), weights_Mk.tolist(), strict=True)):
        own = {name: column[i] for name, column in columns.items()}
        heaviest = [(id_, w) for id_, w in zip(ids, weights, strict=True) if w and isfinite(w)]
        if plain_M[i]:
            heaviest = [(int(token_M[i]), 1.0)]
        made.append(
            {
                "by": "weights" if plain_M[i] else by,
                "ids": [id_ for id_, _ in heaviest],
                "tokens": [shown(id_) for id_, _ in heaviest],
                "weights": [_short(weight) for _, weight in heaviest],
                **{name: _short(value) for name, value in own.items() if isfinite(value)},
            }
        )
    return made


def _of_model(seen: Action) -> Action:
    """The entropies that were kept; not a number where none was."""
    if "entropy" not in seen:
        return {}
    given_M = (seen["weights"] == 0).all(-1) if "weights" in seen else seen["entropy"].isnan()
    return {"entropy": seen["entropy"].masked_fill(given_M, torch.nan)}


def _short(value: float) -> float:
    """Three digits, which are enough to look at: more would often tell who shared a batch."""
    return float(f"{value:.3g}")


class _Shown:
    """The text of a token, of those without any its number."""

    def __init__(self, policy: Policy) -> None:
        self._decode = policy.lm.tokenizer.decode
        self._known: dict[int, str] = {}

    def __call__(self, token: int) -> str:
        if token not in self._known:
            self._known[token] = self._decode([token]) or f"<{token}>"
        return self._known[token]


def segments(
    protocol: Protocol,
    decode: Callable[[Sequence[int]], str],
    token_T: IntArray,
    inserted_T: npt.NDArray[np.bool_],
    call_start: Callable[[str], int],
) -> list[Segment]:
    """The text behind a prompt by who wrote it and what for.

    Latent thoughts are in it as the tokens by which they are read. At most 64 segments are told,
    each as far as `shortened` goes.

    Args:
        protocol: the rules of the episode.
        decode: tokens to text.
        token_T: all tokens behind the prompt.
        inserted_T: which of them the environment put there.
        call_start: where in the text since the last response a tool call begins.
    """
    found: list[tuple[str, str]] = []
    state, row, mine = EpisodeState(protocol, 1), np.zeros(1, dtype=np.int64), list[int]()
    kind, t = THOUGHT, 0

    def close(as_kind: str) -> None:
        text = decode(mine)
        begin = call_start(text) if as_kind == TOOL_CALL else 0
        found.extend([(THOUGHT, text[:begin]), (as_kind, text[begin:])])
        mine.clear()

    while t < len(token_T):
        end = t + _run(inserted_T[t:])
        if inserted_T[t]:
            close(kind)
            calls = state.phase[0] == Phase.TOOL_CALL
            mine.extend(token_T[t:end].tolist())
            close(TOOL_RESPONSE if calls else FORCED_PROMPT)
            state.resume(row)
            t = end
            continue
        now = THOUGHT if state.phase[0] == Phase.THINK else ANSWER
        if now != kind:
            close(kind)
            kind = now
        # As far as nothing happens, and the token with which something may.
        n = state.pass_over(0, token_T[t:end])
        mine.extend(token_T[t : t + n].tolist())
        t += n
        if t < end:
            state.advance(token_T[t : t + 1])
            mine.append(int(token_T[t]))
            t += 1
        if state.phase[0] == Phase.TOOL_CALL:
            close(TOOL_CALL)
    close(kind)
    told = [(name, text) for name, text in found if text]
    return [{"kind": name, "text": shortened(text)} for name, text in told[:_MOST_SEGMENTS]]


def _run(flag_T: npt.NDArray[np.bool_]) -> int:
    """How many flags are like the first."""
    other_T = flag_T != flag_T[0]
    return int(other_T.argmax()) if other_T.any() else len(flag_T)
