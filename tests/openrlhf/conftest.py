"""Jobs over MNNS with a tiny model, and one Ray cluster for all that train."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from latentgym.agents.base import agent_class
from latentgym.agents.run import Run
from latentgym.openrlhf.job import ClusterOptions, Job
from latentgym.training import Trainer

MakeJob = Callable[..., Job]
PRESETS = {
    "cot": ("grpo-tiny", "latent/MNNS-token"),
    "mts-grpo": ("grpo", "latent/MNNS-continuous"),
    "coconut": ("grpo-tiny", "latent/MNNS-hybrid"),
    "hrpo": ("tiny", "latent/MNNS-hybrid"),
    "colar-grpo": ("grpo-tiny", "latent/MNNS-hybrid"),
    "multiplex": ("tiny", "latent/MNNS-continuous"),
    "soft-grpo": ("tiny", "latent/MNNS-continuous"),
    "tarpo": ("tiny", "latent/MNNS-hybrid"),
    "ctrls": ("grpo-tiny", "latent/GSM8KAug-hybrid"),
}


# A small encyclopedia, which a model learns in seconds to search with success once in a while.
SEARCHES = {
    "source": "generated",
    "search": "action",
    "passages": 1,
    "turns": 1,
    "hops": 1,
    "people": 60,
    "books": 12,
    "towns": 12,
    "companies": 12,
    "countries": 4,
    "lakes": 4,
    "parts": 8,
}

# Without biases: those of keys have no gradient but rounding, which differs between backends.
SEARCHER = "tiny:llama:2x2x32"


@pytest.fixture(scope="session")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a model that searches."""
    out = tmp_path_factory.mktemp("searcher")
    config = replace(agent_class("cot").presets["sft-tiny"], batch_size=32)
    return begun(Run("cot", config, "latent/NQ-token", SEARCHER, SEARCHES), 300, out)


def begun(run: Run, steps: int, out: Path) -> Path:
    """A checkpoint of a run that learns from demonstrations."""
    recipe = run.make_agent().recipe()
    stage = recipe.stage.build(run.learner(), run.make_env, 0)
    Trainer(stage, recipe.optimisation, steps, out=out, save_every=0).run()
    return out


@pytest.fixture
def make_job(tmp_path: Path, request: pytest.FixtureRequest) -> MakeJob:
    """A job of few rows; rewards are such that an untrained model earns some.

    With `searches` the model searches an encyclopedia, and has learnt to a little; of `ctrls` the
    states are fitted, as they must be.
    """

    def make(
        agent: str = "mts-grpo",
        *,
        steps: int = 2,
        config: dict[str, Any] | None = None,
        grpo: dict[str, Any] | None = None,
        run: dict[str, Any] | None = None,
        optimisation: dict[str, Any] | None = None,
        searches: bool = False,
        **cluster: Any,
    ) -> Job:
        preset, env = PRESETS[agent]
        settings = replace(agent_class(agent).presets[preset], **(config or {}))
        small = {"prompts": 8, "group_size": 4, "micro_batch": 8, **(grpo or {})}
        settings = replace(
            settings,
            grpo=replace(settings.grpo, **small),
            optimisation=replace(settings.optimisation, **(optimisation or {})),
        )
        options = {"model": "tiny:gpt2:2x2x32", **(run or {})}
        if searches:
            env = env.replace("MNNS", "NQ")
            options["checkpoint"] = request.getfixturevalue("searcher")
            options |= {"model": SEARCHER, "env_options": SEARCHES}
        described = Run(agent=agent, config=settings, env=env, **options)
        if agent == "ctrls":
            fitted = begun(
                replace(described, config=replace(settings, stage="elbo", batch_size=4)),
                steps=1,
                out=tmp_path / "fitted",
            )
            described = replace(described, checkpoint=fitted)
        recipe = described.make_agent().recipe()
        return Job(
            run=described,
            grpo=recipe.stage,
            optimisation=recipe.optimisation,
            steps=steps,
            out=tmp_path / "run",
            cluster=ClusterOptions(**{"gpus": 2, **cluster}),
            identity=described.identity(),
        )

    return make


@pytest.fixture(scope="module")
def workers() -> Iterator[Any]:
    """Two policy and two reference workers on a real Ray cluster of this machine."""
    pytest.importorskip("openrlhf", reason="needs OpenRLHF (see the README)")
    from latentgym.cluster.connection import connected
    from latentgym.openrlhf.launch import Workers
    from latentgym.openrlhf.shim import install

    install()
    with pytest.MonkeyPatch.context() as patch:
        here = str(Path(__file__).with_name("own"))  # the workers import rewards, as this process
        patch.syspath_prepend(here)
        patch.setenv("PYTHONPATH", here, prepend=os.pathsep)
        with connected(4, option="", afterwards="Go on.", object_store_mb=100):
            yield Workers.start(ClusterOptions(gpus=2), reference=True)
