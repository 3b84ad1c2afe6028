"""Train student and agent in turns (MTKD-RL, Algorithms 1 and 2)."""

from __future__ import annotations

from mmkd_rl.engine.hooks.learner_hook import LearnerHook
from mmkd_rl.registry import HOOKS
from mmkd_rl.weighting.mtkd_rl.learner import AgentLearner


@HOOKS.register_module()
class AgentAlternationHook(LearnerHook):
    """Trains MTKD-RL's agent and keeps it in the run's checkpoints.

    While the student is trained the agent is frozen and each batch goes to
    the history; when an interval is over, the agent is trained on the
    history, which is then emptied. Until the agent's first update weights are
    equal (Algorithm 1).

    Args:
        warmup: Length of the phase with equal weights (Algorithm 1: 1 epoch).
        interval: Length of the student's training between two updates of the
            agent (Algorithm 2: 1 epoch; published code: 1,000 iterations).
        by_epoch: Whether these count epochs or the student's iterations.
    """

    learner = AgentLearner
    has = 'agent'
    strategy = 'MTKDRL'
