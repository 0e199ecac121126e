"""Training an agent, evaluating it, and keeping what comes of it in one folder."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentgym.agents.backends import Weights, train_here, train_openrlhf
from latentgym.agents.lineage import trained_by
from latentgym.agents.plan import Plan
from latentgym.agents.run import Run, default_model
from latentgym.agents.train_options import TrainOptions
from latentgym.agents.validation import Asked, Evaluations, validation
from latentgym.errors import LatentGymError, OptionError, UsageError
from latentgym.evaluation.curves import draw_curves
from latentgym.evaluation.overlap import Trained
from latentgym.evaluation.results import METRICS, RESULT, ROLLOUTS, Result, load_result
from latentgym.registry import make_vector_env
from latentgym.system.lock import fresh_folder, in_use
from latentgym.system.terminal import say
from latentgym.training.manifest import find, latest, read_manifest, run_of

if TYPE_CHECKING:
    from latentgym.rollout import Policy

DEFAULT_TINY = "tiny:gpt2:2x2x32"
_HOLDOUT = 0.1
_BACKENDS = {"local": train_here, "openrlhf": train_openrlhf}


@dataclass(frozen=True)
class Outcome:
    """What a training run came to.

    Attributes:
        out: folder of the run, as `latentgym.load`, `latentgym.evaluate` and `export` take it.
        policy: with the weights that were evaluated.
        metrics: of the last step; empty where none was left to take.
        steps: how many have been taken.
        best: the step that the weights are from; `steps` unless they were chosen.
        result: of the evaluation at the end, if there was one.
        chosen: whether the weights were chosen by the questions of that evaluation.
        held_out: whether these were held out of the training questions.
    """

    out: Path
    policy: Policy
    metrics: Mapping[str, float]
    steps: int
    best: int
    result: Result | None = None
    chosen: bool = False
    held_out: bool = False


class Training(Plan):
    """A training run: what is planned, carried out and evaluated."""

    def carry_out(self) -> Outcome:
        """Train, then evaluate.

        Raises:
            UsageError, CheckpointError, TrainingError: something cannot be, or goes wrong.
        """
        options, out = self.options, self.options.out
        recipe = self.run.make_agent().recipe()
        recipe.validate()
        with in_use(out):
            fresh_folder(out, METRICS, options.resume)
            evaluations = self._evaluations()
            try:
                weights = _BACKENDS[options.backend](self, recipe, evaluations)
            finally:  # however far it came
                _set_aside(out)
            self._tell(weights)
            _draw(out)
            outcome = Outcome(out, weights.policy, weights.metrics, weights.done, weights.step)
            if options.eval_limit == 0:
                return outcome
            if (out / RESULT).exists():
                say(f"the result in {out} is of an earlier evaluation and is replaced")
            return self._evaluated(outcome, evaluations)

    def _tell(self, weights: Weights) -> None:
        steps = self.options.steps
        took = f"trained {weights.done} step{'s' * (weights.done != 1)}"
        if weights.done < steps:
            took = f"stopped early, after {weights.done} of {steps} steps"
        elif not weights.metrics:
            took = f"nothing is left to train, all {steps} steps are taken"
        if weights.step != weights.done:
            took += f", of which the first {weights.step} made the best weights"
        say(f"{took}; checkpoint, metrics and TensorBoard are in {self.options.out}")

    def _evaluations(self) -> Evaluations:
        """The evaluations; that there is what they ask is made sure before anything is trained.

        Where questions are the user's own, it says how those of the test are kept apart.

        Raises:
            UsageError: there is no such split, or it has fewer questions.
        """
        options, run = self.options, self.run
        split = options.eval_split or (None if options.eval_every else "test")
        asked = self._asked(split)
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
            command=self.command,
        )

    def _asked(self, split: str | None) -> Asked:
        """What is asked in the evaluations on a split; None is the task's own for validation."""
        given = {name: value for name, value in self.env_options.items() if name != "limit"}
        held = {k: v for k, v in self.run.env_options.items() if k == "holdout"}
        if split is None:
            return validation(self.run, {**held, **given}, self.options.eval_limit)
        options = {**held, **given, "split": split}
        return Asked(replace(self.run, env_options=options), self.options.eval_limit)

    def _evaluated(self, outcome: Outcome, evaluations: Evaluations) -> Outcome:
        """The outcome with its result; where weights were chosen by one, that is the last."""
        options = self.options
        chosen = options.eval_every > 0 and options.backend == "local"
        if options.test:
            evaluations, chosen = replace(evaluations, asked=self._asked("test")), False
        if chosen:
            result = evaluations.take(outcome.best)
        else:
            evaluation = evaluations.evaluate(outcome.policy, outcome.best)
            evaluation.save(options.out)
            result = evaluation.result
        held_out = bool(evaluations.asked.held_out)
        return replace(outcome, result=result, chosen=chosen, held_out=held_out)


def prepared(
    agent: str,
    config: Any,
    env: str,
    options: TrainOptions,
    env_options: Mapping[str, Any],
    *,
    model: str | None,
    checkpoint: Path | None,
    load_in_4bit: bool = False,
    **more: Any,
) -> Run:
    """The run that these describe; what they leave open, its checkpoint says.

    Args:
        agent, config, env: who is trained on what.
        options: how long, and what is kept.
        env_options: of the environment.
        model: None for the checkpoint's, or a tiny one.
        checkpoint: of another run, to begin from.
        load_in_4bit: see `Run`; a checkpoint that was trained so goes on so.
        more: further fields of `Run`.

    Raises:
        UsageError: options that do not go together, or no such agent or environment.
    """
    options.validate()
    for name, value in env_options.items():
        if callable(value):
            raise UsageError(
                f"{name} of the environment is a function, which no record can hold; name it as "
                "module:function."
            )
    parent = run_of(checkpoint)
    if options.resume and (newest := latest(options.out / "checkpoints")):
        parent = run_of(newest)  # what it was started with is what it goes on with
    return Run(
        agent=agent,
        config=config,
        env=env,
        env_options=_held_out(env, options.split, env_options),
        model=model or parent.get("model") or default_model(DEFAULT_TINY),
        checkpoint=checkpoint,
        lora=options.lora or parent.get("lora"),
        load_in_4bit=load_in_4bit or parent.get("load_in_4bit", False),
        keep_thoughts=options.keep_thoughts,
        seed=options.seed,
        **more,
    )


def _held_out(env: str, split: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The environment's options; of a file that is the source some rows are not trained on."""
    options = dict(given) if split is None else {**given, "split": split}
    source = given.get("source")
    chosen = "holdout" in given or split not in (None, "train")
    if chosen or not isinstance(source, str) or not Path(source).expanduser().is_file():
        return options
    held = {**options, "holdout": _HOLDOUT}
    try:
        make_vector_env(env, 1, **held)
    except OptionError:  # its splits come from elsewhere
        return options
    say(
        f"{100 * _HOLDOUT:g} % of {source} are held out to evaluate on; -o holdout=0 trains on all "
        "rows"
    )
    return held


def _trained_on(run: Run, asked: Asked) -> Trained:
    """What the weights of a run were trained on in its end, what it began from among it."""
    before = trained_by(run_of(run.checkpoint), run.checkpoint)
    tasks = run.make_env(1).unwrapped.task, *before.tasks
    return Trained(tasks, before.whole, (asked.held_out, *before.shares))


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


def _draw(out: Path) -> None:
    """Draw the learning curves of a run into its folder, or say why there are none."""
    try:
        draw_curves(out)
    except UsageError as error:
        say(f"the learning curves are not drawn: {error}")
