"""Latents in a policy gradient that collapses and in one that does not, from the logs.

CoT2 learns MNNS from demonstrations, then goes on by policy gradient twice: at the preset's
learning rate, and at one that is a hundred times as large.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from latentgym.cli.main import main as latentgym

ENV, MODEL = "latent/MNNS-continuous", "tiny:gpt2:2x2x32"
FIRST_STEPS, STEPS, EVERY = 1000, 150, 5
RATES = {"preset": 3e-4, "a hundred times": 3e-2}
KEYS = (
    *("reward/correct", "latent/norm", "latent/kurtosis", "latent/nearest", "train/entropy"),
    *("outlier/most/kurtosis", "outlier/thought/kurtosis", "outlier/last/signal"),
    *("outlier/latent_norm_outside", "outlier/latent_kurtosis_outside", "outlier/alarm"),
)


def train(out: Path, steps: int, *more: str) -> None:
    """One training run, unless it is there."""
    if (out / "checkpoints").exists():
        return
    argv = ["train", "mts-grpo", ENV, "--steps", str(steps), "--save-every", "0", *more]
    if latentgym([*argv, "--eval-limit", "0", "--out", str(out)]) != 0:
        raise SystemExit(1)


def course(out: Path) -> list[list[Any]]:
    """What was logged where latents were looked at: the step, then `KEYS`."""
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [[x["step"], *(x.get(k) for k in KEYS)] for x in lines if "outlier/alarm" in x]


def run(folder: Path, seeds: list[int]) -> dict[str, Any]:
    """Both rates under all seeds."""
    cells: dict[str, Any] = {name: {"lr": lr, "runs": []} for name, lr in RATES.items()}
    for seed in seeds:
        start = folder / f"csft-{seed}"
        train(start, FIRST_STEPS, "--model", MODEL, "--seed", str(seed))
        for name, lr in RATES.items():
            out = folder / f"grpo-{lr:g}-{seed}"
            rate = ("--preset", "grpo", "--optimisation.lr", str(lr))
            looks = ("--checkpoint", str(start), "--outliers-every", str(EVERY))
            train(out, STEPS, *rate, *looks, "--seed", str(seed))
            cells[name]["runs"].append({"seed": seed, "course": course(out)})
    return {"steps": STEPS, "keys": ["step", *KEYS], "cells": cells}
