"""`latentgym train AGENT ENV`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import tyro

from latentgym.agents.lineage import trained_by
from latentgym.agents.run import Run
from latentgym.agents.validation import Asked, Evaluations, validation
from latentgym.cli.agent_options import Parsed, parse_with_agent
from latentgym.cli.options import (
    RunOptions,
    command_line,
    default_model,
    emit,
    env_options,
    fresh_folder,
    output,
    resumable,
    say,
)
from latentgym.errors import LatentGymError, OptionError, UsageError
from latentgym.evaluation.answers import KEEP_THOUGHTS
from latentgym.evaluation.curves import draw_curves
from latentgym.evaluation.overlap import Trained
from latentgym.evaluation.results import RESULT, ROLLOUTS, load_result
from latentgym.openrlhf.job import ClusterOptions, Job
from latentgym.registry import make_vector_env
from latentgym.system.lock import in_use
from latentgym.system.options.ranges import Interval, Kept, Seed, Size, SizeOrZero, Steps
from latentgym.system.terminal import shown
from latentgym.training import GRPOConfig, Metrics, Recipe
from latentgym.training.grpo_config import CLEAN
from latentgym.training.logs import PROJECT
from latentgym.training.manifest import find, latest, read_manifest, run_of

if TYPE_CHECKING:
    from latentgym.rollout import Policy

_HOLDOUT = 0.1
DEFAULT_TINY = "tiny:gpt2:2x2x32"


@dataclass(frozen=True)
class TrainOptions(RunOptions):
    """Options of every training run; those of the agent follow."""

    model: str | None = None
    """tiny[:ARCH[:LxHxD]], smollm2-135m, a folder or hub name; default the checkpoint's or tiny."""
    checkpoint: Path | None = None
    """Start from the weights of this run."""
    dtype: str = "auto"
    """Of the forward pass: float32, bfloat16 or auto (bfloat16 on a GPU); weights are float32."""
    steps: Steps = 1000
    """Training steps."""
    seed: Seed = 0
    """Of initial weights, order and random numbers."""
    out: Path = Path("runs/train")
    """Folder of the run: checkpoints, metrics, TensorBoard, final evaluation."""
    resume: bool = False
    """Go on from the newest checkpoint in --out."""
    save_every: Interval = 200
    """Steps between checkpoints."""
    keep_last: Size = 1
    """Checkpoints that are kept, the newest; with --eval-every the best is kept beside them."""
    log_every: Interval = 0
    """Steps between logged metrics; 0 logs every few seconds. OpenRLHF logs every step."""
    lora_r: SizeOrZero = 0
    """Train low-rank adapters of this rank instead of all weights; 0 trains all weights."""
    lora_alpha: Size | None = None
    """Scale of the adapters; default twice the rank."""
    split: str | None = None
    """Split to train on."""
    skip_long: bool = False
    """Leave out questions that are too long for the model's positions, instead of stopping."""
    eval_split: str | None = None
    """Split to evaluate on; default test at the end, and with --eval-every validation."""
    eval_limit: Interval | None = None
    """Questions of each evaluation; all by default, 0 for no evaluation at the end."""
    eval_every: Interval = 0
    """Steps between evaluations during training; 0 for none. The best checkpoint is kept."""
    early_stopping: Interval = 0
    """Stop after so many of them in a row without a better one; 0 for never."""
    test: bool = False
    """With --eval-every: evaluate the best checkpoint on the test split, once, at the end."""
    keep_thoughts: Kept = KEEP_THOUGHTS
    """Of each thought of it store so many of the heaviest tokens; 0 stores none one by one."""
    backend: Literal["local", "openrlhf"] = "local"
    """Where to train: in this process, or through OpenRLHF on Ray."""
    cluster: Annotated[ClusterOptions, tyro.conf.arg(name="")] = field(
        default_factory=ClusterOptions
    )
    outliers_every: Interval = 0
    """Steps between looks at outlier features of hidden layers, and at latents; 0 for none."""
    logger: list[str] = field(default_factory=list)
    """Further loggers: wandb, trackio."""
    project: str = PROJECT
    """Of these loggers, under which they file the run."""


class _Trained(NamedTuple):
    """What training leaves.

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


def main(argv: Sequence[str]) -> int:
    """Train an agent, then evaluate it."""
    parsed = parse_with_agent(
        TrainOptions, argv, "train", "Train an agent.", suits=lambda cls: cls.trains()
    )
    options: TrainOptions = parsed.options
    if options.steps < 1:
        raise UsageError(f"--steps must be at least 1, but is {options.steps}.")
    run = _run(options, parsed.config)
    recipe = run.make_agent().recipe()
    recipe.validate()
    if options.backend == "local":
        _refuse_cluster(options.cluster)
    _check_options(options)
    train = {"local": _train_here, "openrlhf": _train_openrlhf}[options.backend]
    with in_use(options.out), resumable(options.out, "checkpoints/step-*"):
        fresh_folder(options.out, "metrics.jsonl", options.resume)
        evaluations = _evaluations(run, options, argv)
        try:
            trained = train(run, recipe, parsed, evaluations)
        finally:  # however far it came
            _set_aside(options.out)
        took = f"trained {trained.done} steps"
        if trained.done < options.steps:
            took = f"stopped early, after {trained.done} of {options.steps} steps"
        elif not trained.metrics:
            took = f"nothing is left to train, all {options.steps} steps are taken"
        if trained.step != trained.done:
            took += f", of which the first {trained.step} made the best weights"
        say(f"{took}; checkpoint, metrics and TensorBoard are in {options.out}")
        _draw(options.out)
        final: dict[str, Any] = {"out": str(options.out), "metrics": trained.metrics}
        if options.eval_limit != 0:
            if (options.out / RESULT).exists():
                say(f"the result in {options.out} is of an earlier evaluation and is replaced")
            final["accuracy"] = _final_evaluation(trained, evaluations, options)
    emit(final, options.json)
    return 0


def _check_options(options: TrainOptions) -> None:
    """Refuse options that do not go together.

    Raises:
        UsageError: there are such.
    """
    if not options.eval_every:
        for name, given in (("early-stopping", options.early_stopping), ("test", options.test)):
            if given:
                raise UsageError(f"--{name} goes with --eval-every; add it, or leave --{name} out.")
    elif options.eval_split == "test":
        raise UsageError(
            "--eval-every evaluates during training, by which weights are chosen, so it does not "
            "take the test split; leave --eval-split out, and add --test for the test at the end."
        )
    elif options.eval_limit == 0:
        raise UsageError(
            "--eval-every evaluates, but --eval-limit 0 leaves it no questions; leave one out."
        )


def _set_aside(out: Path) -> None:
    """Rename a result that is of other weights than those that the run's checkpoint now has."""
    if latest(out / "checkpoints") is None or not (out / RESULT).exists():
        return
    with suppress(LatentGymError):  # a damaged one says of no weights what they do
        step = load_result(out).config.get("steps")
        if step != read_manifest(find(out))["step"]:
            for name in (ROLLOUTS, RESULT):
                if (old := out / name).exists():
                    old.rename(out / f"step-{step}.{name}")
            say(f"the result of step {step} is now {out / f'step-{step}.{RESULT}'}")


def _run(options: TrainOptions, config: Any) -> Run:
    """The run that the options describe; what they leave open, its checkpoint says."""
    parent = run_of(options.checkpoint)
    if options.resume and (newest := latest(options.out / "checkpoints")):
        parent = run_of(newest)  # what it was started with is what it goes on with
    lora = None
    if options.lora_alpha and not options.lora_r:
        raise UsageError(
            "--lora-alpha is the scale of adapters; give --lora-r too, or leave it out."
        )
    if options.lora_r:
        lora = {"r": options.lora_r, "alpha": options.lora_alpha or 2 * options.lora_r}
    return Run(
        agent=options.agent,
        config=config,
        env=options.env,
        env_options=_held_out(options),
        model=options.model or parent.get("model") or default_model(DEFAULT_TINY),
        checkpoint=options.checkpoint,
        lora=lora or parent.get("lora"),
        keep_thoughts=options.keep_thoughts,
        seed=options.seed,
        device=options.device,
        compile=options.compile,
        dtype=options.dtype,
    )


def _held_out(options: TrainOptions) -> dict[str, Any]:
    """The environment's options; of a file that is the source some rows are not trained on."""
    given = env_options(options.split, options.env_option, options.own)
    source = given.get("source")
    chosen = "holdout" in given or options.split not in (None, "train")
    if chosen or not isinstance(source, str) or not Path(source).expanduser().is_file():
        return given
    held = {**given, "holdout": _HOLDOUT}
    try:
        make_vector_env(options.env, 1, **held)
    except OptionError:  # its splits come from elsewhere
        return given
    say(
        f"{100 * _HOLDOUT:g} % of {source} are held out to evaluate on; -o holdout=0 trains on all "
        "rows"
    )
    return held


def _identity(run: Run, options: TrainOptions) -> dict[str, Any]:
    """What a resumed run must have in common with the one that it goes on with."""
    return {**run.identity(), **({"skip_long": True} if options.skip_long else {})}


def _asked(run: Run, options: TrainOptions, split: str | None) -> Asked:
    """What is asked in the evaluations on a split; None is the task's own for validation."""
    extras = env_options(split, options.env_option, options.own)
    extras.pop("limit", None)  # that of the training data
    held = {name: value for name, value in run.env_options.items() if name == "holdout"}
    if split is None:
        return validation(run, {**held, **extras}, options.eval_limit)
    return Asked(replace(run, env_options={**held, **extras}), options.eval_limit)


def _refuse_cluster(given: ClusterOptions) -> None:
    """Refuse options of a cluster where there is none.

    Raises:
        UsageError: there are such, by name.
    """
    default, both = ClusterOptions(), ("gradient_checkpointing",)  # what training here has too
    names = [
        f"--{f.name.replace('_', '-')}"
        for f in fields(given)
        if f.name not in both and getattr(given, f.name) != getattr(default, f.name)
    ]
    if names:
        raise UsageError(
            f"{' and '.join(names)}: options of a cluster go with --backend openrlhf; add it."
        )


def _evaluations(run: Run, options: TrainOptions, argv: Sequence[str]) -> Evaluations:
    """The evaluations of a run; that there is what they ask is made sure before it trains.

    Where questions are the user's own, it says how those of the test are kept apart.

    Raises:
        UsageError: there is no such split, or it has fewer questions.
    """
    split = options.eval_split or (None if options.eval_every else "test")
    asked = _asked(run, options, split)
    if options.eval_limit != 0:
        asked.check()
        about = {} if asked.held_out else asked.run.make_env(1).unwrapped.task.about
        if held_out := about.get("held_out"):
            say(f"evaluated on {held_out}; the others are trained on")
    if options.eval_every and split is None:
        say(f"evaluations during training are on {asked}")
    return Evaluations(
        run=run,
        asked=asked,
        out=options.out,
        trained=_trained_on(run, asked) if options.eval_limit != 0 else Trained(),
        command=partial(command_line, "train", argv),
    )


def _trained_on(run: Run, asked: Asked) -> Trained:
    """What the weights of a run were trained on in its end, what it began from among it."""
    before = trained_by(run_of(run.checkpoint), run.checkpoint)
    tasks = run.make_env(1).unwrapped.task, *before.tasks
    return Trained(tasks, before.whole, (asked.held_out, *before.shares))


def _train_here(run: Run, recipe: Recipe, parsed: Parsed, evaluations: Evaluations) -> _Trained:
    """Train in this process."""
    from latentgym.training import Looks, OutlierWatch, Trainer

    options: TrainOptions = parsed.options
    policy = run.learner()
    parsed.refuse_idle(policy.lm, training=True)
    if options.cluster.gradient_checkpointing:
        policy.lm.checkpoint_gradients()
    every = options.outliers_every
    identity, looks = _identity(run, options), None
    stage = recipe.stage.build(policy, run.make_env, run.seed)
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
    )
    checkpoints = options.keep_last + (2 if looks else 1)
    _check_disk(options.out, policy, stage.kept, checkpoints)
    metrics = trainer.run(resume=options.resume)
    best = None if looks is None else looks.best
    return _Trained(policy, metrics, trainer.done, trainer.done if best is None else best)


def _check_disk(out: Path, policy: Policy, kept: Policy | None, most: int) -> None:
    """Make sure that so many checkpoints fit: the newest is written before the last one goes.

    Raises:
        UsageError: they do not.
    """
    stored = [policy] if kept is None else [policy, kept]
    whole = sum(p.numel() * p.element_size() for each in stored for p in each.parameters())
    moving = sum(2 * p.numel() * p.element_size() for p in policy.parameters() if p.requires_grad)
    needed, free = most * (whole + moving), shutil.disk_usage(out).free
    if needed > free:
        raise UsageError(
            f"{'two' if most == 2 else most} checkpoints take {needed / 2**30:.1f} GiB, but {out} "
            f"has room for {free / 2**30:.1f} GiB; make room or choose another --out."
        )


def _train_openrlhf(run: Run, recipe: Recipe, parsed: Parsed, evaluations: Evaluations) -> _Trained:
    """Train through OpenRLHF; the policy comes back through its checkpoint."""
    options: TrainOptions = parsed.options
    if not isinstance(recipe.stage, GRPOConfig):
        raise UsageError(
            f"OpenRLHF trains policy gradients of whole episodes, but {run.agent} is set to "
            "another stage; add --stage grpo if it has one, or leave out --backend."
        )
    if recipe.stage.reward != "task" or recipe.stage.advantage == CLEAN:
        raise UsageError(
            "OpenRLHF has the task's rewards alone, and samples every chain with its noise; use "
            "--backend local for the reward perplexity or the advantage clean_batch."
        )
    if recipe.stage.micro_tokens:
        raise UsageError(
            "--grpo.micro-tokens bounds what is replayed in this process; with --backend openrlhf "
            "give --grpo.micro-batch."
        )
    if recipe.stage.rollout_dtype is not None:
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
    asked = evaluations.asked
    if asked.held_out:
        raise UsageError(
            f"{run.env_id} has no split to evaluate on during training, and OpenRLHF holds none of "
            "the training questions out; give --eval-split, or use --backend local."
        )
    job = Job(
        run=run,
        grpo=recipe.stage,
        optimisation=recipe.optimisation,
        steps=options.steps,
        out=options.out.absolute(),
        cluster=options.cluster,
        identity=_identity(run, options),
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
    return _Trained(policy, metrics, options.steps, options.steps)


def _final_evaluation(trained: _Trained, evaluations: Evaluations, options: TrainOptions) -> float:
    """Evaluate what was trained; where weights were chosen by it, that evaluation is the last."""
    chosen = options.eval_every > 0 and options.backend == "local"
    if options.test:
        asked = _asked(evaluations.run, options, "test")
        evaluations, chosen = replace(evaluations, asked=asked), False
    if chosen:
        result = evaluations.take(trained.step)
    else:
        evaluation = evaluations.evaluate(trained.policy, trained.step)
        evaluation.save(options.out)
        result = evaluation.result
    low, high = result.accuracy_ci95
    note = "" if not result.trained_on else f", {result.trained_on} of them trained on"
    note += ", by which these weights were chosen" if chosen else ""
    split = "held-out" if evaluations.asked.held_out else result.split
    told = (
        f"{split} accuracy {result.accuracy:.4f} [{low:.4f}, {high:.4f}] on "
        f"{result.n} questions{note}"
    )
    output(options.json).print(shown(told))
    return result.accuracy


def _draw(out: Path) -> None:
    """Draw the learning curves of a run into its folder, or say why there are none."""
    try:
        draw_curves(out)
    except UsageError as error:
        say(f"the learning curves are not drawn: {error}")
