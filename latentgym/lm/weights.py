"""Are the weights that transformers has loaded those of the model, all of them?

Where a tensor is missing transformers starts it at random, with a line in its log; it takes
integers for the numbers that they stood for, and what is no number for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open


def fault_of(model: Any, report: Mapping[str, Any], folder: Path) -> str | None:
    """What is wrong with the weights of a model, None if nothing is.

    Args:
        model: as `from_pretrained` has loaded it, mismatched sizes ignored.
        report: its `output_loading_info`. Tied weights do not count as missing.
        folder: where the weights are; a hub's files are not looked into.
    """
    missing = sorted(report["missing_keys"])
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        return f"{missing[0]} is missing{more}"
    for name, found, wanted in sorted(report["mismatched_keys"]):
        return f"{name} is {tuple(found)}, not {tuple(wanted)}"
    numbers = {k: v for k, v in model.state_dict().items() if v.is_floating_point()}
    if getattr(model.config, "quantization_config", None) is None:
        for name, kind in _kinds(folder).items():
            if name in numbers and not kind.startswith(("F", "BF")):
                return f"{name} is {kind}, no floating-point number"
    for name, tensor in numbers.items():
        if not bool(tensor.isfinite().all()):
            return f"{name} has numbers that are not finite"
    return None


def _kinds(folder: Path) -> dict[str, str]:
    """The kinds of number in a folder's files by tensor: F32, BF16, I8, ..."""
    kinds: dict[str, str] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            kinds |= {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    return kinds
