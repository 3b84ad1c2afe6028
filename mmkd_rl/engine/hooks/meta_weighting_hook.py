"""Train MMKD's weight networks beside the student (Zhang et al. 2023)."""

from __future__ import annotations

from mmkd_rl.engine.hooks.learner_hook import LearnerHook
from mmkd_rl.options import Count
from mmkd_rl.registry import HOOKS
from mmkd_rl.weighting.mmkd.learner import MetaLearner


@HOOKS.register_module()
class MetaWeightingHook(LearnerHook):
    """Trains MMKD's networks and keeps them in the run's checkpoints.

    Each batch's hard samples go to a buffer. Every few iterations, after the
    student's update, the networks are trained through some steps that a copy
    of the student takes on samples of the buffer. After an epoch all buffers
    are emptied.

    Args:
        interval: Student's iterations between two meta steps.
    """

    learner = MetaLearner
    has = 'meta step'
    strategy = 'MMKD'
    first = 'interval'

    def __init__(self, interval: Count = 5) -> None:
        super().__init__(interval, interval, by_epoch=False)
