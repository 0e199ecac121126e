"""What a controller gains over a frozen model that stands inside the environment. A record.

python -m benchmarks.dynamics --parts mnns smollm2

mnns: two-layer models that learned the token chain and were stopped early, five seeds. A controller
(`examples/ppo.py`) steers each by mixtures of its likeliest tokens or by vectors, or chooses the
tokens, for equally many environment steps; beside them the model's own decoding, greedy and
sampled, its own mixtures, and zeros in the place of thoughts. smollm2: SmolLM2-135M on sums of two
digits, one run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from latentgym.cli.main import main as latentgym
from latentgym.evaluation.results import git_commit, versions
from latentgym.progress import progress_bar
from latentgym.storage import atomic_write

RECORD = Path("benchmarks/records/dynamics.json")
RUNS = Path("runs/dynamics")
EXAMPLE = Path("examples/ppo.py")
SEEDS = range(5)
STEPS = 200_000
START = ("--preset", "sft-tiny", "--model", "tiny:gpt2:2x2x32", "--steps", "1000")
INTERFACES = {
    "mixture": "latent/MNNS-continuous",
    "latent": "latent/MNNS-continuous",
    "token": "latent/MNNS-token",
}
SUMS: dict[str, Any] = {
    "config": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
    "format": "sentence",
    "force_answer": True,
    "think": 8,
    "answer": 12,
}


def example() -> Any:
    """The module of the example."""
    spec = importlib.util.spec_from_file_location("ppo", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


def mnns() -> dict[str, Any]:
    """Five seeds of each way to decode."""
    ppo = example()
    runs: dict[str, list[Any]] = {}
    with progress_bar("MNNS", len(SEEDS) * (1 + len(INTERFACES))) as advance:
        for seed in SEEDS:
            start = RUNS / f"start-{seed}"
            if not start.exists():
                argv = ["train", "cot", "latent/MNNS-token", *START, "-o", "arrow=true"]
                assert latentgym([*argv, "--seed", str(seed), "--out", str(start)]) == 0
            advance(1)
            common = {"dynamics": str(start), "total_steps": STEPS, "seed": seed}
            for interface, env in INTERFACES.items():
                o = ppo.Settings(env=env, interface=interface, **common)
                runs.setdefault(f"own {interface}", []).append(ppo.evaluate(o, None))
                controller, curve = ppo.train(o)
                accuracy = ppo.evaluate(o, controller)
                runs.setdefault(f"PPO, {interface}", []).append(accuracy)
                runs.setdefault(f"curve, {interface}", []).append(_thinned(curve))
                advance(1)
            o = ppo.Settings(env=INTERFACES["token"], interface="token", **common)
            sampled = ppo.Controller(*_spaces(ppo, o), o.hidden)
            for parameter in sampled.parameters():
                parameter.data.zero_()  # the model's own probabilities are left
            runs.setdefault("sampled", []).append(_sampled(ppo, o, sampled, seed))
    settings = asdict(ppo.Settings(total_steps=STEPS))
    return {"runs": runs, "settings": settings, "start": list(START), "questions": 1000}


def _spaces(ppo: Any, o: Any) -> tuple[Any, Any]:
    env = ppo.make(o, 1)
    return env.single_observation_space, env.single_action_space


def _sampled(ppo: Any, o: Any, controller: Any, seed: int) -> float:
    """Accuracy where tokens are drawn from the model's own probabilities."""
    import torch

    torch.manual_seed(seed)

    class Drawn:
        def best(self, seen: Any) -> Any:
            return controller(seen)[0].sample().numpy()

    with torch.no_grad():
        return float(ppo.evaluate(o, Drawn()))


def smollm2() -> dict[str, Any]:
    """One run, with its curve."""
    ppo = example()
    o = ppo.Settings(
        env="latent/RG_chain_sum-continuous",
        dynamics="smollm2-135m",
        total_steps=16_384,
        num_envs=32,
        num_steps=16,
        lr=3e-4,
        options=SUMS,
    )
    tokens = replace(o, env="latent/RG_chain_sum-token", interface="token")
    greedy, before = ppo.evaluate(tokens, None, 200), ppo.evaluate(o, None, 200)
    started = time.perf_counter()
    controller, curve = ppo.train(o)
    seconds = time.perf_counter() - started
    after = ppo.evaluate(o, controller, 200)
    return {
        "greedy": greedy,
        "own": before,
        "PPO": after,
        "curve": _thinned(curve, 40),
        "seconds": round(seconds),
        "settings": asdict(o),
        "questions": 200,
    }


def _thinned(curve: list[tuple[int, float]], most: int = 50) -> list[tuple[int, float]]:
    """Means over neighbouring updates."""
    parts = np.array_split(np.array(curve), min(most, len(curve)))
    return [(int(part[-1, 0]), round(float(part[:, 1].mean()), 4)) for part in parts]


PARTS: dict[str, Callable[[], dict[str, Any]]] = {"mnns": mnns, "smollm2": smollm2}


def main() -> None:
    """Run, and write the record, part by part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parts = parser.parse_args().parts
    for name in parts:
        data: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
        data[name] = {**PARTS[name](), "versions": versions(), "git": git_commit()}
        with atomic_write(RECORD) as path:
            lines = (f'"{k}": {json.dumps(v, allow_nan=False)}' for k, v in data.items())
            path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
