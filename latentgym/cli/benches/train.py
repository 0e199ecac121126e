"""`latentgym bench train`: one step of GRPO, ours beside TRL's, on the same model and prompts.

What is measured and how: `latentgym.cli.benches.settings.TrainBench`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import Any

import torch

from latentgym.agents.base import agent_class
from latentgym.agents.run import Run
from latentgym.cli.benches import peer_trl
from latentgym.cli.benches.settings import TrainBench
from latentgym.data.chains import GeneratedChains
from latentgym.lm import load_model
from latentgym.lm.packed_training import worth
from latentgym.progress import progress_bar
from latentgym.training import Optimisation, Trainer

_LR = 1e-6
_INSTRUCTION = "Solve the problem step by step and write the answer behind ####."


@dataclass(frozen=True)
class Subject:
    """One of our agents that trains by GRPO.

    Attributes:
        agent: its name.
        family: of the environment.
        config: what of its settings is not the default, beside `grpo` and `optimisation`.
    """

    agent: str
    family: str
    config: Mapping[str, Any] = field(default_factory=dict)


SUBJECTS: Mapping[str, Subject] = {
    "cot": Subject("cot", "token", {"stage": "grpo"}),
    "hrpo": Subject("hrpo", "hybrid"),
    "colar": Subject("colar-grpo", "hybrid", {"stage": "grpo"}),
}


Seconds = dict[str, float]
"""Of a step, and of its rollouts."""


def run(options: TrainBench) -> dict[str, Any]:
    """Run the benchmark; all figures as plain data.

    Raises:
        UsageError: settings that cannot work, or the peer is not installed.
    """
    options.validate()
    if options.peer == "trl":
        peer_trl.load()
    if options.threads:
        torch.set_num_threads(options.threads)
    runs = {name: _run(subject, options) for name, subject in SUBJECTS.items()}
    trainers = {name: _trainer(run, options.rounds + 1) for name, run in runs.items()}
    seconds: dict[str, list[Seconds]] = {name: [] for name in trainers}
    first = next(iter(trainers))
    plain = f"{first} with plain layers"
    if worth().rows:  # else its layers are plain ones anyway
        seconds[plain] = []
    ours_by_name = list(seconds)
    env = next(iter(runs.values())).make_env(1).unwrapped
    lm = trainers[first].policy.lm

    with progress_bar("bench train", options.rounds + 1) as advance:

        def take(name: str, trainer: Trainer) -> None:
            started = time.perf_counter()
            metrics = trainer.step(len(seconds[name]))
            step = time.perf_counter() - started
            written = metrics["rollout/thoughts"] + metrics["rollout/tokens"]
            peer_trl.require_length(name, [written], options.new)
            seconds[name].append({"step": step, "rollout": metrics["rollout/seconds"]})

        def ours() -> None:
            for name, trainer in trainers.items():
                take(name, trainer)
            if plain in seconds:
                trainers[first].packed = False
                take(plain, trainers[first])
                trainers[first].packed = True
            advance(1)

        if options.peer == "trl":
            model = load_model(options.model, tokenizer=env.task.tokenizer, dtype="float32").model
            model.set_attn_implementation("sdpa")
            job = peer_trl.PeerJob(
                model=model,
                tokenizer=env.task.tokenizer,
                prompts=[env.prompt(i) for i in range(options.prompts)],
                reward=lambda index, text: env.task.grade(index, text, text).score,
                group=options.group,
                micro_batch=options.micro_batch,
                new=options.new,
                lr=_LR,
            )
            seconds["TRL"] = peer_trl.train(job, options.rounds + 1, ours)
        else:
            for _ in range(options.rounds + 1):
                ours()

    timings = {name: _stages(steps[1:]) for name, steps in seconds.items()}  # the first warms up
    return {
        "bench": "train",
        "settings": asdict(options),
        "model": lm.name,
        "prompt_tokens": [len(env.prompt(i)) for i in range(options.prompts)],
        "peer": f"trl {version('trl')}" if options.peer == "trl" else "none",
        "device": str(lm.device),
        "dtype": str(lm.dtype),
        "threads": torch.get_num_threads(),
        "ms_per_step": {
            f"{name}{stage}": 1000 * statistics.median(values)
            for name, stages in timings.items()
            for stage, values in stages.items()
        },
        "ratios": _ratios(timings, ours_by_name),
        "scaling": {},
    }


def _run(subject: Subject, o: TrainBench) -> Run:
    """A subject's run: completions of `new` steps, the last one an answer, whatever they say."""
    config = replace(agent_class(subject.agent).config_class(), **subject.config)
    config = replace(
        config,
        grpo=replace(
            config.grpo,
            prompts=o.prompts,
            group_size=o.group,
            micro_batch=o.micro_batch,
            updates=1,
            mini_batches=1,
            kl=0.0,
        ),
        optimisation=Optimisation(lr=_LR, weight_decay=0.0, schedule="constant", warmup=0.0),
    )
    options = {
        "source": "generated",
        "size": o.prompts,
        "min_operations": 4,
        "system": _instruction(o.examples),
        "think": o.new - 1,
        "answer": 1,
        "exact_thoughts": True,
        "force_answer": False,
    }
    env = f"latent/GSM8KAug-{subject.family}"
    return Run(subject.agent, config, env, o.model, env_options=options, dtype="float32")


def _trainer(run: Run, steps: int) -> Trainer:
    recipe = run.make_agent().recipe()
    stage = recipe.stage.build(run.learner(), run.make_env, run.seed)
    return Trainer(stage, recipe.optimisation, steps)


def _ratios(timings: Mapping[str, dict[str, list[float]]], ours: list[str]) -> dict[str, float]:
    """Medians of ratios within a round: the peer over ours, and ours over the first of them."""

    def ratio(above: str, below: str, stage: str) -> float:
        pairs = zip(timings[above][stage], timings[below][stage], strict=True)
        return statistics.median(a / b for a, b in pairs)

    pairs = [("TRL", name) for name in ours if "TRL" in timings]
    pairs += [(name, ours[0]) for name in ours[1:]]
    return {
        f"{above} / {below}{stage}": ratio(above, below, stage)
        for above, below in pairs
        for stage in timings[below]
    }


def _instruction(examples: int) -> str:
    """How to answer, with worked examples."""
    data = GeneratedChains("valid")
    shown = (data[i] for i in range(examples))
    worked = [f"{q.text}\n{' '.join(q.steps)}\n#### {q.gold}" for q in shown]
    return "\n\n".join([_INSTRUCTION, *worked])


def _stages(steps: list[Seconds]) -> dict[str, list[float]]:
    """Seconds of whole steps, of their rollouts, and of the rest."""
    whole, rollout = ([step[key] for step in steps] for key in ("step", "rollout"))
    update = [a - b for a, b in zip(whole, rollout, strict=True)]
    return {"": whole, ", rollouts": rollout, ", update": update}
