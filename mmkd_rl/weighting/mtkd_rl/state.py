r"""The agent's state (MTKD-RL, Eq. 5).

.. math:: s_m = [f_m \| z_m \| CE(z_m, y) \| cos(r_m(f_S), f_m) \| D_m]

per sample and teacher, concatenated over the teachers: [B, S]. All detached:
the agent must not train the student. Parts can be left out (Table 6b).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from mmkd_rl.options import ConfigError
from mmkd_rl.records import DistillationBatch, OutputSpec
from mmkd_rl.tasks import Task

#: Parts of the state, in Eq. 5's order.
StatePart = Literal['feature', 'logit', 'ce', 'similarity', 'divergence']
STATE_PARTS = get_args(StatePart)


class StateBuilder:
    """Concatenate the parts of the state.

    Args:
        teachers: Sizes of the teachers' outputs.
        task: Brings features and logits to a fixed size.
        parts: Some of :data:`STATE_PARTS`; ``None``: all that exist.
        has_logit: Whether logits are distilled (D_m exists).
        has_feature: Whether features are distilled (the cosine exists).

    Raises:
        ConfigError: There is no part, or a part does not exist because its
            kind of distillation is off.
    """

    def __init__(self,
                 teachers: Sequence[OutputSpec],
                 task: Task,
                 parts: Sequence[StatePart] | None = None,
                 has_logit: bool = True,
                 has_feature: bool = True) -> None:
        self.task = task
        judged = task.judge is not None
        absent = {
            name: why
            for name, exists, why in (
                ('divergence', has_logit, 'logit_loss=None'),
                ('similarity', has_feature, 'feature_loss=None'),
                ('logit', judged, f'task={type(task).__name__}'),
                ('ce', judged, f'task={type(task).__name__}'))
            if not exists
        }
        if parts is None:
            parts = [p for p in STATE_PARTS if p not in absent]
        if not parts:
            raise ConfigError('state', 'must name at least one of '
                              f'{STATE_PARTS}, got {parts!r}')
        for part in parts:
            if part in absent:
                raise ConfigError('state', f'{part!r} does not exist with '
                                  f'{absent[part]}')
        self.parts = tuple(p for p in STATE_PARTS if p in parts)
        one = {'ce': 1, 'similarity': 1, 'divergence': 1}
        #: Size of each teacher's part of the state, in order.
        self.sizes = tuple(
            sum({**task.summary_sizes(t), **one}[p] for p in self.parts)
            for t in teachers)

    @property
    def size(self) -> int:
        """S."""
        return sum(self.sizes)

    def __call__(self, batch: DistillationBatch, ce_BM: Tensor) -> Tensor:
        """The state, [B, S], in float32.

        Args:
            batch: The batch.
            ce_BM: CE(z_m, y), also used for the action; not used here if the
                state has no part ``'ce'``.
        """
        columns = []
        for m, teacher in enumerate(batch.teachers):
            for part in self.parts:
                if part == 'feature':
                    column = self.task.feature_summary(teacher, batch.truth)
                elif part == 'logit':
                    assert self.task.judge is not None
                    column = self.task.judge.logit_summary(
                        teacher, batch.truth)
                elif part == 'ce':
                    column = ce_BM[:, m:m + 1]
                elif part == 'similarity':
                    assert batch.gaps.similarity is not None
                    column = batch.gaps.similarity[:, m:m + 1]
                else:
                    assert batch.gaps.logit is not None
                    column = batch.gaps.logit[:, m:m + 1]
                columns.append(column.detach().float())
        return torch.cat(columns, dim=1)
