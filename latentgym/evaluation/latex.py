r"""A table of results for a paper, in the rules of the package booktabs.

A `table` with its caption. What all rows have in common stands there; what one should know of a row
before comparing it stands below, behind a letter. Names in records are whoever's, and are escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from string import ascii_lowercase

from latentgym.evaluation.columns import BY_NAME, Column, Run
from latentgym.evaluation.exports import cell, heading, in_order
from latentgym.evaluation.fairness import cautions
from latentgym.evaluation.rows import asked, best
from latentgym.system.terminal import line

DEFAULT = ("run", "agent", "task", "model", "accuracy", "n", "flops")
_COMMON = ("task", "split", "source", "model")  # told in the caption where all rows agree
_ESCAPED = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}


def latex_text(found: Sequence[Run], columns: Sequence[str] = ()) -> str:
    """The table; the best of each task is bold, with those whose intervals reach its own.

    Args:
        found: folder and record of each run.
        columns: their names; none for a few, without those that all rows have in common.
    """
    common = _common(found)
    chosen = [BY_NAME[name] for name in columns or DEFAULT if columns or name not in common]
    warned = cautions(found)
    told = {run[0]: [*_notes(run, warned[run[0]])] for run in in_order(found)}
    notes = list(dict.fromkeys(note for own in told.values() for note in own))
    letters = dict(zip(notes, map(_letter, range(len(notes))), strict=True))
    runs, body = in_order(found), list[str]()
    for _, some in groupby(runs, key=asked):
        table = list(some)
        top = best(table)
        body += ["\\midrule"]
        for run in table:
            marks = ",".join(letters[note] for note in told[run[0]])
            cells = [_cell(column, run, run[0] in top) for column in chosen]
            cells[0] += f"\\textsuperscript{{{marks}}}" if marks else ""
            body.append(f"{' & '.join(cells)} \\\\")
    sides = "".join("l" if column.kind in ("text", "flag") else "r" for column in chosen)
    below = [f"\\textsuperscript{{{letters[note]}}} {escaped(note)}." for note in notes]
    lines = [
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{escaped(_caption(found, common, [column.name for column in chosen]))}}}",
        f"\\begin{{tabular}}{{{sides}}}",
        "\\toprule",
        f"{' & '.join(escaped(heading(column)) for column in chosen)} \\\\",
        *body,
        "\\bottomrule",
        "\\end{tabular}",
        *(["\\par\\smallskip\\footnotesize", "\\\\\n".join(below)] if below else []),
        "\\end{table}",
    ]
    return "".join(f"{line}\n" for line in lines)


def escaped(text: str) -> str:
    """A text in one line, without what LaTeX would read as its own."""
    return "".join(_ESCAPED.get(c, c) for c in line(text))


def _common(found: Sequence[Run]) -> dict[str, str]:
    """What all runs have in common, by the name of its column."""
    values = {name: {str(BY_NAME[name].value(run)) for run in found} for name in _COMMON}
    return {name: min(own) for name, own in values.items() if len(own) == 1}


def _caption(found: Sequence[Run], common: Mapping[str, str], names: Sequence[str]) -> str:
    """What the rows have in common, and what is in the columns."""
    of = ", ".join(f"{value} split" if name == "split" else value for name, value in common.items())
    means = ", means over seeds" if any(len(r.seeds) > 1 for _, r in found) else ""
    told = [f"Accuracy{f' ({of})' if of else ''}, in per cent with 95 % intervals{means}."]
    if any(best(list(some)) for _, some in groupby(in_order(found), key=asked)):
        told.append("Bold: the best, and those whose intervals overlap with its own.")
    if "flops" in names:
        told.append("FLOP are operations an answer.")
    return " ".join(told)


def _notes(run: Run, odd: Sequence[str]) -> Iterator[str]:
    """What one should know of a run before it is compared."""
    r = run[1]
    if r.source == "sample":
        yield "made-up questions in the place of the real data: no result"
    if r.oracle:
        yield "gold answers took part in choosing: an upper bound"
    if r.trained_on:
        yield f"{r.trained_on} of {r.n} questions were trained on"
    yield from odd


def _letter(number: int) -> str:
    """a, b, .., z, aa, bb, .."""
    times, place = divmod(number, len(ascii_lowercase))
    return ascii_lowercase[place] * (times + 1)


def _cell(column: Column, run: Run, bold: bool) -> str:
    text = escaped(cell(column, run))
    if column.name == "accuracy" and bold:
        number, _, interval = text.partition(" ")
        return f"\\textbf{{{number}}} {interval}"
    if column.name == "agent" and run[1].control:
        return f"{text} ({escaped(run[1].control)})"
    return text
