"""Train MMKD's weight networks beside the student (Zhang et al. 2023)."""

from __future__ import annotations

from mmkd_rl.engine.hooks.learner_hook import LearnerHook
from mmkd_rl.options import Count
from mmkd_rl.registry import HOOKS
from mmkd_rl.weighting.mmkd.learner import MetaLearner


@HOOKS.register_module()
class MetaWeightingHook(LearnerHook):
    """Trains MMKD's networks and keeps them in the run's checkpoints.

    Each batch's hard samples go to a buffer. Every ``interval`` iterations,
    after the student's update, the networks are trained by differentiating
    through some steps of a copy of the student on samples of the buffer. The
    buffer is emptied after each epoch.

    Args:
        interval: Iterations of the student between two meta steps.
    """

    learner = MetaLearner
    has = 'meta step'
    strategy = 'MMKD'
    first = 'interval'

    def __init__(self, interval: Count = 5) -> None:
        super().__init__(interval, interval, by_epoch=False)
