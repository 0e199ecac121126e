"""An environment with a model inside is an environment: what all of them fulfil."""

from __future__ import annotations

import pytest

from latentgym.testing import EnvConformance

_SHORT = {"think": 4, "answer": 3, "source": "sample", "dynamics": "tiny:gpt2:1x2x16"}
_MADE = {
    "mixture": ("GSM8K-continuous", {"force_answer": True}),
    "latent": ("GSM8K-continuous", {"rank": 3, "force_answer": True}),
    "gate": ("GSM8K-hybrid", {"answered_by": "agent", "observe": ["hidden", "task"]}),
    "token": ("GSM8K-token", {"answered_by": "agent", "k": 40}),
    "native": ("GSM8K-hybrid", {"answered_by": "agent", "shaping": 0.5, "force_answer": True}),
}

for _name, (_id, _options) in _MADE.items():
    _class = f"Test_{_name}"
    globals()[_class] = type(
        _class,
        (EnvConformance,),
        {
            "env_id": f"latent/{_id}",
            "options": {**_SHORT, "interface": _name, **_options},
            "processes": _name == "mixture",
            "segments": False,
            "atol": 1e-4,
            "pytestmark": [
                pytest.mark.filterwarnings("ignore:.*observation space.*"),
                *([pytest.mark.thorough] if _name not in ("mixture", "gate") else []),
            ],
        },
    )
