"""A page for each task, made of what the registry, the data and the task itself say.

`python -m benchmarks.report` writes them. Where a task has data they show the sample of the
package, so that they come out the same on every machine.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import gymnasium as gym

from latentgym.data import DATASETS, DatasetSpec
from latentgym.envs import LatentEnv, LatentVectorEnv
from latentgym.envs.catalogue import DEFAULT_WIDTH
from latentgym.envs.episodes import OBSERVATION
from latentgym.episodes.spaces import FAMILIES
from latentgym.registry import FAMILY_NAMES, NAMESPACE, REASONING_GYM_PREFIX, TASKS, task_maker
from latentgym.system.options.keywords import Keyword, keywords
from latentgym.system.terminal import printable

ABOUT: Mapping[str, str] = {
    "GSM8K": "Word problems of grade school whose answer is a whole number.",
    "GSM8KAug": "GSM8K, augmented by a language model, with chains of equations as reasoning; "
    "its questions may be generated, for models trained from scratch.",
    "GSMHard": "GSM8K with large numbers in place of the small ones.",
    "SVAMP": "Word problems of one step, worded so that shortcuts fail.",
    "MultiArith": "Word problems of several steps.",
    "MATH": "Problems of mathematics competitions, with answers in LaTeX.",
    "MATH500": "The 500 problems of MATH's test split that are mostly reported.",
    "AIME2024": "The American Invitational Mathematics Examination of 2024: answers from 0 to 999.",
    "AIME2025": "The American Invitational Mathematics Examination of 2025: answers from 0 to 999.",
    "MNNS": "Minimum non-negative sum: sign some digits so that their sum is least and not "
    "negative.",
    "ProsQA": "Which of two vertices of a graph can be reached from its root, in five steps?",
    "ProntoQA": "Which of two vertices of a graph can be reached from its root, in six steps?",
    "NQ": "Questions that people asked a search engine, over passages of an encyclopedia.",
    "TriviaQA": "Questions of quizzes, over passages of an encyclopedia.",
    "HotpotQA": "Questions that need two passages of an encyclopedia.",
    "2WikiMultihopQA": "Questions that need two and more passages of an encyclopedia.",
    "Bamboogle": "Questions of two hops that a search engine does not answer at once.",
    "AmazonCDs": "The album that a user buys next.",
    "AmazonOffice": "The office product that a user buys next.",
    "AmazonIndustrial": "The industrial product that a user buys next.",
    "MovieLens": "The film that a user rates next.",
}

_FIRST = "first version"
# What has changed of a task since it has been there, newest first; every task has the last line.
CHANGES: Mapping[str, tuple[str, ...]] = {
    "MATH": (
        'seven gold answers such as "31,250" are read as numbers, not as lists; the hash of the '
        "data is another one",
    ),
    **dict.fromkeys(("HotpotQA", "2WikiMultihopQA"), ("the split `test` is the dev set",)),
}
_RG_PAGE = "reasoning-gym"
_NOTE = "<!-- made by python -m benchmarks.report; do not edit -->"
_WORDED = "`model=` a language model"
_WIDTH = 90  # of what is quoted


def names() -> list[str]:
    """The tasks that have a page of their own: those of this package, not what else is there."""
    return [
        task
        for task, maker in TASKS.items()
        if maker.startswith("latentgym.") and not task.startswith(REASONING_GYM_PREFIX)
        if task in DATASETS or task_maker(task).data == "generated"  # else there is nothing to show
    ]


def pages() -> dict[str, str]:
    """All pages: their paths from the root of the repository, and what stands in them."""
    made = {f"docs/tasks/{task}.md": page(task) for task in names()}
    made[f"docs/tasks/{_RG_PAGE}.md"] = _reasoning_gym()
    made["docs/tasks/index.md"] = _index()
    return made


def page(task: str) -> str:
    """The page of one task."""
    spec = DATASETS.get(task)
    env = _make(task)
    return _joined(
        f"# {task}",
        _NOTE,
        f"{ABOUT[task]} Ids: {_ids(task)}.",
        "## Data and licence",
        *_data(env, spec),
        *_common(task, env),
        "## Version history",
        *[f"- 0.1.0: {change}." for change in (*CHANGES.get(task, ()), _FIRST)],
    )


def _common(task: str, env: Any) -> Iterator[str]:
    """Spaces, prompt, episode, grader and arguments of a task."""
    rules, tokenizer = env.protocol, env.task.tokenizer
    yield "## Spaces"
    yield f"Without `model=`, in {tokenizer.vocab_size} {_alphabet(tokenizer)}:"
    shape = tokenizer.vocab_size, DEFAULT_WIDTH, keywords(LatentVectorEnv)["support"].default
    yield _table(
        ("family", "action space"),
        [(name, f"`{family.space(*shape)}`") for name, family in FAMILIES.items()],
    )
    yield observation(env.observation_space)
    yield "## Rules"
    marker = f"`{rules.marker.text}` ends the thoughts" if rules.marker else "no marker"
    tool = rules.tool_call
    call = f"; `{tool.text}` calls the environment" if tool else ""
    yield (
        f"By default the budget of thoughts is {_budget(rules.think)}, and that of the answer "
        f"{_budget(rules.answer)} tokens; {marker}{call}. With a language model's vocabulary "
        "budgets may differ."
    )
    yield "## Prompt"
    yield _quoted(tokenizer.decode(env.prompt(0)))
    yield "## Example episode"
    yield "A right token chain, as the token family plays it and `render` shows it:"
    yield _quoted(_episode(env))
    yield "## Grader"
    yield from _grader(env)
    yield "## Arguments"
    yield "Of `gym.make` and, on the command line, `-o name=value`:"
    yield _arguments(_task_keywords(task))
    yield "And of every environment, in Python; commands have `--model`, and decide the rest:"
    single = keywords(LatentEnv)
    yield _arguments(
        k if name in single else replace(k, when="`gym.make_vec`")
        for name, k in keywords(LatentVectorEnv).items()
    )
    yield (
        "`reset(options=...)` takes `index` (the number of a question) and, of a batched "
        "environment, `reset_mask` and `group_size`; see [Semantics](../semantics.md)."
    )


def observation(space: Any = None) -> str:
    """The table of what an observation holds, with the spaces of an environment."""
    if space is None:
        return _table(("entry", "what it is"), [(f"`{k}`", v) for k, v in OBSERVATION.items()])
    rows = [(f"`{name}`", f"`{space[name]}`", about) for name, about in OBSERVATION.items()]
    return _table(("observation", "space", "what it is"), rows)


def _make(task: str) -> Any:
    """A token environment of a task that needs nothing from outside the package."""
    options: dict[str, Any] = {"render_mode": "ansi"}
    spec = DATASETS.get(task)
    if spec is not None and spec.sample is not None:
        options["source"] = "sample"
    if "engine" in {keyword.name for keyword in _task_keywords(task)}:
        options["engine"] = "bm25s"  # there on every machine
    return gym.make(f"{NAMESPACE}/{task}-token", **options).unwrapped


def _ids(task: str) -> str:
    return ", ".join(f"`{NAMESPACE}/{task}-{family}`" for family in FAMILY_NAMES)


def _data(env: Any, spec: DatasetSpec | None) -> Iterator[str]:
    task = env.task
    if spec is None:
        yield f"Generated: {len(task)} questions in the split {task.split}. Licence: generated."
        return
    splits = ", ".join(f"`{split}`" for split in spec.splits)
    yield f"From <{spec.url}>, splits {splits}. Licence of the data: {spec.licence}."
    places = [f"`$LATENTGYM_DATA/{spec.folder}/`"]
    places += [f"`{spec.hub.repo}` on the hub"] if spec.hub else []
    if task.source == "sample":
        yield (
            f"Looked for in {', then '.join(places)}; else a **sample** of the package stands in, "
            f"which is what this page shows ({len(task)} questions, made for this project, hash "
            f"`{task.dataset_hash}`)."
        )
    else:
        yield (
            f"The training split is generated, and this page shows it; of the others the released "
            f"files are looked for in {', then '.join(places)}, else they are generated too."
        )


def _grader(env: Any) -> Iterator[str]:
    task = env.task
    completion, answer = task.gold_completion(0)
    grade = task.grade(0, completion, answer)
    yield f"{task.grading} See [Graders](../graders.md)."
    parts = ", ".join(f"`reward/{name}`" for name in grade.components)
    yield (
        f"The gold answer of the question above, `{task.question(0).gold}`, said as `{answer}`, "
        f"scores {grade.score:g}. `info` at the end has {parts}, and `score`, `parsed`, `status`."
    )


def _episode(env: Any) -> str:
    """The transcript of a right chain, or of as much of it as the budgets have room for."""
    env.reset(options={"index": 0})
    shown, rules = env.demonstration(0), env.protocol
    ids = shown.ids_TS[:, 0]
    if shown.inserted_T is not None:
        ids = ids[~shown.inserted_T]
    env.step_turn(ids[: rules.max_actions])
    return str(env.render())


def _task_keywords(task: str) -> list[Keyword]:
    """Of a task, without a model and then what is only there with one."""
    maker: Any = task_maker(task)
    own, worded = (maker.keywords(task, as_text) for as_text in (False, True))
    for name, k in worded.items():
        if name not in own:
            own[name] = replace(k, when=_WORDED)
        elif k.option != own[name].option:  # one argument with two meanings
            about = f"{own[name].option.about}; with {_WORDED}: {k.option.about}"
            own[name] = replace(own[name], option=replace(k.option, about=about))
    return list(own.values())


def _arguments(known: Iterable[Keyword]) -> str:
    return _table(
        ("argument", "default", "values", "what it is"),
        [
            (
                f"`{k.name}`",
                "none" if k.default is None else f"`{_value(k.default)}`",
                k.expected.replace("2147483647", "2^31 - 1"),
                k.option.about + (f" (with {k.when})" if k.when else ""),
            )
            for k in known
        ],
    )


def _value(default: Any) -> str:
    return str(getattr(default, "value", default))


def _budget(budget: Any) -> str:
    return f"{'exactly' if budget.exact else 'at most'} {budget.steps}"


def _alphabet(tokenizer: Any) -> str:
    return "byte tokens" if tokenizer.name == "bytes" else "symbols of its own"


def _quoted(text: str) -> str:
    """A block of text, long lines folded."""
    lines = [printable(line) for line in text.splitlines()]
    folded = [part for line in lines for part in textwrap.wrap(line, _WIDTH) or [""]]
    return "\n".join(["```text", *folded, "```"])


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in r)} |" for r in lines
    )


def _joined(*parts: str) -> str:
    return "\n\n".join(parts) + "\n"


def _index() -> str:
    rows = [(f"[{task}]({task}.md)", ABOUT[task], _licence(DATASETS.get(task))) for task in names()]
    rows.append(
        (f"[RG_\\<name\\>]({_RG_PAGE}.md)", "Reasoning Gym's procedural tasks.", "Apache-2.0")
    )
    rows.append(("[Custom](../your-own-data.md)", "Questions of your own.", "your own"))
    return _joined(
        "# Tasks",
        _NOTE,
        "Each is there in three action families, as `latent/<task>-token`, `-hybrid` and "
        "`-continuous`; [Semantics](../semantics.md) says what a step is, "
        "[Environments](../environments.md) where data is found and how answers are written.",
        _table(("task", "what is asked", "licence of the data"), rows),
    )


def _licence(spec: DatasetSpec | None) -> str:
    return "generated" if spec is None else spec.licence


def _reasoning_gym() -> str:
    from reasoning_gym.factory import DATASETS as GENERATORS

    tasks = [task for task in TASKS if task.startswith(REASONING_GYM_PREFIX)]
    rows = []
    for task in tasks:
        generator = task.removeprefix(REASONING_GYM_PREFIX)
        about = (GENERATORS[generator][0].__doc__ or "").strip().partition("\n")[0].rstrip(".")
        whole = about and about[-1] != ":" and not about.endswith("either")
        rows.append((f"`{NAMESPACE}/{task}-*`", about if whole else generator.replace("_", " ")))
    shown = "RG_chain_sum"
    return _joined(
        "# Reasoning Gym",
        _NOTE,
        f"{len(tasks)} procedural tasks of Reasoning Gym (`pip install 'latentgym[reasoning-gym]'`)"
        ", each in all action families. They are generated, and differ in the generator alone; an "
        "answer is one line of at most 64 tokens, or 512 where it takes several lines. Licence: "
        "Apache-2.0.",
        _table(("ids", "what is asked"), rows),
        f"What follows is `{shown}`; the others are like it.",
        *_common(shown, _make(shown)),
        "## Version history",
        "- 0.1.0: scorers that paid for garbage are mended, see "
        "[Graders](../graders.md#reasoning-gym).",
        f"- 0.1.0: {_FIRST}.",
    )


SECTIONS = {"observation": observation}
