"""`latentgym train AGENT ENV`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from latentgym.agents.base import config_dict
from latentgym.cli import runs
from latentgym.cli.options import RunOptions, emit, env_options, fresh_folder, say
from latentgym.errors import UsageError


@dataclass(frozen=True)
class TrainOptions(RunOptions):
    """Options of every training run; those of the agent follow."""

    model: str | None = None
    """tiny[:ARCH[:LxHxD]], smollm2-135m, a folder or hub name; default the checkpoint's or tiny."""
    checkpoint: Path | None = None
    """Start from the weights of this run."""
    steps: int = 1000
    """Training steps."""
    seed: int = 0
    """Of initial weights, order and draws."""
    out: Path = Path("runs/train")
    """Folder of the run: checkpoints, metrics, TensorBoard, final evaluation."""
    resume: bool = False
    """Go on from the newest checkpoint in --out."""
    save_every: int = 200
    """Steps between checkpoints."""
    log_every: int = 0
    """Steps between logged metrics; 0 logs every few seconds."""
    lora_r: int = 0
    """Train low-rank adapters of this rank instead of all weights; 0 trains all weights."""
    lora_alpha: int | None = None
    """Scale of the adapters; default twice the rank."""
    split: str | None = None
    """Split to train on."""
    eval_split: str = "test"
    """Split of the final evaluation."""
    eval_limit: int | None = None
    """Questions of the final evaluation; all by default, 0 for none."""
    backend: Literal["local"] = "local"
    """Where to train: this process."""
    logger: list[str] = field(default_factory=list)
    """Further loggers: wandb, trackio."""


def main(argv: Sequence[str]) -> int:
    """Train an agent, then evaluate it."""
    options, config = runs.parse_with_agent(TrainOptions, argv, "train", "Train an agent.")
    if options.steps < 1:
        raise UsageError(f"--steps must be at least 1, but is {options.steps}.")
    started_from = runs.checkpoint_run(options.checkpoint)
    model = options.model or started_from.get("model") or runs.DEFAULT_TINY
    lora = _lora(options) or started_from.get("lora")
    fresh_folder(options.out, "metrics.jsonl", options.resume)
    extras = env_options(None, options.env_option)
    setting = runs.setting(options.agent, options.env, model, extras)
    agent = setting.agent_class(config)
    if not agent.trainable:
        raise UsageError(f"{agent.name} needs no training; use latentgym eval {agent.name}.")

    from latentgym.training import Trainer

    split = {} if options.split is None else {"split": options.split}
    probe = setting.make_env(1, **split)
    lm = runs.load_lm(
        setting,
        probe,
        seed=options.seed,
        device=options.device,
        dtype=options.dtype,
        lora=lora,
    )
    policy = agent.policy(lm, acting=False)
    if options.checkpoint is not None:
        runs.load_policy_weights(options.checkpoint, policy)

    def make_env(num_envs: int, **more: Any) -> Any:
        return setting.make_env(num_envs, **{**split, **more})

    stage, optimisation = agent.stage(policy, make_env, options.seed)
    identity = {
        "agent": agent.name,
        "env": setting.env_id,
        "env_options": {**extras, **split},
        "model": lm.name,
        "lora": lora,
        "seed": options.seed,
        "config": config_dict(config),
        "checkpoint": str(options.checkpoint) if options.checkpoint else None,
        "dataset_hash": probe.unwrapped.task.dataset_hash,
    }
    trainer = Trainer(
        stage,
        optimisation,
        options.steps,
        out=options.out,
        save_every=options.save_every,
        log_every=options.log_every,
        identity=identity,
        loggers=tuple(options.logger),
    )
    metrics = trainer.run(resume=options.resume)
    say(f"trained {options.steps} steps; checkpoint, metrics and TensorBoard are in {options.out}")
    final: dict[str, Any] = {"out": str(options.out), "metrics": metrics}
    if options.eval_limit != 0:
        final["accuracy"] = _final_evaluation(setting, agent, policy, options, config)
    emit(final, options.json)
    return 0


def _lora(options: TrainOptions) -> dict[str, int] | None:
    if options.lora_r == 0:
        return None
    return {"r": options.lora_r, "alpha": options.lora_alpha or 2 * options.lora_r}


def _final_evaluation(
    setting: runs.Setting, agent: Any, policy: Any, options: TrainOptions, config: Any
) -> float:
    from latentgym.evaluation import evaluate

    extras = env_options(options.eval_split, options.env_option)
    extras.pop("limit", None)  # that of the training data
    env = setting.make_env(runs.rows_at_once(policy.lm), **extras)
    evaluation = evaluate(
        agent,
        agent.policy(policy.lm, acting=True),
        setting.env_id,
        env,
        seeds=[options.seed],
        limit=options.eval_limit,
        checkpoint=str(options.out),
        config={
            "agent": config_dict(config),
            "env_options": extras,
            "steps": options.steps,
            "train_seed": options.seed,
        },
    )
    evaluation.save(options.out)
    result = evaluation.result
    low, high = result.accuracy_ci95
    say(f"{options.eval_split} accuracy {result.accuracy:.4f} [{low:.4f}, {high:.4f}]")
    return result.accuracy
