"""Pre-norm blocks against outlier-protected ones, on generated chains of equations.

Token chains are learnt by `cot`, all cells alike but for architecture and optimiser, at the
preset's learning rate: nothing was tuned. On questions of the test split each model tells its
kurtosis by layer, and its loss as it is and rounded to few bits.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.outliers.rounding import rounding
from latentgym.analysis.outliers import outliers
from latentgym.analysis.residual import ResidualStream
from latentgym.analysis.sequences import of_demonstrations
from latentgym.cli.main import main as latentgym
from latentgym.heads import TokenHead
from latentgym.lm import load_model
from latentgym.registry import make_vector_env
from latentgym.rollout import Policy
from latentgym.training.checkpoint import load_weights
from latentgym.training.demonstrations import Demonstrations
from latentgym.training.supervised import supervised_loss

ENV = "latent/GSM8KAug-token"
DATA: dict[str, Any] = {"source": "generated", "max_operations": 3, "largest": 19}
SIZE, STEPS, EVERY = "4x4x64", 400, 25
CELLS: dict[str, tuple[str, tuple[str, ...]]] = {
    "pre-norm, AdamW": ("llama", ()),
    "OP, AdamW": ("op", ()),
    "OP, SOAP": ("op", ("--optimisation.optimizer", "soap")),
}
QUESTIONS, LOOKED_AT = 128, 32
BITS = (8, 6, 4)


def train(out: Path, arch: str, more: tuple[str, ...], seed: int) -> None:
    """One training run, unless it is there."""
    if (out / "checkpoints").exists():
        return
    data = [f"-o={name}={value}" for name, value in DATA.items()]
    argv = ["train", "cot", ENV, *data, "--preset", "sft-tiny", *more]
    argv += ["--model", f"tiny:{arch}:{SIZE}", "--steps", str(STEPS), "--save-every", "0"]
    argv += ["--eval-limit", "0", "--outliers-every", str(EVERY), "--seed", str(seed)]
    if latentgym([*argv, "--out", str(out)]) != 0:
        raise SystemExit(1)


@torch.no_grad()
def measured(out: Path, arch: str) -> dict[str, Any]:
    """What a trained model tells on questions that it was not trained on."""
    env = make_vector_env(ENV, 1, split="test", **DATA)
    lm = load_model(
        f"tiny:{arch}:{SIZE}", tokenizer=env.unwrapped.task.tokenizer, dtype="float32", device="cpu"
    )
    policy = Policy(lm, TokenHead())
    load_weights(out, policy)
    stream = ResidualStream(lm.eval())
    shown = Demonstrations(env)
    batches = [shown.batch([i], lm.device) for i in range(QUESTIONS)]  # none has padding

    def loss() -> float:
        losses = [supervised_loss(lm, batch) for batch in batches]
        return float(sum(x.loss_BT.sum() for x in losses) / sum(x.mask_BT.sum() for x in losses))

    found: dict[str, Any] = {"loss": loss(), "parameters": lm.n_parameters()}
    for bits in BITS:
        with rounding(stream, bits):
            found[f"loss_int{bits}"] = loss()
    sequences = of_demonstrations(lm, (shown.item(i) for i in range(LOOKED_AT)))
    for group, metrics in outliers(stream, sequences)["groups"].items():
        if group in ("all", "with_first"):
            found[group] = {
                "kurtosis": metrics["kurtosis"],
                "max_median_ratio": metrics["max_median_ratio"]["mean"],
                "top_over_median": [top[0] for top in metrics["top_over_median"]],
                "norm": metrics["norm"]["mean"],
                "signal_mean": metrics["signal_mean"],
            }
    found["course"] = [
        [line["step"], line["outlier/most/kurtosis"], line["train/loss"]]
        for line in map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
        if "outlier/most/kurtosis" in line
    ]
    return found


def run(folder: Path, seeds: list[int]) -> dict[str, Any]:
    """All cells under all seeds."""
    cells: dict[str, Any] = {}
    for name, (arch, more) in CELLS.items():
        label = "-".join(name.replace(",", "").split())
        runs = []
        for seed in seeds:
            out = folder / f"{label}-{seed}"
            train(out, arch, more, seed)
            runs.append({"seed": seed, **measured(out, arch)})
        cells[name] = {"model": f"tiny:{arch}:{SIZE}", "options": list(more), "runs": runs}
    return {"steps": STEPS, "questions": QUESTIONS, "sequences": LOOKED_AT, "cells": cells}
