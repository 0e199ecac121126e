"""A job in OpenRLHF's own arguments, parsed and checked by its own command line."""

from __future__ import annotations

import contextlib
import runpy
import sys
from typing import Any

from latentgym.openrlhf.job import Job
from latentgym.openrlhf.shim import install, rebound
from latentgym.training.grpo_config import DUAL

install()

_NO_LIMIT = 1 << 30  # environments have budgets of their own
_LOSSES: dict[str, dict[str, Any]] = {
    "clip": {},
    "dual_clip": {"--actor.dual_clip": DUAL},
    "gspo": {"--actor.policy_loss_type": "gspo"},
}


def arguments(job: Job) -> Any:
    """OpenRLHF's namespace of arguments for a job."""
    c, o, cluster = job.grpo, job.optimisation, job.cluster
    rows, micro = c.rows, job.micro_batch
    flags: dict[str, Any] = {
        # The policy comes from the job, not from a path; the path only must not be empty.
        "--actor.model_name_or_path": "latentgym",
        "--actor.num_nodes": cluster.nodes,
        "--actor.num_gpus_per_node": cluster.gpus,
        "--ref.num_nodes": cluster.nodes,
        "--ref.num_gpus_per_node": cluster.gpus,
        "--vllm.num_engines": 0,
        "--vllm.sync_backend": "gloo",
        "--reward.remote_url": "env",
        "--algo.advantage.estimator": "dr_grpo",  # any without a critic: see `trainer`
        "--algo.kl.init_coef": c.kl,
        "--algo.kl.use_loss": True,
        "--algo.kl.estimator": c.kl_estimator,
        "--actor.eps_clip_low_high": (c.clip_low, c.clip_high),
        **_LOSSES[c.loss],
        "--actor.loss_agg_mode": "token-mean" if c.mean == "token" else "seq-mean-token-mean",
        "--actor.entropy_coef": c.entropy,  # with 0 it is logged
        "--actor.adam.lr": o.lr,
        "--actor.adam.betas": (o.beta1, o.beta2),
        "--actor.adam.eps": o.eps,
        "--actor.adam.weight_decay": o.weight_decay,
        "--actor.max_norm": o.max_grad_norm,
        "--actor.gradient_checkpointing_enable": cluster.gradient_checkpointing,
        "--train.seed": job.run.seed,
        "--train.max_epochs": c.updates,
        "--train.batch_size": rows // c.mini_batches,
        "--train.micro_batch_size": micro,
        "--train.colocate_actor_ref": cluster.colocate and c.kl > 0,
        "--rollout.batch_size": c.prompts,
        "--rollout.n_samples_per_prompt": c.group_size,
        "--rollout.micro_batch_size": micro,
        "--rollout.max_new_tokens": _NO_LIMIT,
        "--data.max_len": _NO_LIMIT,
        "--eval.steps": job.eval_every or -1,
        "--eval.n_samples_per_prompt": 1,
        "--eval.temperature": 0.0,
        "--ds.zero_stage": cluster.zero,
        "--ckpt.path": job.out / "deepspeed",
        "--ckpt.output_dir": job.out / "checkpoints",
        "--ckpt.save_steps": job.save_every or -1,
        "--ckpt.max_num": 2,
        "--ckpt.best_metric_key": "none",
        "--ckpt.load_enable": job.resume,
        "--logger.tensorboard_dir": job.out,
        "--logger.wandb.run_name": "tensorboard",
    }
    args = _parsed(list(_words(flags)))
    # The policy casts by itself. DeepSpeed's bf16 would round its initial weights and its head's.
    args.ds.param_dtype = "fp32"
    return args


def _words(flags: dict[str, Any]) -> Any:
    for name, value in flags.items():
        if value is False:
            continue
        yield name
        if isinstance(value, tuple):
            yield from map(str, value)
        elif value is not True:
            yield str(value)


class _Reached(BaseException):
    """Carries the arguments out of OpenRLHF's main module."""


def _parsed(words: list[str]) -> Any:
    """What OpenRLHF's command line makes of these words.

    Its parser and checks stand under `if __name__ == "__main__"`, so the module is run as main, and
    left where `train` asks for a strategy.
    """
    import openrlhf.utils
    import ray

    def reached(args: Any) -> None:
        raise _Reached(args)

    with (
        rebound(openrlhf.utils, get_strategy=reached),
        rebound(ray, is_initialized=lambda: True),
        rebound(sys, argv=["train_ppo_ray", *words]),
        contextlib.redirect_stdout(sys.stderr),
    ):
        try:
            runpy.run_module("openrlhf.cli.train_ppo_ray", run_name="__main__")
        except _Reached as carried:
            return carried.args[0]
    raise RuntimeError("OpenRLHF's command line ended before it asked for a strategy")
