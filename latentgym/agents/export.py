"""A trained policy as a folder that transformers and vLLM load.

Weights, tokenizer with its chat template and generation settings are as `save_pretrained` writes
them; what a method adds to the model stands beside: the heads' parameters in `heads.safetensors`,
what was trained and how in `latentgym.json`, and a card for readers and the hub in `README.md`.
Programs of others take the model and leave the rest alone: they think in tokens.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentgym.agents.base import agent_class, config_dict
from latentgym.agents.run import Run
from latentgym.errors import UsageError
from latentgym.evaluation.results import RESULT, Result, load_result
from latentgym.rollout import Policy
from latentgym.storage import atomic_write, to_json, writable
from latentgym.text.tokenizers import HFTokenizer
from latentgym.training.manifest import run_of

HEADS, ABOUT, CARD = "heads.safetensors", "latentgym.json", "README.md"
_TOKEN = "HF_TOKEN"


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        folder: where.
        tokenizer: whether it has one; tiny models speak a task's symbols, which no other knows.
        merged: whether adapters are part of the weights, or stand apart for peft.
    """

    folder: Path
    tokenizer: bool
    merged: bool


def export_model(run: Run, out: Path, *, source: Path, merge: bool = True) -> Exported:
    """Write the policy of a run for other programs.

    Args:
        run: that trained it; see `stored_run`.
        out: a folder that is not there, or empty.
        source: folder of the run, whose result the card tells.
        merge: make adapters part of the weights; else they are written alone, for peft.

    Raises:
        UsageError: the folder holds something, adapters are to be apart where there are none, the
            model is of a class that transformers lacks, or there is no room.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already; choose another --out, or delete it.")
    if not merge and run.lora is None:
        raise UsageError(f"{source} has no adapters to write apart; leave --no-merge out.")
    policy = run.actor()
    model = _model(policy, merge)
    tokenizer = policy.lm.tokenizer
    with writable(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    with writable(out), atomic_write(out) as work:
        work.mkdir()
        with _undisturbed():
            model.save_pretrained(work)
        if isinstance(tokenizer, HFTokenizer):
            tokenizer.hf.save_pretrained(work)
        _save_heads(policy, work / HEADS)
        (work / ABOUT).write_text(to_json(_about(run), indent=2) + "\n")
        (work / CARD).write_text(card(run, _result(source)), encoding="utf-8")
    return Exported(out, isinstance(tokenizer, HFTokenizer), merge)


def push(folder: Path, repo: str) -> str:
    """Upload an exported folder to the hub; its address there.

    Raises:
        UsageError: there is no token, or the hub does not take it.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if get_token() is None:
        raise UsageError(f"--push needs a token of the hub; set {_TOKEN}, or run hf auth login.")
    api = HfApi()
    try:
        api.create_repo(repo, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise UsageError(
            f"the hub did not take {repo} ({str(error).splitlines()[0]}); {folder} is whole: try "
            "again."
        ) from error
    return f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co')}/{repo}"


_CARD_TEXT = """---
library_name: transformers
{base}tags: [latent-reasoning, latentgym]
---

# {agent} on {env}

Trained with latentgym from {model}.

**Method.** {method}

**Data.** Trained on {env}, split {trained_on}{data}.
{result}
`{heads}` and `{about}` hold what the method adds to the model. transformers and vLLM read the
model alone and decode tokens; `latentgym.load` thinks as it was trained to, from the run's folder.
"""
_RESULT_TEXT = """
**Result.** {accuracy} of {n} questions (95 % interval): {source}, split {split}, hash {hash}.

```
{command}
```
"""


def card(run: Run, result: Result | None) -> str:
    """The model card: base model, data, method, result and command, in the hub's format."""
    module = sys.modules[agent_class(run.agent).__module__]
    trained = run_of(run.checkpoint).get("env_options", {})
    own = trained.get("data") or trained.get("source")
    told = ""
    if result is not None:
        low, high = result.accuracy_ci95
        told = _RESULT_TEXT.format(
            source=_code(result.source),
            split=_code(result.split),
            hash=_code(result.dataset_hash),
            accuracy=f"{100 * result.accuracy:.1f} % [{100 * low:.1f}, {100 * high:.1f}]",
            n=result.n,
            command=(result.command or "latentgym eval").replace("`", ""),
        )
    return _CARD_TEXT.format(
        # A tiny model was never anywhere.
        base="" if run.model.startswith("tiny") else f"base_model: {json.dumps(run.model)}\n",
        agent=run.agent_name,
        env=run.env_id,
        model=_code(run.model),
        trained_on=_code(trained.get("split", "train")),
        data=f" of {_code(str(own))}" if own else "",
        method=" ".join(" ".join((module.__doc__ or "").split("\n\n")[:2]).split()),
        result=told,
        heads=HEADS,
        about=ABOUT,
    )


def _code(text: str) -> str:
    """A name as it stands, whatever is in it."""
    return f"`{' '.join(text.replace('`', '').split())}`"


def _result(source: Path) -> Result | None:
    return load_result(source) if (source / RESULT).is_file() else None


def _model(policy: Policy, merge: bool) -> Any:
    model: Any = policy.lm.model
    if hasattr(model, "merge_and_unload") and merge:
        model = model.merge_and_unload()
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not type(base).__module__.startswith("transformers."):
        raise UsageError(
            f"{type(base).__name__} is a class of {type(base).__module__}, which other programs do "
            "not have; export a run whose model is one of transformers'."
        )
    base.config._attn_implementation = "sdpa"  # ours is no implementation that others know
    return model


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Without the warnings of DeepSpeed, which transformers imports if it is installed.

    They go to stdout, and say that there is no GPU.
    """
    log = logging.getLogger("DeepSpeed")
    log.addFilter(_is_error)
    try:
        yield
    finally:
        log.removeFilter(_is_error)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def _save_heads(policy: Policy, path: Path) -> None:
    from safetensors.torch import save_file

    heads = {"head": policy.head, "answer_head": policy.answer_head}
    tensors = {
        f"{name}.{key}": value.detach().cpu().contiguous().clone()
        for name, head in heads.items()
        for key, value in head.state_dict().items()
    }
    save_file(tensors, path)


def _about(run: Run) -> Mapping[str, Any]:
    return {
        "agent": run.agent_name,
        "config": config_dict(run.config),
        "env": run.env_id,
        "env_options": dict(run.env_options),
        "model": run.model_name,
    }
