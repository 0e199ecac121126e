"""A report for people: tables for the terminal, and a page with pictures and definitions.

The page is one file without scripts that asks no network; what comes from models or files is
escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from latentgym.analysis import plots
from latentgym.analysis.pooling import ALL
from latentgym.storage import atomic_write, to_json, writable

Drawn = Mapping[str, Mapping[str, bytes]]
_BY_LAYER = "by layer, means over positions; skip: L2 change of the output distribution"
_DECODED = 3  # sequences whose thoughts are shown in tokens
REPORT, PAGE = "analysis.json", "analysis.html"
_STYLE = """
:root { color-scheme: light dark; --line: #8884; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { padding: .15rem .7rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1.5rem 0; background: #fff; border-radius: 6px; padding: .5rem; }
figure svg { width: 100%; height: auto; }
dt { font-weight: 600; } dd { margin: 0 0 .6rem 1rem; }
"""


class Summary(NamedTuple):
    """A table of few numbers.

    Attributes:
        title: of it.
        columns: names of its columns.
        rows: cells as text.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]


def tables(report: Mapping[str, Any]) -> list[Summary]:
    """What a report says in few numbers: by layer, and of the whole."""
    made = (
        _by_layer(report),
        _whole(report),
        _outliers(report),
        *_causal_maps(report),
        _decoded(report),
    )
    return [table for table in made if table.rows]


def _by_layer(report: Mapping[str, Any]) -> Summary:
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


def _whole(report: Mapping[str, Any]) -> Summary:
    rows = [
        [name.replace("_", " "), _number(at["l"]), _number(at["depth"])]
        for name, at in report.get("scalars", {}).items()
    ]
    return Summary("first or last layers at which something holds", ["", "l", "(l + 1) / L"], rows)


def _outliers(report: Mapping[str, Any]) -> Summary:
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


def _causal_maps(report: Mapping[str, Any]) -> Iterator[Summary]:
    """Change of the answer's probability where a step is replaced."""
    for effect in ("direct", "total"):
        if found := report.get("latents", {}).get(effect):
            steps = [str(cell["step"]) for cell in next(iter(found["map"].values()))]
            rows = [
                [name, *(_effect(cell["probability"]) for cell in cells)]
                for name, cells in found["map"].items()
            ]
            title = (
                f"change of the given answer's probability by replaced step, {effect} effect "
                f"({found['questions']} questions; * where the 95 % interval leaves out 0)"
            )
            yield Summary(title, ["replaced by", *steps], rows)


def _decoded(report: Mapping[str, Any]) -> Summary:
    """The thoughts of the first sequences in tokens: what each is near to, and what it leads to."""
    rows = []
    for row in report.get("latents", {}).get("decoded", []):
        if row["row"] < _DECODED:
            last = max(row["lens"], key=int)
            near, then = row["nearest"], row["lens"][last]
            cells = [_tokens(near, "cosine"), _tokens(then, "probability")]
            rows.append([f"{row['row']}:{row['step']}", row["kind"], *cells])
    columns = ["thought", "kind", "nearest (cosine)", "next (probability)"]
    return Summary("thoughts in tokens, by question and step", columns, rows)


def _tokens(told: list[Mapping[str, Any]], name: str) -> str:
    """The first three tokens with their numbers."""
    return ", ".join(f"{each['text'] or each['id']} {each[name]:.2f}" for each in told[:3])


def _effect(told: Mapping[str, float | None]) -> str:
    """A mean with three decimals, and a star where its interval leaves out 0."""
    mean, low, high = (told[name] for name in ("mean", "low", "high"))
    if mean is None:
        return "-"
    sure = low is not None and high is not None and (low > 0 or high < 0)
    return f"{mean:.3f}{'*' if sure else ' '}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3g}"


def write_report(report: Mapping[str, Any], folder: Path) -> None:
    """Write `analysis.json`, the pictures and `analysis.html`.

    Raises:
        UsageError: the folder cannot be written, or matplotlib is missing.
    """
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        drawn = plots.draw(report, "svg", "png")
        for name, files in drawn.items():
            for kind, content in files.items():
                with atomic_write(folder / f"{name}.{kind}") as path:
                    path.write_bytes(content)
        with atomic_write(folder / PAGE) as path:
            path.write_text(page(report, drawn), encoding="utf-8")
        # Last: where it is, the rest is too.
        with atomic_write(folder / REPORT) as path:
            path.write_text(to_json(dict(report), indent=1) + "\n", encoding="utf-8")


def page(report: Mapping[str, Any], drawn: Drawn) -> str:
    """A whole page, HTML, with the pictures that `plots.draw` has made of the report."""
    title = f"{report['model']} on {report['env']}: {report['analysis']}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{section(report, drawn)}</body>\n</html>\n"
    )


def section(report: Mapping[str, Any], drawn: Drawn) -> str:
    """What a report says, as part of a page: tables, pictures, definitions."""
    return "\n".join(_parts(report, drawn)) + "\n"


def _parts(report: Mapping[str, Any], drawn: Drawn) -> Iterator[str]:
    kinds = ", ".join(f"{n} {kind}" for kind, n in report["positions"].items())
    source = "the task's own solutions" if report["demonstrations"] else report["agent"]
    yield (
        f"<p>{report['sequences']} sequences of {escape(str(source))}; {report['blocks']} layers; "
        f"positions: {escape(kinds)}.</p>"
    )
    for name, files in drawn.items():
        caption, svg = escape(plots.CAPTIONS[name]), files["svg"].decode()
        svg = svg[svg.index("<svg") :]
        labelled = svg.replace("<svg ", f'<svg role="img" aria-label="{caption}" ', 1)
        yield f"<figure>{labelled}<figcaption>{caption}</figcaption></figure>"
    for table in tables(report):
        yield _table(table)
    yield "<details>\n<summary>Definitions</summary>\n<dl>"
    for measure, told in report["definitions"].items():
        for name, text in (told if isinstance(told, Mapping) else {"": told}).items():
            yield f"<dt>{escape(f'{measure} {name}'.strip())}</dt><dd>{escape(text)}</dd>"
    yield "</dl>\n</details>"


def _table(table: Summary) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n"
        for row in table.rows
    )
    return (
        f"<table>\n<caption>{escape(table.title)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{rows}</tbody>\n</table>"
    )
