"""Pictures of methods beside each other: at their cost, without their thoughts, over many runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from latentgym.evaluation.aggregates import interquartile_mean, profile
from latentgym.evaluation.columns import COSTS, Run, short
from latentgym.evaluation.comparison import Difference, Scores
from latentgym.evaluation.equal_cost import at_cost, equal_costs
from latentgym.evaluation.methods import Asked, Curve, Method, Point, curves, point, replaced
from latentgym.evaluation.page.plots import COLOURS, INK, WIDTH, Plot, log_costs, style
from latentgym.system.pictures import label
from latentgym.system.terminal import line

_MARKERS = "osD^vP*X<>"
_LOG = 3  # times the least cost: from there on the axis is logarithmic
_MOST_LABELS = 12  # of curves and points; more would cover each other
_MOST_BARS = 60
_MOST_TOLD = 20  # names in a caption
_LABEL = 28  # characters of a name within a picture
_TASK = 100  # and of what was asked, in its caption


def of_questions(
    questions: Asked, methods: Sequence[Method], scores: Callable[[Run], Scores]
) -> list[Plot]:
    """The pictures of what was run on the same questions.

    Args:
        questions: these.
        methods: those without runs on the questions are left out.
        scores: of a run.
    """
    drawn = curves([method for method in methods if method.control is None], questions)
    # Where nothing has a knob, positions tell what operations do.
    costs = ("flops", "positions") if any(curve.knob for curve in drawn) else ("flops",)
    with style() as figure_of:
        made = [
            *(_against_cost(figure_of, questions, drawn, cost) for cost in costs),
            _controls(figure_of, questions, replaced(methods, questions, scores)),
        ]
    return [plot for plot in made if plot is not None]


def of_runs(methods: Sequence[Method]) -> list[Plot]:
    """Performance profiles of methods that were run on the same tasks, each several times in all.

    Args:
        methods: controls, and those that looked at gold, are left out.
    """
    groups: dict[tuple[Asked, ...], list[Method]] = {}
    for method in methods:
        several = sum(map(len, method.runs.values())) > 1
        if several and method.control is None and not method.oracle:
            groups.setdefault(tuple(method.runs), []).append(method)
    with style() as figure_of:
        return [_profiles(figure_of, *group) for group in groups.items() if len(group[1]) > 1]


def _against_cost(
    figure_of: Any, questions: Asked, drawn: Sequence[Curve], cost: str
) -> Plot | None:
    """Accuracy against the cost of an answer, with the methods that none beats at less."""
    points = {
        curve.name: [p for m in curve.methods if (p := point(m, questions, cost)).cost > 0]
        for curve in drawn
    }
    every = [p for some in points.values() for p in some]
    if len(every) < 2:
        return None
    figure = figure_of(figsize=(WIDTH, 4.0))
    axes = figure.subplots()
    agents = sorted({curve.agent for curve in drawn})
    for number, agent in enumerate(agents):
        colour, marker = COLOURS[number % len(COLOURS)], _MARKERS[number % len(_MARKERS)]
        own = [points[curve.name] for curve in drawn if curve.agent == agent]
        for some in own:
            axes.plot([p.cost for p in some], [100 * p.mean for p in some], color=colour, lw=1.3)
        axes.errorbar(
            *_bars([p for some in own for p in some]),
            fmt=marker,
            color=colour,
            ms=6,
            capsize=2,
            lw=1,
            label=label(agent, _LABEL),
        )
    fair = _without_gold(drawn, points)
    front = pareto([(p.cost, p.mean) for p, _ in fair])
    axes.step(
        [cost for cost, _ in front],
        [100 * mean for _, mean in front],
        where="post",
        color=INK,
        lw=0.8,
        ls="--",
    )
    if len(drawn) <= _MOST_LABELS:
        for name, some in points.items():
            for p in some[-1:]:  # where a curve ends
                at = (p.cost, 100 * p.mean)
                axes.annotate(
                    label(name, _LABEL), at, xytext=(5, 4), textcoords="offset points", size=7.5
                )
    paid = [p.cost for p in every]
    if max(paid) > _LOG * min(paid):
        log_costs(axes)
    axes.set(xlabel=f"{COSTS[cost].title} an answer", ylabel="accuracy, %")
    axes.legend(fontsize=8, loc="best")
    caption = " ".join(_about_cost(questions, drawn, points, cost))
    return Plot(f"{cost}-{_asked(questions)}", caption, figure)


def _without_gold(
    drawn: Sequence[Curve], points: dict[str, list[Point]]
) -> list[tuple[Point, str]]:
    """Points of methods that did not look at gold, with their names."""
    return [(p, c.name) for c in drawn if not c.methods[0].oracle for p in points[c.name]]


def _asked(questions: Asked) -> str:
    """Task, split and source, as captions call them."""
    return line(", ".join(questions), _TASK)


def _told(names: Sequence[str], than: str = ", ") -> str:
    """Names with figures behind them, so many as somebody will read."""
    more = f"{than}and {len(names) - _MOST_TOLD} more" if len(names) > _MOST_TOLD else ""
    return f"{than.join(names[:_MOST_TOLD])}{more}"


def _bars(points: Sequence[Point]) -> tuple[list[float], list[float], Any]:
    """Costs, means and the lengths of intervals below and above, in per cent."""
    low = [max(0.0, 100 * (p.mean - p.low)) for p in points]
    high = [max(0.0, 100 * (p.high - p.mean)) for p in points]
    return [p.cost for p in points], [100 * p.mean for p in points], (low, high)


def _about_cost(
    questions: Asked, drawn: Sequence[Curve], points: dict[str, list[Point]], cost: str
) -> list[str]:
    """The sentences of a caption."""
    best = sorted(_without_gold(drawn, points), key=lambda each: -each[0].mean)[:3]
    told = ", ".join(f"{name} {100 * p.mean:.1f} % at {short(p.cost)}" for p, name in best)
    knobs = _told([f"{curve.name} ({curve.knob})" for curve in drawn if curve.knob])
    said = [
        f"{_asked(questions)}: accuracy against {COSTS[cost].title} an answer, with 95 % "
        "intervals, means over seeds where there are several; the dashed line joins what nothing "
        f"cheaper equals. Best without gold: {told}."
    ]
    if not knobs:
        return said
    found = {name: sorted((p.cost, p.mean) for p in own) for name, own in points.items() if own}
    read = []
    for each in equal_costs(found):
        values = {name: at_cost(own, each) for name, own in found.items()}
        known = sorted((-v, name) for name, v in values.items() if v is not None)
        read.append(f"{short(each)}: {_told([f'{name} {-100 * v:.1f}' for v, name in known])}")
    said.append(f"Lines join the values of one knob: {knobs}.")
    return [*said, *([f"Accuracy % at equal cost of {'; of '.join(read)}."] if read else [])]


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of points (cost, gain) those that no point of at most their cost equals, by cost."""
    front: list[tuple[float, float]] = []
    for cost, gain in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or gain > front[-1][1]:
            front.append((cost, gain))
    return front


def _controls(
    figure_of: Any, questions: Asked, found: Sequence[tuple[str, Difference]]
) -> Plot | None:
    """What is lost where thoughts are replaced; of very many controls, in those that lose most."""
    if not found:
        return None
    lost = sorted(found, key=lambda each: each[1].mean)[:_MOST_BARS]
    found = [each for each in found if each in lost]
    figure = figure_of(figsize=(WIDTH, 0.8 + 0.32 * len(found)))
    axes = figure.subplots()
    kinds = sorted({d.name for _, d in found})
    at = list(range(len(found)))[::-1]
    means = [100 * d.mean for _, d in found]
    ends = [100 * (d.mean - d.low) for _, d in found], [100 * (d.high - d.mean) for _, d in found]
    colours = [COLOURS[kinds.index(d.name) % len(COLOURS)] for _, d in found]
    axes.barh(at, means, color=colours, alpha=0.7, height=0.6)
    axes.errorbar(means, at, xerr=ends, fmt="none", ecolor=INK, capsize=2, lw=1)
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_yticks(
        at, [f"{label(name, _LABEL)}, {label(d.name, _LABEL)}" for name, d in found], fontsize=8
    )
    axes.set(xlabel="accuracy with the control less without, percentage points")
    told = _told(
        [f"{name} with {line(d.name, _LABEL)} {100 * d.mean:+.1f}" for name, d in found], "; "
    )
    task = _asked(questions)
    caption = (
        f"{task}: what replacing the thoughts does, paired by question, 95 % intervals. {told}."
    )
    return Plot(f"controls-{task}", caption, figure)


def _profiles(figure_of: Any, tables: Sequence[Asked], methods: Sequence[Method]) -> Plot:
    """The share of a method's runs with more than each accuracy."""
    accuracies = {
        method.name: [[r.accuracy for _, r in runs] for runs in method.runs.values()]
        for method in methods
    }
    middle = {n: interquartile_mean(np.concatenate(own)) for n, own in accuracies.items()}
    ranked = sorted(middle, key=lambda name: (-middle[name], name))
    chosen = ranked[: len(COLOURS)]
    figure = figure_of(figsize=(WIDTH, 4.0))
    axes = figure.subplots()
    for name, colour in zip(chosen, COLOURS, strict=False):
        score_TS = accuracies[name]
        bounds = sorted({0.0, 1.0, *(score for score_S in score_TS for score in score_S)})
        share, low, high = zip(*profile(score_TS, bounds), strict=True)
        at = [100 * bound for bound in bounds]
        axes.step(at, share, where="post", color=colour, lw=1.3, label=label(name, _LABEL))
        axes.fill_between(at, low, high, step="post", color=colour, alpha=0.15, lw=0)
    axes.set(xlabel="accuracy, %", ylabel="share of runs with more", xlim=(0, 100), ylim=(0, 1.02))
    axes.legend(fontsize=8, loc="best")
    what = _asked(tables[0]) if len(tables) == 1 else f"{len(tables)} tasks"
    told = _told([f"{name} {100 * middle[name]:.1f} %" for name in ranked])
    several = any(len(score_S) > 1 for own in accuracies.values() for score_S in own)
    caption = (
        f"{what}: performance profiles, the share of the runs of a method, one for each task and "
        "seed, with more than an accuracy"
        f"{'; bands are 95 % of a bootstrap within tasks' if several else ''}. "
        f"{f'Drawn are {len(chosen)} of {len(ranked)}. ' if len(chosen) < len(ranked) else ''}"
        f"Interquartile means: {told}."
    )
    return Plot(f"profile-{what}", caption, figure)
