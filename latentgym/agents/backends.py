"""Where an agent trains: in this process, or through OpenRLHF on Ray."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from latentgym.agents.plan import Plan
from latentgym.agents.run import Run
from latentgym.agents.train_options import TrainOptions
from latentgym.agents.validation import Evaluations
from latentgym.errors import UsageError
from latentgym.openrlhf.job import Job
from latentgym.system.terminal import say
from latentgym.training import GRPOConfig, Metrics, Recipe
from latentgym.training.grpo_config import CLEAN

if TYPE_CHECKING:
    from latentgym.rollout import Policy


class Weights(NamedTuple):
    """What a backend leaves.

    Attributes:
        policy: with the weights to evaluate.
        metrics: of the last step; empty where none was left to take.
        done: how many steps have been taken.
        step: from which the weights are.
    """

    policy: Policy
    metrics: Metrics
    done: int
    step: int


def train_here(plan: Plan, recipe: Recipe, evaluations: Evaluations) -> Weights:
    """Train in this process."""
    from latentgym.agents.effect import refuse_idle
    from latentgym.training import Looks, OutlierWatch, Trainer

    run, options = plan.run, plan.options
    policy = run.learner()
    refuse_idle(run.agent, run.config, plan.default, policy.lm, training=True)
    if options.cluster.gradient_checkpointing:
        policy.lm.checkpoint_gradients()
    every = options.outliers_every
    identity, looks = dict(plan.identity), None
    build = recipe.stage.build
    if plan.rewards is not None and isinstance(recipe.stage, GRPOConfig):
        build = partial(recipe.stage.build, rewards=plan.rewards)
    stage = build(policy, run.make_env, run.seed)
    if options.eval_every:
        asked = evaluations.asked
        identity |= {"looks": {"every": options.eval_every, **asked.identity()}}
        if asked.held_out:
            stage.leave_out(asked.left_out)
            identity["held_out"] = asked.held_out
        looks = Looks(partial(evaluations.look, policy), options.eval_every, options.early_stopping)
    trainer = Trainer(
        stage,
        recipe.optimisation,
        options.steps,
        out=options.out,
        save_every=options.save_every,
        keep=options.keep_last,
        log_every=options.log_every,
        identity=identity,
        loggers=tuple(options.logger),
        project=options.project,
        skip_long=options.skip_long,
        watch=OutlierWatch(policy, every) if every else None,
        looks=looks,
        adapters=run.stores_adapters,
    )
    checkpoints = options.keep_last + (2 if looks else 1)
    _check_disk(options.out, policy, stage.kept, checkpoints, run.stores_adapters)
    metrics = trainer.run(resume=options.resume)
    best = None if looks is None else looks.best
    return Weights(policy, metrics, trainer.done, trainer.done if best is None else best)


def _check_disk(out: Path, policy: Policy, kept: Policy | None, most: int, adapters: bool) -> None:
    """Make sure that so many checkpoints fit: the newest is written before the last one goes.

    Raises:
        UsageError: they do not.
    """
    from latentgym.training.frozen import frozen_names

    stored = [policy] if kept is None else [policy, kept]
    left_out = frozen_names(policy) if adapters else set()
    whole = sum(
        p.numel() * p.element_size()
        for each in stored
        for name, p in each.named_parameters()
        if name not in left_out
    )
    moving = sum(2 * p.numel() * p.element_size() for p in policy.parameters() if p.requires_grad)
    needed, free = most * (whole + moving), shutil.disk_usage(out).free
    if needed > free:
        raise UsageError(
            f"{'two' if most == 2 else most} checkpoints take {needed / 2**30:.1f} GiB, but {out} "
            f"has room for {free / 2**30:.1f} GiB; make room or choose another --out."
        )


def train_openrlhf(plan: Plan, recipe: Recipe, evaluations: Evaluations) -> Weights:
    """Train through OpenRLHF; the policy comes back through its checkpoint."""
    run, options, asked = plan.run, plan.options, evaluations.asked
    if plan.rewards is not None:
        raise UsageError(
            "workers of OpenRLHF import rewards by their names; give them as module:function in "
            "the setting grpo.rewards, or use the backend local."
        )
    grpo = _of_whole_episodes(run, recipe, options)
    if asked.held_out:
        raise UsageError(
            f"{run.env_id} has no split to evaluate on during training, and OpenRLHF holds none of "
            "the training questions out; give --eval-split, or use --backend local."
        )
    job = Job(
        run=run,
        grpo=grpo,
        optimisation=recipe.optimisation,
        steps=options.steps,
        out=options.out.absolute(),
        cluster=options.cluster,
        identity=plan.identity,
        save_every=options.save_every,
        resume=options.resume,
        eval_every=options.eval_every,
        eval_split=asked.run.env_options["split"],
        eval_limit=options.eval_limit,
        skip_long=options.skip_long,
    )

    from latentgym.openrlhf.launch import train
    from latentgym.openrlhf.shim import told

    if how := told():
        say(f"OpenRLHF runs {how}")
    metrics = train(job)
    policy = replace(run, checkpoint=options.out).learner()
    return Weights(policy, metrics, options.steps, options.steps)


def _of_whole_episodes(run: Run, recipe: Recipe, options: TrainOptions) -> GRPOConfig:
    """The stage, if OpenRLHF can do what is asked.

    Raises:
        UsageError: it cannot.
    """
    stage: Any = recipe.stage
    if not isinstance(stage, GRPOConfig):
        raise UsageError(
            f"OpenRLHF trains policy gradients of whole episodes, but {run.agent} is set to "
            "another stage; add --stage grpo if it has one, or leave out --backend."
        )
    if run.load_in_4bit:
        raise UsageError(
            "OpenRLHF trains weights as they are; leave out --load-in-4bit, or use --backend local."
        )
    if stage.reward != "task" or stage.advantage == CLEAN:
        raise UsageError(
            "OpenRLHF has the task's rewards alone, and samples every chain with its noise; use "
            "--backend local for the reward perplexity or the advantage clean_batch."
        )
    if stage.micro_tokens:
        raise UsageError(
            "--grpo.micro-tokens bounds what is replayed in this process; with --backend openrlhf "
            "give --grpo.micro-batch."
        )
    if stage.rollout_dtype is not None:
        raise UsageError(
            "OpenRLHF rolls out in the precision that it trains in; leave out --rollout-dtype, or "
            "use --backend local."
        )
    if options.logger:
        raise UsageError("--backend openrlhf logs to TensorBoard alone; leave out --logger.")
    if options.outliers_every:
        raise UsageError(
            "outliers are logged by --backend local alone; leave out --outliers-every."
        )
    if options.early_stopping or options.keep_last > 1:
        raise UsageError(
            "OpenRLHF trains to the last step and keeps the last checkpoint; use --backend local "
            "for --early-stopping or --keep-last."
        )
    return stage
