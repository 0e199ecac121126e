"""The data of OpenRLHF's own vLLM path: one line per question, which says where to find it.

    python -m latentgym.openrlhf.prompts latent/GSM8K-token --model MODEL --out prompts.jsonl

writes the columns `input` (the prompt as text, for OpenRLHF's logs), `label` (the question, for
`token_agent`, which gets the prompt's token ids from the environment) and `datasource` (the name
under which OpenRLHF logs evaluations). Needs neither OpenRLHF nor Ray.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from latentgym.errors import LatentGymError, UsageError
from latentgym.registry import (
    make_vector_env,
    qualified,
    recorded,
    recorded_options,
    resolve,
    stored_fault,
)
from latentgym.storage import atomic_write


@dataclass(frozen=True)
class PromptRow:
    """A question of an environment.

    Attributes:
        env: id of the environment, of the token family; behind its module, if that is another
            package's.
        index: number of the question.
        options: keyword arguments of the environment, `model` among them.
        data: hash of the data set that is meant; empty for whatever is found.

    Raises:
        UsageError: there is no such environment, it has other actions, or no model.
    """

    env: str
    index: int
    options: Mapping[str, Any] = field(default_factory=dict)
    data: str = ""

    def __post_init__(self) -> None:
        _, task, family = resolve(self.env)
        if family != "token":
            raise UsageError(
                f"{self.env} thinks in latents, but vLLM reads token ids only; use "
                f"latent/{task}-token, or latentgym train --backend openrlhf."
            )
        if not self.options.get("model"):
            raise UsageError(
                "an environment without a model has a vocabulary of its own; give the model that "
                "vLLM runs (--model)."
            )

    def label(self) -> str:
        """The row as text, equal for equal rows."""
        return json.dumps(vars(self), sort_keys=True)

    @classmethod
    def read(cls, label: str) -> PromptRow:
        """The row of a label.

        Raises:
            UsageError: it is the label of something else, or needs a module that is not trusted.
        """
        try:
            given = json.loads(label)
            env = recorded(str(given["env"]), None, "a label")
            row = cls(**{**given, "env": env, "index": int(given["index"])})
            recorded_options(row.options, "a label")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, LatentGymError):
                raise
            raise UsageError(
                f"{label!r} names no question; write the data with python -m "
                "latentgym.openrlhf.prompts, and give --data.label_key label."
            ) from error
        return row


@dataclass(frozen=True)
class Options:
    """What to write."""

    env: tyro.conf.Positional[str]
    """Id of the environment, such as latent/GSM8K-token."""
    model: str
    """The model that OpenRLHF trains: a folder that all workers can read, or a hub name."""
    out: Path
    """The file to write."""
    split: str | None = None
    """Split of the data; default the training split."""
    limit: int | None = None
    """The first so many questions."""
    options: str = "{}"
    """Further options of the environment as JSON, such as '{"think": 512}'."""


def lines(options: Options) -> Iterator[str]:
    """The lines of the file.

    Raises:
        UsageError: an option is wrong.
    """
    try:
        given = json.loads(options.options)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise UsageError(f"""--options must be JSON such as '{{"think": 512}}', not {given!r}.""")
    if fault := stored_fault(given):
        raise UsageError(f"--options cannot be taken: {fault}.")
    given |= {"model": options.model}
    given |= {} if options.split is None else {"split": options.split}
    first = PromptRow(qualified(options.env), 0, given)
    # A limit is no option of the environment: the numbers of the questions stay the same.
    env = make_vector_env(first.env, 1, **given).unwrapped
    if not hasattr(env.task.tokenizer, "hf"):
        raise UsageError(
            f"{options.env} speaks symbols of its own with {options.model}; give the "
            "model that OpenRLHF trains, a folder or a hub name."
        )
    n = env.n_questions if options.limit is None else options.limit
    if not 1 <= n <= env.n_questions:
        raise UsageError(f"{options.env} has {env.n_questions} questions, not {n}.")
    for index in range(n):
        row = PromptRow(first.env, index, given, env.task.dataset_hash)
        text = env.task.tokenizer.hf.decode(env.prompt(index))
        columns = {"input": text, "label": row.label(), "datasource": env.task.name}
        yield json.dumps(columns, ensure_ascii=False)


def main(argv: Sequence[str]) -> int:
    """Write the file; the exit code."""
    options = tyro.cli(
        Options,
        args=list(argv),
        prog="python -m latentgym.openrlhf.prompts",
        description="Write the questions of an environment for OpenRLHF's vLLM path.",
        use_underscores=False,
    )
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(options.out) as path, path.open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines(options))
    except LatentGymError as error:
        print(f"prompts: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"prompts: cannot write {options.out} ({error.strerror}).", file=sys.stderr)
        return 2
    print(f"wrote {options.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
