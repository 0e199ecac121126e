"""What the command line does, in Python: `latentgym.train`, `evaluate` and `load`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentgym.agents.base import agent_class, config_dict
from latentgym.agents.base import preset as preset_of
from latentgym.agents.lineage import trained_by
from latentgym.agents.run import Run, rows_at_once
from latentgym.agents.settings import with_settings
from latentgym.agents.stored import stored_run
from latentgym.agents.train import Outcome, Training, prepared
from latentgym.agents.train_options import TrainOptions
from latentgym.errors import UsageError
from latentgym.evaluation.evaluate import Evaluation, questions_of
from latentgym.evaluation.evaluate import evaluate as evaluate_policy
from latentgym.evaluation.results import RESULT
from latentgym.storage import folder_named, writable
from latentgym.system.lock import in_use
from latentgym.system.options.calls import checked
from latentgym.system.options.ranges import Interval, Seed, SizeOrZero, Steps
from latentgym.training import GRPOConfig
from latentgym.training.manifest import run_of
from latentgym.training.rewards import Reward, Rewards

if TYPE_CHECKING:
    from latentgym.rollout import Policy


def load(source: str | Path, env: str | None = None, **more: Any) -> Policy:
    """The policy of a run, with the settings that it was trained with, as it answers.

    Args:
        source: folder of a training run, of one of its checkpoints, or of a result; or name of a
            model, which needs an `env`.
        env: id of the environment; None for the run's own.
        more: see `latentgym.agents.stored.stored_run`: `agent`, `preset_name`, `options` of the
            environment, `device`, `dtype`, `control`.

    Raises:
        UsageError, CheckpointError: there is no such run, or it cannot be used so.
    """
    return stored_run(source, env, **more).actor()


@checked
def evaluate(
    source: str | Path,
    env: str | None = None,
    *,
    split: str = "test",
    limit: Steps | None = None,
    index: Sequence[Interval] = (),
    seeds: Sequence[Seed] = (0,),
    batch: SizeOrZero = 0,
    out: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    **more: Any,
) -> Evaluation:
    """Answer the questions of a split and grade the answers, as `latentgym eval` does.

    Args:
        source, env: as in `load`.
        split: of the environment.
        limit: the first so many questions; None for all.
        index: only the questions of these numbers.
        seeds: each answers all questions once.
        batch: rows at once; 0 chooses by the size of the model.
        out: folder for the record; None keeps it in memory.
        options: further options of the environment.
        more: as in `load`.

    Returns:
        Result (accuracy, interval, costs, settings) and answers.

    Raises:
        UsageError, CheckpointError: as `load`; no such split or questions; or the folder holds a
            result already.
    """
    folder = None if out is None else folder_named(out)
    if folder is not None and (folder / RESULT).exists():
        raise UsageError(f"{folder} holds a result already; choose another folder.")
    run = stored_run(source, env, options={**(options or {}), "split": split}, **more)
    questions_of(run.make_env(1).unwrapped.task, limit, index)
    settings = answering_settings(run, seeds, limit, index, folder)
    with in_use(folder):
        policy = run.actor()
        rows = batch or rows_at_once(policy.lm)
        evaluation = evaluate_policy(
            run.make_agent(), policy, run.env_id, run.make_env(rows), **settings
        )
        if folder is not None:
            with writable(folder):
                evaluation.save(folder)
    return evaluation


@checked
def train(
    agent: str,
    env: str,
    *,
    model: str | Path | None = None,
    checkpoint: str | Path | None = None,
    preset: str | None = None,
    settings: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    rewards: Rewards | Sequence[Reward | Callable[..., Any]] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    compile: bool = False,
    load_in_4bit: bool = False,
    **more: Any,
) -> Outcome:
    """Train an agent, then evaluate it, as `latentgym train` does.

        def short(prompts, completions, **columns):
            return [-len(text) / 100 for text in completions]

        run = latentgym.train(
            "cot", "latent/RG_chain_sum-token", preset="grpo-lm", model="smollm2-135m",
            settings={"grpo.group-size": 8}, rewards=[short], steps=60, out="runs/short",
        )
        run.result.accuracy, run.out

    Args:
        agent: name of the agent, or `module:Class`.
        env: id of the environment.
        model: name of a model, or a folder; None for the checkpoint's, else a tiny one.
        checkpoint: folder of a run to begin from.
        preset: named settings of the agent.
        settings: others by name, over the preset's; of a group `group.name`, as on the command
            line: `{"grpo.prompts": 8, "optimisation.lr": 1e-4}`.
        options: of the environment.
        rewards: functions with TRL's calling convention, which earn what the task's reward would.
        device, dtype, compile, load_in_4bit: as in `latentgym.agents.run.Run`.
        more: fields of `latentgym.agents.train_options.TrainOptions`, such as `steps`, `seed`,
            `out`, `resume`, `lora_r`, `eval_every`.

    Returns:
        The folder, the policy, metrics of the last step, and the result of the evaluation.

    Raises:
        UsageError: options that cannot be; or the folder holds a run already, and `resume` is not
            set.
        CheckpointError, TrainingError: what is to be resumed is damaged, or training went wrong.
    """
    cls = agent_class(agent)
    default = preset_of(cls, preset)
    config = with_settings(default, settings or {}, cls.name)
    chosen, given = TrainOptions.of(more), dict(options or {})
    if "split" in given:
        raise UsageError("split is no option of the environment here; give split= or eval_split=.")
    run = prepared(
        agent,
        config,
        env,
        chosen,
        given,
        model=None if model is None else str(model),
        checkpoint=None if checkpoint is None else Path(checkpoint),
        device=device,
        dtype=dtype,
        compile=compile,
        load_in_4bit=load_in_4bit,
    )
    if rewards is not None:
        stage = run.make_agent().recipe().stage
        if not isinstance(stage, GRPOConfig):
            raise UsageError(
                f"rewards teach by policy gradients, but {cls.name} is set to another stage; "
                "choose grpo if it has that, or leave rewards out."
            )
        if stage.rewards:
            raise UsageError(
                "rewards are given as functions and in the setting grpo.rewards; leave one out, or "
                "give Rewards([...], task=1.0) for the task's own beside functions."
            )
        rewards = Rewards.of(rewards, stage.completions)
    said: dict[str, Any] = {
        "model": model,
        "checkpoint": checkpoint,
        "preset": preset,
        "settings": settings,
    }
    said |= {"options": options, "device": device, "dtype": dtype, "compile": compile}
    said |= {"load_in_4bit": load_in_4bit, **more}
    command = partial(_called, (agent, env), said, rewards)
    return Training(run, chosen, given, default, command, rewards).carry_out()


def _called(
    what: tuple[str, str], said: Mapping[str, Any], rewards: Rewards | None, modules: object
) -> str:
    """The call, for the record: without where its outcome is kept, as far as text can say it."""
    usual = {"device": "auto", "dtype": "auto", "compile": False, "load_in_4bit": False}
    words = [repr(word) for word in what]
    words += [
        f"{name}={value!r}"
        for name, value in said.items()
        if value is not None and value != usual.get(name) and name not in ("out", "resume")
    ]
    if rewards is not None:
        words.append(f"rewards=[{', '.join(each.name for each in rewards.functions)}]")
    return f"latentgym.train({', '.join(words)})"


def answering_settings(
    run: Run,
    seeds: Sequence[int],
    limit: int | None,
    index: Sequence[int],
    folder: Path | None,
) -> dict[str, Any]:
    """What an evaluation is told of a run, for its record and for whoever resumes it.

    Args:
        run: that answers.
        seeds, limit, index: which questions, see `evaluate`.
        folder: of the record.
    """
    trained = run_of(run.checkpoint)
    config: dict[str, Any] = {
        "agent": config_dict(run.config),
        "env_options": dict(run.env_options),
    }
    if run.load_in_4bit:
        config["load_in_4bit"] = True
    return {
        "seeds": list(seeds),
        "limit": limit,
        "index": list(index),
        "checkpoint": None if run.checkpoint is None else str(run.checkpoint),
        "control": run.control,
        "config": config,
        "journal": folder,
        "trained": trained_by(trained, run.checkpoint) if trained else None,
    }
