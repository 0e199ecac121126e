"""The commands of the page are those that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from latentgym.openrlhf.prompts import main

PAGE = (Path(__file__).parents[3] / "docs" / "vllm.md").read_text("utf-8")


def command(of: str) -> list[str]:
    """The words behind `python -m <of>`."""
    (block,) = re.findall(rf"```\npython -m {re.escape(of)} (.*?)```", PAGE, re.DOTALL)
    block = re.sub(r"\$\(.*?\)(?=/)", "latentgym/openrlhf", block.replace("\\\n", " "))
    return shlex.split(block)


def test_the_prompts_command_writes_its_file(folder: str, tmp_path: Path) -> None:
    out = tmp_path / "prompts.jsonl"
    places = {"MODEL": folder, "prompts.jsonl": str(out)}
    words = [places.get(word, word) for word in command("latentgym.openrlhf.prompts")]
    assert main([*words, "--limit", "3"]) == 0
    assert len(out.read_text("utf-8").splitlines()) == 3


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")
def test_openrlhf_knows_every_option_of_the_training_command() -> None:
    pytest.importorskip("openrlhf", reason="needs OpenRLHF")
    from latentgym.openrlhf.arguments import _parsed

    args = _parsed(command("openrlhf.cli.train_ppo_ray"))
    assert Path(args.train.agent_func_path).is_file()
    assert args.reward.remote_url == ["agent"]
    assert (args.data.input_key, args.data.label_key) == ("input", "label")
    assert args.vllm.num_engines == 4 and args.rollout.n_samples_per_prompt == 8
