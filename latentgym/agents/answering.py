"""Answers from finished episodes, with what they cost.

Legend: K ranked entries.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from latentgym import rollout
from latentgym.evaluation.accounting import Positions
from latentgym.evaluation.answers import Answer, Answered, hash_of
from latentgym.evaluation.ranking import ranking_metrics

_SHOWN = 20  # entries of a ranking that are kept with an answer


def make_answer(
    task: Any, index: int, episodes: rollout.Episodes, rows: npt.NDArray[np.int64], chosen: int
) -> Answer:
    """The answer of row `chosen`, with the cost of all `rows`."""
    rollouts = episodes.rollouts
    ids, rules = rollouts.prompts[rollouts.prompt_N[chosen]], episodes.protocol
    given = 0 if rollouts.given_QkD is None else rollouts.given_QkD.shape[1]
    prompt = len(ids) + given
    kind_T = rollouts.kind_NT[chosen][rollouts.kind_NT[chosen] != rollout.StepKind.PAD]
    thoughts = rollouts.tokens(chosen)[np.isin(kind_T, rollout.THOUGHTS)]
    return Answer(
        index=index,
        info=episodes.infos[chosen],
        thoughts=task.tokenizer.decode(thoughts.tolist()),
        positions=Positions(
            prompt=prompt,
            thought=float((rollouts.thoughts_N - rollouts.plain_N)[rows].sum()),
            plain=float(rollouts.plain_N[rows].sum()),
            answer=float(rollouts.tokens_N[rows].sum()),
            discarded=rollouts.discarded * len(rows) / len(rollouts),
            inserted=float(rollouts.inserted_N[rows].sum()),
        ),
        context=prompt + int(rollouts.length_N[chosen]),
        samples=tuple(float(episodes.infos[row]["score"]) for row in rows),
        metrics=_diversity(episodes, rows) if len(rows) > 1 else {},
        steps=episodes.steps[chosen] if episodes.steps else [],
        segments=[]
        if rules is None
        else rollout.segments(
            rules,
            task.tokenizer.decode,
            rollouts.tokens(chosen),
            kind_T == rollout.StepKind.INSERTED,
            task.tool_call_start,
        ),
        truncated=bool(rollouts.truncated_N[chosen]),
        prompt_hash=hash_of(ids),
    )


def _diversity(episodes: rollout.Episodes, rows: npt.NDArray[np.int64]) -> dict[str, float]:
    """Shares of `rows` whose answer, or text, no earlier one has; what was not parsed is none."""
    parsed = {episodes.infos[row]["parsed"] for row in rows} - {""}
    texts = {tuple(episodes.rollouts.tokens(int(row)).tolist()) for row in rows}
    return {
        "samples/different_answers": len(parsed) / len(rows),
        "samples/different_texts": len(texts) / len(rows),
    }


def ranked_answers(
    policy: rollout.Policy,
    env: Any,
    questions: npt.NDArray[np.int64],
    seed: int,
    answered: Answered,
    keep_thoughts: int = 0,
) -> list[Answer]:
    """Answer with rankings of the task's choices; see `Agent.answer`.

    Metrics are those of `ranking_metrics`; an entry that was not ranked counts as behind all
    others, so with fewer beams than entries `mrr` is a lower bound.
    """
    answers: dict[int, Answer] = {}
    engine = rollout.Engine(policy, keep_thoughts=keep_thoughts)
    for places, episodes, ranked in rollout.choose_in_batches(engine, env, questions, seed=seed):
        latents = rollout.latent_statistics(policy, episodes.rollouts)
        batch = _ranked(env.unwrapped.task, questions[places], episodes, ranked)
        batch = [replace(a, batch_metrics=latents) for a in batch]
        answers |= zip(places.tolist(), batch, strict=True)
        answered(batch)
    return [answers[place] for place in range(len(questions))]


def _ranked(
    task: Any, questions: npt.NDArray[np.int64], episodes: rollout.Episodes, ranked: rollout.Ranked
) -> list[Answer]:
    right = np.array([task.entry(int(index)) for index in questions])
    hit_QK = ranked.entry_QK == right[:, None]
    metrics = ranking_metrics(np.where(hit_QK.any(1), hit_QK.argmax(1) + 1, 0))
    titles = task.choices.titles
    out = []
    for row, index in enumerate(questions.tolist()):
        best = zip(ranked.entry_QK[row, :_SHOWN], ranked.logp_QK[row, :_SHOWN], strict=True)
        answer = make_answer(task, index, episodes, np.array([row]), row)
        positions = replace(answer.positions, answer=float(ranked.positions_Q[row]))
        chosen = {"kind": "answer", "text": episodes.infos[row]["answer"]}
        out.append(
            replace(
                answer,
                positions=positions,
                segments=[*answer.segments, chosen],
                context=answer.context + episodes.infos[row]["tokens"],
                metrics={name: float(value_Q[row]) for name, value_Q in metrics.items()},
                trace=[{"title": titles[e], "logp": float(p)} for e, p in best if e >= 0],
            )
        )
    return out
