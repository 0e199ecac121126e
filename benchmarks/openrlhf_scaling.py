"""Steps per second and memory of the OpenRLHF backend with 1 and 2 workers, beside the local one.

MTS-GRPO on MNNS; all three take the same steps in one call, one after the other.

python -m benchmarks.openrlhf_scaling --record benchmarks/records
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from latentgym.agents.base import agent_class
from latentgym.agents.run import Run
from latentgym.cluster.connection import connected
from latentgym.evaluation.results import git_commit, versions
from latentgym.openrlhf.job import ClusterOptions, Job
from latentgym.openrlhf.launch import Session, Workers
from latentgym.openrlhf.shim import install
from latentgym.storage import atomic_write
from latentgym.training import Trainer

MODEL, PROMPTS, GROUP = "tiny:gpt2:4x4x128", 64, 8
SKIPPED = 2  # steps in which caches fill and buffers grow


def described() -> Run:
    """What all of them run."""
    preset = agent_class("mts-grpo").presets["grpo"]
    grpo = replace(preset.grpo, prompts=PROMPTS, group_size=GROUP, micro_batch=128)
    return Run("mts-grpo", replace(preset, grpo=grpo), "latent/MNNS-continuous", MODEL)


def seconds(metrics: Path) -> dict[str, float]:
    """Medians over the steps that a run has logged."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()][SKIPPED:]
    steps = statistics.median(1 / line["train/steps_per_second"] for line in lines)
    rollouts = statistics.median(line["rollout/seconds"] for line in lines)
    return {"step_s": round(steps, 4), "rollout_s": round(rollouts, 4)}


def local(steps: int, out: Path) -> dict[str, Any]:
    """The local backend."""
    run = described()
    recipe = run.make_agent().recipe()
    stage = recipe.stage.build(run.learner(), run.make_env, run.seed)
    Trainer(stage, recipe.optimisation, steps, out=out, log_every=1).run()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"workers": 0, **seconds(out / "metrics.jsonl"), "worker_mb": [round(peak)]}


def distributed(workers: int, steps: int, out: Path) -> dict[str, Any]:
    """OpenRLHF with that many workers."""
    run = described()
    recipe = run.make_agent().recipe()
    cluster = ClusterOptions(gpus=workers)
    job = Job(run, recipe.stage, recipe.optimisation, steps, out, cluster, run.identity())
    with connected(workers, option="workers", afterwards="Measure again."):
        session = Session(job, Workers.start(cluster, reference=False))
        session.fit()
        memory = [round(mb) for mb in session.memory_mb()]
    return {"workers": workers, **seconds(out / "metrics.jsonl"), "worker_mb": memory}


def main() -> None:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--record", type=Path, default=Path("benchmarks/records"))
    o = parser.parse_args()
    install()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        rows = [local(o.steps, out / "0")]
        rows += [distributed(n, o.steps, out / str(n)) for n in (1, 2)]
    data = {
        "bench": "openrlhf_scaling",
        "settings": {"model": MODEL, "prompts": PROMPTS, "group": GROUP, "steps": o.steps},
        "rows": rows,
        "versions": versions(),
        "git": git_commit(),
    }
    o.record.mkdir(parents=True, exist_ok=True)
    with atomic_write(o.record / "openrlhf_scaling.json") as partial:
        partial.write_text(json.dumps(data, indent=1) + "\n")
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
