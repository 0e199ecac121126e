"""Which thought matters: CoT2's latents and the discrete chain in one architecture, on MNNS.

Trains both from scratch, replaces their thoughts on the test split, and reads them by the logit
lens (`latentgym.analysis`).

python -m benchmarks.causal_map --out runs/causal-map --record benchmarks/records
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latentgym.agents.base import agent_class
from latentgym.agents.run import Run
from latentgym.agents.settings import restored
from latentgym.analysis.interventions import INTERVENTIONS
from latentgym.analysis.latents import DEFINITIONS, causal_map
from latentgym.analysis.lens import DEFINITIONS as LENS
from latentgym.analysis.lens import KL_FINAL_LENS, KL_LENS_FINAL, OVERLAP, decode_latents, lens
from latentgym.analysis.maps import DEFINITIONS as MAPS
from latentgym.analysis.maps import Reader, linear_maps
from latentgym.analysis.residual import ResidualStream
from latentgym.analysis.sequences import Sequences, of_rollouts
from latentgym.evaluation.results import git_commit, versions
from latentgym.evaluation.stats import mean_interval, seed_interval
from latentgym.evaluation.suite import Cell, folder, run
from latentgym.progress import progress_bar
from latentgym.rollout import Engine, Policy, Rollouts, StepKind, collect
from latentgym.rollout.targets import with_targets
from latentgym.storage import atomic_write
from latentgym.training.manifest import run_of

SEEDS = (0, 1, 2)
MODEL = ("--model", "tiny:gpt2:4x2x32", "--steps", "3000", "--save-every", "0")
SHOWN = 2  # questions whose thoughts the record decodes


def cells() -> list[Cell]:
    """The two models; CoT2's width, with twice its layers so that there are some to look at."""
    words = ("cot", "latent/MNNS-token", "--preset", "sft-tiny")
    return [
        Cell("models", "cot2", ("train", "mts-grpo", "latent/MNNS-continuous", *MODEL)),
        Cell("models", "discrete", ("train", *words, *MODEL)),
    ]


class Trained:
    """A trained model and what it thinks on the test split.

    Args:
        path: of its run.
        seed: of the run.
    """

    def __init__(self, path: Path, seed: int) -> None:
        told = run_of(path)
        cls = agent_class(told["agent"])
        config = restored(cls, told["config"], path)
        options = {**told["env_options"], "split": "test"}
        trained = Run(cls.name, config, told["env"], options, told["model"], path, seed=seed)
        self.policy: Policy = trained.actor().eval()
        size = len(trained.make_env(1).unwrapped.task)
        env = trained.make_env(size)
        self.task = env.unwrapped.task
        episodes = collect(Engine(self.policy), env, range(size), seed=seed)
        self.accuracy = float(episodes.component("score").mean())
        self.own: Rollouts = episodes.rollouts
        self.stream = ResidualStream(self.policy.lm)

    @property
    def right(self) -> Rollouts:
        """Its thoughts with the right answers behind them."""
        thought_NT = self.own.kind_NT == StepKind.THOUGHT
        kind_NT = np.where(thought_NT, StepKind.THOUGHT, StepKind.PAD).astype(np.int8)
        shown = [self.task.demonstration(i) for i in range(len(self.task))]
        answers = [d.ids_TS[d.thoughts :, 0].tolist() for d in shown]
        return with_targets(replace(self.own, kind_NT=kind_NT), answers)

    def sequences(self, rollouts: Rollouts) -> Sequences:
        """What it reads."""
        return of_rollouts(self.policy, rollouts)


def look(model: Trained) -> dict[str, Any]:
    """All numbers of one model."""
    found: dict[str, Any] = {"accuracy": model.accuracy, "maps": {}}
    for whose, rollouts in (("own", model.own), ("right", model.right)):
        sequences = model.sequences(rollouts)
        for effect, of in (("direct", None), ("total", rollouts)):
            told = causal_map(model.policy, sequences, interventions=INTERVENTIONS, rollouts=of)
            found["maps"][f"{whose} answer, {effect}"] = told
    found["lens"] = lens(model.stream, model.sequences(model.own))
    return found


def decoded(model: Trained) -> list[dict[str, Any]]:
    """The thoughts of the first questions in tokens, beside what they were trained towards."""
    tokenizer, some = model.policy.lm.tokenizer, np.arange(SHOWN)
    sequences = model.sequences(model.own.select(some))
    pieces = tokenizer.pieces()
    rows = decode_latents(model.stream, sequences, tokenizer, top=4)
    for row in rows:
        question, d = model.task.question(row["row"]), model.task.demonstration(row["row"])
        weights, ids = d.weights_TS[row["step"]], d.ids_TS[row["step"]]
        order = np.argsort(-weights, kind="stable")
        row["question"], row["answer"] = question.text, question.gold
        row["taught"] = {pieces[ids[i]]: round(float(weights[i]), 3) for i in order if weights[i]}
        row["nearest"] = {t["text"]: round(t["cosine"], 3) for t in row["nearest"]}
        row["lens"] = {
            layer: {t["text"] or f"<{t['id']}>": round(t["probability"], 3) for t in tokens}
            for layer, tokens in row["lens"].items()
        }
    return rows


def between(source: Trained, target: Trained) -> dict[str, Any]:
    """Linear maps from one seed's model to the other's, over one half of the test questions.

    Both read the questions and the chains of the source, each in its own embeddings, and are judged
    on the other half.
    """
    half = len(source.own) // 2
    rows = np.arange(len(source.own))
    readers = [
        Reader(m.stream, *(m.sequences(m.own.select(p)) for p in (rows[:half], rows[half:])))
        for m in (source, target)
    ]
    told = linear_maps(*readers)
    return {name: told[name] for name in ("error", "band", "best_source", "positions")}
