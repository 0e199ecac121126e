"""What a report says in few numbers, as tables for the terminal and the page.

Steps and questions are told as people look for them: steps from 1, questions by their number in
the split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from latentgym.analysis.interventions import title_of
from latentgym.analysis.lens import KL_FINAL_LENS, KL_LENS_FINAL, KL_SHARE, OVERLAP_ABOVE
from latentgym.analysis.pooling import ALL

Report = Mapping[str, Any]
_BY_LAYER = "by layer, means over positions; skip: L2 change of the output distribution"
_DECODED = 3  # sequences whose thoughts are shown in tokens
_ANSWER = 16  # characters of an answer beside them
SURE = 10
"""Questions from which on an interval of Student's is told apart from 0."""
_TURNS = {
    "last_turn_of_cosine_block": "last layer at which cos(block, h) changes sign",
    "first_overlap_above": f"first layer with top-5 overlap > {OVERLAP_ABOVE}",
    f"first_{KL_FINAL_LENS}_below_half": "first layer with KL(final || lens) below {} its maximum",
    f"first_{KL_LENS_FINAL}_below_half": "first layer with KL(lens || final) below {} its maximum",
}


class Summary(NamedTuple):
    """A table of few numbers.

    Attributes:
        title: of it.
        columns: names of its columns.
        rows: cells as text.
        texts: columns that are no numbers; they begin at the left.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    texts: Sequence[int] = (0,)


def tables(report: Report) -> list[Summary]:
    """What a report says in few numbers: by layer, and of the whole."""
    made = (
        _by_layer(report),
        _turns(report),
        _depth_scores(report),
        _gradients(report),
        _erasure(report),
        _outliers(report),
        *_causal_maps(report),
        _decoded(report),
    )
    return [table for table in made if table.rows]


def _by_layer(report: Report) -> Summary:
    columns: dict[str, list[float | None]] = {}
    if "contributions" in report:
        told = report["contributions"]
        columns["|h|"] = told["norm_h"][ALL]["mean"]
        columns["block/h"] = told["relative_block"][ALL]["mean"]
        columns["cos(block,h)"] = told["cosine_block"][ALL]["mean"]
    if "lens" in report:
        columns["KL(lens||final)"] = report["lens"]["kl_lens_final"][ALL]["mean"]
        columns["top-5"] = report["lens"]["overlap"][ALL]["mean"]
    for name, title in (("skips", "skip"), ("future", "skip:future"), ("thoughts", "skip:answer")):
        told = report.get(name, {})
        told = told.get("block", told).get("output", {})
        if ALL in told:
            columns[title] = told[ALL]["mean"]
    rows = [
        [str(layer), *(_number(column[layer]) for column in columns.values())]
        for layer in range(report["blocks"] if columns else 0)
    ]
    return Summary(_BY_LAYER, ["layer", *columns], rows)


def _turns(report: Report) -> Summary:
    rows = [
        [_TURNS[name].format("half" if KL_SHARE == 0.5 else KL_SHARE), *map(_number, at.values())]
        for name, at in report.get("scalars", {}).items()
    ]
    return Summary("where along the layers something holds", ["", "l", "(l + 1) / L"], rows)


def _depth_scores(report: Report) -> Summary:
    """Means over the sequences, and how they go with how hard a question is."""
    rows, names = [], list[str]()
    for over in ("mean", "max"):
        if told := report.get("skips", {}).get(f"depth_score_{over}"):
            known = [score for score in told["by_sequence"] if score is not None]
            names = list(told["against"])
            mean = sum(known) / len(known) if known else None
            slopes = (_slope(told["against"][name]) for name in names)
            rows.append([over, _number(mean), *slopes])
    title = "depth score, the mean layer weighted by what skipping it does to later ones"
    return Summary(title, ["over positions", "score", *(f"layers per {n}" for n in names)], rows)


def _slope(told: Report) -> str:
    if told["slope"] is None:
        return "-"
    low, high = told["slope_ci95"]
    return f"{told['slope']:+.2g} [{low:+.2g}, {high:+.2g}]"


def _gradients(report: Report) -> Summary:
    """Sums over the positions of a kind, means over the sequences."""
    cells: dict[int, dict[str, list[float]]] = {}
    for told in report.get("gradients", ()):
        summed: dict[str, float] = {}
        for kind, value in zip(told["kinds"], told["value"], strict=True):
            summed[kind] = summed.get(kind, 0.0) + value
        for kind, value in {**summed, "sum": told["change"]}.items():
            cells.setdefault(told["layer"], {}).setdefault(kind, []).append(value)
    mean = {
        layer: {kind: sum(values) / len(values) for kind, values in by_kind.items()}
        for layer, by_kind in cells.items()
    }
    title = "integrated gradients of the answer's probability, summed by kind of position"
    return _by_kind(title, mean, last="sum")


def _erasure(report: Report) -> Summary:
    """The largest effects of one position of a kind, over the sequences."""
    told = report.get("erasure", {"layers": [], "by_sequence": []})
    most: dict[int, dict[str, float]] = {layer: {} for layer in told["layers"]}
    for found in told["by_sequence"]:
        for layer, effects in zip(told["layers"], found["effect"], strict=True):
            for kind, effect in zip(found["kinds"], effects, strict=True):
                most[layer][kind] = max(effect, most[layer].get(kind, 0.0))
    title = "largest change of the answer's distributions where one position is erased, by kind"
    return _by_kind(title, most)


def _by_kind(title: str, cells: Mapping[int, Mapping[str, float]], last: str = "") -> Summary:
    """A row for each layer, a column for each kind of position."""
    kinds = dict.fromkeys(kind for by_kind in cells.values() for kind in by_kind)
    order = sorted(kinds, key=lambda kind: kind == last)
    rows = [
        [str(layer), *(_number(by_kind.get(kind)) for kind in order)]
        for layer, by_kind in cells.items()
    ]
    return Summary(title, ["before layer", *order], rows)


def _outliers(report: Report) -> Summary:
    """Feature kurtosis and the largest magnitude over the median, by layer input."""
    told = report.get("outliers", {"groups": {}, "layers": []})
    kinds = [name for name in told["groups"] if name != ALL]
    columns = ["input", "kurtosis", *kinds, "max/median"]
    rows = [
        [
            name,
            *(_number(told["groups"][group]["kurtosis"][layer]) for group in (ALL, *kinds)),
            _number(told["groups"][ALL]["top_over_median"][layer][0]),
        ]
        for layer, name in enumerate(told["layers"])
    ]
    return Summary("feature kurtosis, all positions and by kind", columns, rows)


def _causal_maps(report: Report) -> Iterator[Summary]:
    """Change of the answer's probability where a step is replaced."""
    for effect in ("direct", "total"):
        if found := report.get("latents", {}).get(effect):
            steps = [step_of(cell) for cell in next(iter(found["map"].values()))]
            told = _effects(found["questions"])
            rows = [
                [title_of(name), *(told(cell["probability"]) for cell in cells)]
                for name, cells in found["map"].items()
            ]
            count = found["questions"]
            star = (
                "* where the 95 % interval leaves out 0"
                if count >= SURE
                else f"too few to tell an effect from 0, which takes {SURE}"
            )
            title = (
                f"change of the given answer's probability by replaced step, {effect} effect "
                f"({count} questions; {star})"
            )
            yield Summary(title, ["replaced by", *steps], rows)


def step_of(cell: Report) -> str:
    """The step of a cell of a causal map as people count: from 1, or all."""
    step = cell["step"]
    return str(step + 1) if isinstance(step, int) else str(step)


def _effects(questions: int) -> Callable[[Mapping[str, float | None]], str]:
    """What tells the mean of an effect, with a star where so many questions can be sure of it."""

    def told(effect: Mapping[str, float | None]) -> str:
        mean, low, high = (effect[name] for name in ("mean", "low", "high"))
        apart = low is not None and high is not None and (low > 0 or high < 0)
        sure = apart and questions >= SURE
        return f"{_number(mean, 2)}{'*' if sure else ' '}"

    return told


def _decoded(report: Report) -> Summary:
    """The thoughts of the first sequences in tokens: what each is near to, and what it leads to."""
    rows, before = [], None
    for row in report.get("latents", {}).get("decoded", []):
        number = row["row"]
        if number < _DECODED:
            last = max(row["lens"], key=int)
            near, then = row["nearest"], row["lens"][last]
            who = ["", ""] if number == before else [*_question(report, number)]
            cells = [_tokens(near, "cosine"), _tokens(then, "probability")]
            rows.append([*who, str(row["step"] + 1), row["kind"], *cells])
            before = number
    columns = ["question", "answer", "step", "kind", "nearest (cosine)", "next (probability)"]
    return Summary("thoughts in tokens, by question and step", columns, rows, (0, 1, 3, 4, 5))


def _question(report: Report, row: int) -> Iterator[str]:
    """The number of a row's question, and its answer with what became of it."""
    yield str(report["questions"][row])
    if report["demonstrations"]:
        yield "the task's own"
        return
    answer = report["answers"][row]
    text = answer["parsed"] or "none"
    text = text if len(text) <= _ANSWER else f"{text[: _ANSWER - 1]}…"
    score = answer["score"]
    yield f"{text}, {'right' if score >= 1 else 'wrong' if score <= 0 else f'score {score:.2g}'}"


def _tokens(told: list[Mapping[str, Any]], name: str) -> str:
    """The first three tokens with their numbers."""
    return ", ".join(f"{each['text'] or each['id']} {each[name]:.2f}" for each in told[:3])


def _number(value: float | None, digits: int = 3) -> str:
    """So many significant digits, and nothing but 0 for what is 0."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value or 0.0:.{digits}g}"
