"""Pure problem code: instances, answers and soft traces as numpy arrays, without any model.

``mnns`` is the minimum-non-negative-sum task, ``graphs`` the reachability tasks ProsQA and
ProntoQA. Both give, for every reasoning step, a distribution over states: the targets of
continuous chain-of-thought supervision (CoT2, arXiv 2505.23648).
"""

from __future__ import annotations

from latentgym.envs.problems import graphs, mnns

__all__ = ["graphs", "mnns"]
