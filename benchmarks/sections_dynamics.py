"""What docs/dynamics.md shows of the records: controllers over frozen models, and speed."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.sections import RECORDS, table
from latentgym.evaluation.stats import mean_interval, wilson

NAMES = {
    "own token": "the model by itself, greedy",
    "sampled": "the model by itself, sampled",
    "own mixture": "its own mixtures (Soft Thinking)",
    "own latent": "zeros in the place of thoughts",
    "PPO, token": "PPO chooses tokens",
    "PPO, mixture": "PPO mixes tokens",
    "PPO, latent": "PPO makes vectors",
}
CURVES = {
    "curve, token": "PPO chooses tokens",
    "curve, mixture": "PPO mixes tokens",
    "curve, latent": "PPO makes vectors",
}
_NONE = "Not recorded yet."


def record() -> dict[str, Any]:
    """The record, empty where there is none."""
    path = RECORDS / "dynamics.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _figures(values: list[float], digits: int = 1) -> str:
    mean, low, high = (100 * x for x in mean_interval(values))
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _of(found: dict[str, Any], name: str) -> str:
    """A share of the questions, with its interval."""
    n = found["questions"]
    low, high = (100 * bound for bound in wilson(round(found[name] * n), n))
    return f"{100 * found[name]:.1f} % [{low:.1f}, {high:.1f}]"


def controllers() -> str:
    """Accuracy of each way to decode, and paired differences to greedy decoding."""
    data = record()
    if "mnns" not in data:
        return _NONE
    runs, settings = data["mnns"]["runs"], data["mnns"]["settings"]
    greedy = runs["own token"]
    rows = []
    for name, label in NAMES.items():
        gains = [own - base for own, base in zip(runs[name], greedy, strict=True)]
        rows.append([label, _figures(runs[name]), "" if name == "own token" else _figures(gains)])
    lines = [
        f"MNNS, {data['mnns']['questions']:,} test questions, mean of {len(greedy)} seeds [95 %]; "
        f"{settings['total_steps']:,} environment steps for each controller.",
        "",
        table(["", "accuracy, %", "against greedy, points"], rows),
    ]
    if "smollm2" in data:
        found = data["smollm2"]
        o = found["settings"]
        first, last = found["curve"][0][1], found["curve"][-1][1]
        lines += [
            "",
            f"SmolLM2-135M on sums of two digits, one run of {o['total_steps']:,} steps in "
            f"{found['seconds'] / 60:.0f} minutes: {100 * first:.1f} % of the answers right in "
            f"training at first and {100 * last:.1f} % at the end; on {found['questions']} test "
            f"questions {_of(found, 'greedy')} by greedy tokens, {_of(found, 'own')} with its own "
            f"mixtures and {_of(found, 'PPO')} with the controller.",
        ]
    return "\n".join(lines)


def speed() -> str:
    """Environment steps a second, and ratios."""
    path = RECORDS / "bench_dynamics.json"
    if not path.exists():
        return _NONE
    (report,) = json.loads(path.read_text())
    each, ratios = report["steps_per_second"], report["ratios"]
    rows = []
    for n in report["settings"]["rows"]:
        row = [str(n)]
        row += [
            f"{each[key]:.1f}" if (key := f"{who}, {n} rows") in each else ""
            for who in ("environment", "engine", "copies")
        ]
        row += [
            f"{ratios[key]:.2f}" if (key := f"environment / {who}, {n} rows") in ratios else ""
            for who in ("engine", "copies")
        ]
        rows.append(row)
    header = ["rows", "environment", "engine", "n copies", "/ engine", "/ copies"]
    about = (
        f"{report['model']}, {report['settings']['think']} thoughts and an answer token, "
        f"{report['threads']} thread(s), steps of all rows a second, prompts included."
    )
    return "\n".join([about, "", table(header, rows)])


SECTIONS = {"dynamics": controllers, "dynamics-speed": speed}
