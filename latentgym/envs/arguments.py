"""Keyword arguments that several tasks take, each with what it is and its range."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeAlias

from latentgym.episodes.spaces import FAMILIES
from latentgym.system.options.keywords import Option

Split: TypeAlias = Annotated[str, Option("which part of the questions")]
Source: TypeAlias = Annotated[
    str | Path,
    Option(
        "where to look for the data instead of the usual places: a file, a folder, a hub id, or "
        "`sample`"
    ),
]
Holdout: TypeAlias = Annotated[
    float,
    Option(
        "where `source` is a file: the share of its rows, evenly spread, that all splits but "
        "`train` have, and `train` has not; 0 is all rows for every split",
        0,
        0.9,
    ),
]
Limit: TypeAlias = Annotated[int, Option("only the first so many questions", least=1)]
Size: TypeAlias = Annotated[int, Option("how many questions are generated", least=1)]
Seed: TypeAlias = Annotated[int, Option("of what is generated", least=0)]

Format: TypeAlias = Annotated[
    str, Option("how an answer is written: `hashes`, `sentence`, `boxed` or `json`")
]
System: TypeAlias = Annotated[
    str, Option("another instruction than the format's own; empty for none")
]
Think: TypeAlias = Annotated[int, Option("budget of thoughts, in steps", least=0)]
Answer: TypeAlias = Annotated[int, Option("budget of the answer, in tokens", least=1)]
ExactThoughts: TypeAlias = Annotated[
    bool,
    Option("think exactly `think` times; what follows, the marker included, is answer"),
]
ForceAnswer: TypeAlias = Annotated[
    bool,
    Option(
        "open the answer phase when thinking ends without the marker; by default for latent chains "
        "whose thoughts are not exact"
    ),
]
Chain: TypeAlias = Annotated[int, Option("0 answers at once, without thoughts", least=0)]


def arrow_of(family: str) -> bool:
    """Whether a prompt is closed with an arrow where nothing else is said."""
    return not FAMILIES[family].mixes


Arrow: TypeAlias = Annotated[
    bool,
    Option(
        "close the prompt with an arrow; by default where thoughts cannot mix tokens",
        usual=arrow_of,
    ),
]

Support: TypeAlias = Annotated[
    int, Option("ids in a superposition (continuous family; the others have none)", least=1)
]
HiddenSize: TypeAlias = Annotated[
    int,
    Option(
        "width of a latent (hybrid family; the others have none); by default the model's own",
        1,
        65_536,
    ),
]
PromptBudget: TypeAlias = Annotated[int, Option("the longest prompt, in tokens", 1, 1 << 20)]
ModelName: TypeAlias = Annotated[
    str, Option("model whose vocabulary and prompts to use; none for the task's own small ones")
]
Dynamics: TypeAlias = Annotated[
    Any,
    Option("a model inside, which reads the actions: its name, or the folder of a training run"),
]
RenderMode: TypeAlias = Annotated[str, Option("`ansi` (text) or `human` (printed)")]
