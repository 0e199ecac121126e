"""`latentgym bench recommend`: beam search over a catalogue, ours against transformers' `generate`.

What is measured and how: `latentgym.cli.benches.settings.RecommendBench`.

Legend: Q users, K beams.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from latentgym.cli.benches.settings import RecommendBench
from latentgym.heads import PolicyHead, RATTHead, TokenHead
from latentgym.lm import LatentLM, load_model
from latentgym.lm.model import left_pad
from latentgym.lm.tiny import vocabulary_of
from latentgym.progress import progress_bar
from latentgym.registry import make_vector_env
from latentgym.rollout import Engine, Policy, Ranked, rank

_TASK = "latent/MovieLens"
_OURS, _LATENT, _PEER = "latentgym", "latentgym, a latent before", "transformers generate"


def run(options: RecommendBench) -> dict[str, Any]:
    """Run the benchmark; all figures as plain data.

    Raises:
        UsageError: settings that cannot work.
    """
    options.validate()
    if options.threads:
        torch.set_num_threads(options.threads)
    # Tiny models speak the catalogue's words, so that they are made for it.
    words = vocabulary_of(options.model)
    env = _env("token", words, options, options.items)
    lm = load_model(options.model, tokenizer=env.task.tokenizer)
    hybrid = _env("hybrid", words, options, options.items)
    subjects: dict[str, Callable[[], Any]] = {
        _OURS: lambda: _ours(lm, env, TokenHead(0.0)),
        _LATENT: lambda: _ours(lm, hybrid, RATTHead(lm.hidden_size, 0.0)),
        _PEER: lambda: _generate(lm, env),
    }
    seconds, found = _timed(subjects, options.rounds)
    rates = {name: options.users / statistics.median(taken) for name, taken in seconds.items()}
    ratios = [peer / ours for ours, peer in zip(seconds[_OURS], seconds[_PEER], strict=True)]
    ours, peer = found[_OURS].entry_QK, found[_PEER].entry_QK
    same = [len({*a} & {*b}) / len(b) for a, b in zip(ours.tolist(), peer.tolist(), strict=True)]
    return {
        "bench": "recommend",
        "settings": {**asdict(options), "catalogue": len(env.task.choices.titles)},
        "model": lm.name,
        "device": str(lm.device),
        "dtype": str(lm.dtype),
        "threads": torch.get_num_threads(),
        "users_per_second": rates,
        "positions_per_user": {
            _OURS: _mean_prompt(env) + float(found[_OURS].positions_Q.mean()),
            _PEER: float(found[_PEER].positions_Q.mean()),
        },
        "ratios": {
            "generate / ours": statistics.median(ratios),
            "with a latent / without": statistics.median(
                b / a for a, b in zip(seconds[_OURS], seconds[_LATENT], strict=True)
            ),
        },
        "same_answers": {
            "first title": float((ours[:, 0] == peer[:, 0]).mean()),
            f"among the {options.beams} found": float(np.mean(same)),
        },
        "scaling": _scaling(lm, words, options),
    }


def _env(family: str, words: str | None, o: RecommendBench, items: int) -> Any:
    """An environment whose catalogue has that many items."""
    where: dict[str, Any] = {} if o.source == "none" else {"source": o.source}
    if o.source == "generated":
        where |= {"items": items, "customers": 500}
    made = make_vector_env(
        f"{_TASK}-{family}", o.users, model=words, split="test", beams=o.beams, **where
    )
    return made.unwrapped


def _timed(
    subjects: Mapping[str, Callable[[], Any]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of every subject by round, and what it found."""
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    with progress_bar("bench recommend", (rounds + 1) * len(subjects)) as advance:
        found = {}
        for name, subject in subjects.items():  # warm-up
            found[name] = subject()
            advance(1)
        for _ in range(rounds):
            for name, subject in subjects.items():
                started = time.perf_counter()
                subject()
                seconds[name].append(time.perf_counter() - started)
                advance(1)
    return seconds, found


def _ours(lm: LatentLM, env: Any, head: PolicyHead) -> Ranked:
    choices = env.task.choices
    session = Engine(Policy(lm, head)).start(_prompts(env), env.protocol, seed=0)
    session.run(answers=False)
    return rank(lm, session.decode_state, choices.trie, choices.beams)


def _generate(lm: LatentLM, env: Any) -> Ranked:
    """transformers' beam search with its own attention, same weights."""
    model: Any = lm.model
    choices, longest = env.task.choices, int(env.task.choices.trie.length_E.max())
    ids, mask = left_pad(_prompts(env), lm.tokenizer.pad_id, lm.device)
    children, entries = _prefixes(env)
    start, eos = ids.shape[1], lm.tokenizer.eos_id
    ours, model.config._attn_implementation = model.config._attn_implementation, "sdpa"
    try:
        out = model.generate(
            ids,
            attention_mask=mask.long(),
            num_beams=choices.beams,
            num_return_sequences=choices.beams,
            do_sample=False,
            temperature=None,
            top_k=None,
            top_p=None,
            length_penalty=0.0,
            early_stopping=False,
            max_new_tokens=longest,
            eos_token_id=eos,
            pad_token_id=lm.tokenizer.pad_id,
            # It also asks about beams that have ended: those are padded.
            prefix_allowed_tokens_fn=lambda _, said: children.get(
                tuple(said[start:].tolist()), [eos]
            ),
            return_dict_in_generate=True,
            output_scores=True,
        )
    finally:
        model.config._attn_implementation = ours
    shape = len(ids), choices.beams
    said = [tuple(row) for row in out.sequences[:, start:].tolist()]
    entry = [entries[row[: row.index(eos) + 1]] for row in said]
    steps = out.sequences.shape[1] - start
    read = choices.beams * (mask.sum(1).cpu().numpy() + steps - 1)
    return Ranked(
        np.array(entry).reshape(shape),
        out.sequences_scores.double().cpu().numpy().reshape(shape),
        read,
    )


def _prefixes(env: Any) -> tuple[dict[tuple[int, ...], list[int]], dict[tuple[int, ...], int]]:
    """What may follow every prefix of a title, and the entry that each whole title is."""
    choices = env.task.choices
    allowed: dict[tuple[int, ...], set[int]] = {}
    entries = {}
    for entry in range(len(choices.titles)):
        tokens = tuple(choices.tokens(entry))
        entries[tokens] = entry
        for end, token in enumerate(tokens):
            allowed.setdefault(tokens[:end], set()).add(token)
    return {prefix: sorted(tokens) for prefix, tokens in allowed.items()}, entries


def _prompts(env: Any) -> list[list[int]]:
    return [env.prompt(i) for i in range(env.num_envs)]


def _mean_prompt(env: Any) -> float:
    return float(np.mean([len(prompt) for prompt in _prompts(env)]))


def _scaling(lm: LatentLM, words: str | None, o: RecommendBench) -> dict[str, Any]:
    """Seconds a user against the size of the catalogue, and its exponent."""
    if words is None or len(o.sizes) < 2:  # a tiny model knows the words of one catalogue only
        return {}
    cost: dict[int, float] = {}
    for size in o.sizes:
        env = _env("token", words, o, size)
        taken = []
        for _ in range(o.rounds):
            started = time.perf_counter()
            _ours(lm, env, TokenHead(0.0))
            taken.append((time.perf_counter() - started) / o.users)
        cost[len(env.task.choices.titles)] = statistics.median(taken)
    x, y = np.log(list(cost)), np.log(list(cost.values()))
    return {"seconds_per_user_by_items": cost, "exponent_items": float(np.polyfit(x, y, 1)[0])}
