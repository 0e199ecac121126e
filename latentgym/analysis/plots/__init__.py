"""Pictures of analyses (extra `plots`), the same bytes for the same report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from latentgym.analysis.plots import depth, latents
from latentgym.analysis.plots.base import Report
from latentgym.system.pictures import file_of

# Each with the parts of a report that it shows, of which one is enough.
_DRAWN: Mapping[str, tuple[str, Callable[[Report], Any]]] = {
    "contributions": ("contributions", depth.contributions),
    "lens": ("lens", depth.lens),
    "skips": ("skips future local", depth.skips),
    "parts": ("skips", depth.parts),
    "outputs": ("skips future thoughts", depth.outputs),
    "difficulty": ("skips", depth.difficulty),
    "gradients": ("gradients", depth.gradients),
    "erasure": ("erasure", depth.erasure),
    "outliers": ("outliers", latents.outliers),
    "causal-map": ("latents", latents.causal_map),
}
CAPTIONS = {name: " ".join((draw.__doc__ or "").split()) for name, (_, draw) in _DRAWN.items()}


def draw(report: Report, *kinds: str) -> dict[str, dict[str, bytes]]:
    """All pictures of a report as files of some kinds (`svg`, `png`), by name and kind.

    Raises:
        UsageError: matplotlib is missing.
    """
    made = {
        name: draw(report)
        for name, (parts, draw) in _DRAWN.items()
        if any(part in report for part in parts.split())
    }
    return {
        name: {kind: file_of(figure, name, kind) for kind in kinds}
        for name, figure in made.items()
        if figure is not None
    }
