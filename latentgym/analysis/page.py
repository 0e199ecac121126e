"""A report for people: a page with tables, pictures and definitions.

The page is one file without scripts that asks no network; what comes from models or files is
escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from latentgym.analysis import plots
from latentgym.analysis.tables import Summary, tables
from latentgym.storage import atomic_write, to_json, writable

Drawn = Mapping[str, Mapping[str, bytes]]
REPORT, PAGE = "analysis.json", "analysis.html"
_STYLE = """
:root { color-scheme: light dark; --line: #8884; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { white-space: nowrap; }
th, td { padding: .15rem .7rem; text-align: right; border-bottom: 1px solid var(--line); }
caption { text-align: left; }
th.text, td.text { text-align: left; }
figure { margin: 1.5rem 0; }
figure svg { width: 100%; height: auto; border-radius: 6px; }
dt { font-weight: 600; } dd { margin: 0 0 .6rem 1rem; }
"""


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
    looks = [' class="text"' if n in table.texts else "" for n in range(len(table.columns))]
    head = "".join(
        f'<th scope="col"{look}>{escape(name)}</th>'
        for name, look in zip(table.columns, looks, strict=True)
    )
    rows = "".join(
        "<tr>"
        + "".join(f"<td{look}>{escape(cell)}</td>" for cell, look in zip(row, looks, strict=True))
        + "</tr>\n"
        for row in table.rows
    )
    return (
        f"<table>\n<caption>{escape(table.title)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{rows}</tbody>\n</table>"
    )
