"""`latentgym bench rollout`: the engine against `generate`, a loop without cache, and the floor.

What is measured and how: `latentgym.cli.benches.settings.RolloutBench`.

Legend: G rows of one prompt, P prompt tokens, T new positions.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.cache_utils import DynamicCache

from latentgym.cli.benches.clock import clock_of, now
from latentgym.cli.benches.heads import every_head
from latentgym.cli.benches.latents import TOKEN, latents_per_second, step_ms
from latentgym.cli.benches.peer_generate import generate_ms
from latentgym.cli.benches.peer_llama_cpp import absent, llama_cpp_ms
from latentgym.cli.benches.settings import RolloutBench
from latentgym.episodes.protocol import Budget, Protocol
from latentgym.heads import MultiTokenHead, TokenHead
from latentgym.lm import LatentLM, load_model
from latentgym.lm.footprint import layout_of
from latentgym.progress import progress_bar
from latentgym.rollout import Engine, Policy, log_probs
from latentgym.text.tokenizers import ByteTokenizer
from latentgym.training.rollout_correction import RoundedPolicy

_THOUGHTS, _ANSWER = 32, 16  # of a chain that is thought and then answered
_GENERATE, _STATIC = "transformers generate", "transformers generate, static cache"
_ALONE = ", 1 row"
_LLAMA_CPP, _ONE_ROW = f"llama.cpp{_ALONE}", f"step {TOKEN}{_ALONE}"
_PACKED = "floor: packed linear layers"
_NEAR = 0.2  # the usual bound of a ratio
_NO_CACHE_STEPS = 4  # the loop without cache is too slow to run to the end


Subject = Callable[[], dict[str, float]]


def run(options: RolloutBench) -> dict[str, Any]:
    """Run the benchmark; all figures as plain data.

    Raises:
        UsageError: there is no such model, device or file of weights, or the model has experts.
    """
    without = absent(options.gguf)
    if options.threads:
        torch.set_num_threads(options.threads)
    lm = load_model(options.model, tokenizer=ByteTokenizer(), device=options.device)
    sizes = layout_of(lm.model)  # first, as it may refuse the model
    rounded = None  # what computes in bfloat16 by itself has nothing to stand beside
    if lm.dtype == torch.float32:
        rounded = RoundedPolicy(Policy(lm, TokenHead()), torch.bfloat16).policy
    rng = np.random.default_rng(0)
    prompt = rng.integers(3, lm.vocab_size - 3, options.prompt).tolist()
    subjects = _subjects(lm, rounded, prompt, options)
    timings: dict[str, list[float]] = {}
    with progress_bar("bench rollout", options.rounds * len(subjects)) as advance:
        for subject in subjects:
            subject()  # warm-up: packing, allocator, lazy imports
        for _ in range(options.rounds):
            for subject in subjects:
                for name, ms in subject().items():
                    timings.setdefault(name, []).append(ms)
                advance(1)
    medians = {name: statistics.median(ms) for name, ms in timings.items()}
    return {
        "bench": "rollout",
        "settings": {**asdict(options), "gguf": options.gguf and options.gguf.name},
        "model": lm.name,
        "device": str(lm.device),
        "dtype": str(lm.dtype),
        "threads": torch.get_num_threads(),
        "clock": clock_of(lm.device),
        "notes": [] if without is None else [without],
        "ms_per_step": medians,
        "steps_per_s": {
            name: 1000 * (1 if name.endswith(_ALONE) else options.group) / ms
            for name, ms in medians.items()
            if not name.startswith("floor")
        },
        "ratios": _ratios(timings, every_head(lm.hidden_size)),
        **({} if rounded is None else {"precision": _precision(lm, rounded, prompt, options)}),
        **latents_per_second(lm, sizes, prompt, options.groups, options.rounds),
        "scaling": _scaling(lm, options) if options.scaling else {},
    }


def _subjects(
    lm: LatentLM, rounded: Policy | None, prompt: list[int], o: RolloutBench
) -> list[Subject]:
    """Everything that is timed; each call gives milliseconds per step by name."""
    subjects: list[Subject] = [
        lambda: {"floor: linear layers": _floor(lm, o.group, fast=False)},
        lambda: {_PACKED: _floor(lm, o.group, fast=True)},
        lambda: {_GENERATE: generate_ms(lm, prompt, o.group, o.new)},
        lambda: {_STATIC: generate_ms(lm, prompt, o.group, o.new, static=True)},
        lambda: {"loop without cache": _no_cache(lm, prompt, o.group, o.new)},
    ]

    def rollout_of(name: str, engine: Engine) -> Subject:
        def subject() -> dict[str, float]:
            whole, step = step_ms(engine, prompt, o.group, o.new)
            return {f"rollout {name}": whole, f"step {name}": step}

        return subject

    engines = {n: Engine(Policy(lm, head)) for n, head in every_head(lm.hidden_size).items()}
    if rounded is not None:
        narrow = rounded.lm
        subjects.append(lambda: {f"{_PACKED}, bfloat16": _floor(narrow, o.group, fast=True)})
        engines["token, bfloat16"] = Engine(rounded)
    if o.gguf is not None and absent(o.gguf) is None:
        gguf, threads = o.gguf, torch.get_num_threads()
        subjects.append(lambda: {_LLAMA_CPP: llama_cpp_ms(gguf, prompt, o.new, threads)})
        one = engines[TOKEN]
        subjects.append(lambda: {_ONE_ROW: step_ms(one, prompt, 1, o.new)[1]})
    answers = partial(_answers, engines["colar"], prompt, o.group)
    return [*subjects, *(rollout_of(name, engine) for name, engine in engines.items()), answers]


def _answers(engine: Engine, prompt: list[int], group: int) -> dict[str, float]:
    """A chain of latents and its answer: behind the latents' cache, or reading all again.

    CoLaR's published code throws the cache of the latents away, and reads prompt and latents of
    every row once more before it answers.
    """
    lm = engine.policy.lm
    protocol = Protocol(Budget(_THOUGHTS, exact=True), Budget(_ANSWER, exact=True))
    started = now(lm.device)
    engine.rollout([prompt], protocol, seed=0, group_size=group)
    carried = now(lm.device) - started
    x = lm.embed(torch.tensor(prompt, device=lm.device))
    x = torch.cat([x, x.new_zeros(_THOUGHTS, x.shape[1])]).expand(group, -1, -1)
    mask = torch.ones(x.shape[:2], dtype=torch.bool, device=lm.device)
    with lm.decoding():
        started = now(lm.device)
        lm.hidden(x, mask, DynamicCache())
        again = now(lm.device) - started
    steps = _THOUGHTS + _ANSWER
    return {
        "colar, cache carried into the answer": carried / steps,
        "colar, all read again for the answer": (carried + again) / steps,
    }


def _no_cache(lm: LatentLM, prompt: list[int], group: int, new: int) -> float:
    """Reading everything again at every step, at the mean length."""
    length = len(prompt) + new // 2
    ids = torch.tensor(prompt * (length // len(prompt) + 1), device=lm.device)[:length]
    x = lm.embed(ids).expand(group, -1, -1)
    mask = torch.ones(x.shape[:2], dtype=torch.bool, device=lm.device)
    steps = min(_NO_CACHE_STEPS, new)
    with torch.inference_mode():
        started = now(lm.device)
        for _ in range(steps):
            lm.logits(lm.hidden(x, mask)[:, -1])
        return (now(lm.device) - started) / steps


def _floor(lm: LatentLM, rows: int, *, fast: bool) -> float:
    """All linear layers once."""
    layers = [m for m in lm.model.modules() if isinstance(m, nn.Linear)]
    dtype, device = lm.dtype, lm.device
    x = {
        n: torch.randn(rows, 1, n, dtype=dtype, device=device)
        for n in {m.in_features for m in layers}
    }
    with lm.decoding() if fast else torch.inference_mode():
        started = now(lm.device)
        for _ in range(4):
            for layer in layers:
                layer(x[layer.in_features])
        return (now(lm.device) - started) / 4


def _precision(
    lm: LatentLM, rounded: Policy, prompt: list[int], o: RolloutBench
) -> dict[str, float]:
    """How far the log-probabilities of a rollout in bf16 are from those of its replay in fp32."""
    protocol = Protocol(Budget(o.new, exact=True), Budget(0))
    engine = Engine(rounded, record_log_probs=True)
    rollouts = engine.rollout([prompt], protocol, seed=0, group_size=o.group)
    assert rollouts.logp_NT is not None  # see the engine's argument
    replayed_NT = log_probs(Policy(lm, TokenHead()), rollouts, o.group).cpu()
    apart_NT = rollouts.logp_NT - replayed_NT  # every step is an action
    outside_NT = ((-apart_NT).exp() - 1).abs() > _NEAR
    return {
        "mean difference, nats a token": float(apart_NT.abs().mean()),
        f"share of ratios outside 1 ± {_NEAR}": float(outside_NT.float().mean()),
    }


def _ratios(timings: dict[str, list[float]], heads: Iterable[str]) -> dict[str, float]:
    """Medians of ratios taken within a round."""

    def ratio(above: str, below: str) -> float:
        pairs = zip(timings[above], timings[below], strict=True)
        return statistics.median(a / b for a, b in pairs)

    ratios = {
        "generate / token rollout": ratio(_GENERATE, "rollout token"),
        "generate, static cache / token rollout": ratio(_STATIC, "rollout token"),
        "no cache / token rollout": ratio("loop without cache", "rollout token"),
        "token step / linear floor": ratio("step token", "floor: linear layers"),
        "token step / packed floor": ratio("step token", _PACKED),
    }
    ratios["colar, all read again / cache carried"] = ratio(
        "colar, all read again for the answer", "colar, cache carried into the answer"
    )
    if "step token, bfloat16" in timings:
        for part in ("rollout", "step"):
            pair = f"{part} token", f"{part} token, bfloat16"
            ratios[f"token {part}, float32 / bfloat16"] = ratio(*pair)
    if _LLAMA_CPP in timings:
        ratios["llama.cpp / token step, 1 row"] = ratio(_LLAMA_CPP, _ONE_ROW)
    for name in heads:
        if name != TOKEN:
            ratios[f"{name} step / token step"] = ratio(f"step {name}", "step token")
    return ratios


def _scaling(lm: LatentLM, o: RolloutBench) -> dict[str, Any]:
    """Cost of a step against group size, prompt length and thought length."""
    engine = Engine(Policy(lm, MultiTokenHead(8)))
    rng = np.random.default_rng(1)

    def measure(group: int, prompt: int, new: int) -> float:
        ids = rng.integers(3, lm.vocab_size - 3, prompt).tolist()
        return min(step_ms(engine, ids, group, new)[1] for _ in range(2))

    limit = lm.max_positions or 1 << 30
    groups = {g: measure(g, o.prompt, 16) for g in (1, 2, 4, 8, 16)}
    prompts = {p: measure(o.group, p, 16) for p in (64, 128, 256, 512, 1024) if p + 16 <= limit}
    lengths = {t: measure(o.group, 64, t) for t in (16, 32, 64, 128, 256) if t + 64 <= limit}
    return {
        "ms_per_step_by_group": groups,
        "ms_per_step_by_prompt": prompts,
        "ms_per_step_by_thoughts": lengths,
        "exponent_prompt": _exponent(prompts),
        "exponent_thoughts": _exponent(lengths),
    }


def _exponent(cost: dict[int, float]) -> float:
    """The slope of log(cost of a step) against log(length): attention's own is at most 1."""
    x, y = np.log(list(cost)), np.log(list(cost.values()))
    return float(np.polyfit(x, y, 1)[0])
