"""Log, record and draw the weights of the teachers."""

from __future__ import annotations

import os
from dataclasses import asdict

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from mmkd_rl.engine.hooks.common import (
    distillation_in,
    save_picture,
    unwrapped,
)
from mmkd_rl.options import Checked, Count, Natural
from mmkd_rl.records import TeacherWeights
from mmkd_rl.registry import HOOKS
from mmkd_rl.teachers import Normalization
from mmkd_rl.visualization.common import check_marks
from mmkd_rl.visualization.weights import (
    WeightRecord,
    draw_samples,
    plot_weights,
)

#: Where a checkpoint keeps the record, so that resumed runs draw all of it.
CHECKPOINT_KEY = 'mmkd_rl_weights'


@HOOKS.register_module()
class WeightVisualizationHook(Checked, Hook):
    """Records the weights that the strategy gives to the teachers.

    Scalars go to MMEngine's message hub and so to the log and every
    visualisation backend: ``weight_logit/NAME`` and ``weight_feature/NAME``
    (means over images and iterations since the last point), ``weight_entropy/
    logit`` and ``/feature`` (nats; ln M: equal weights; 0: one teacher has
    all), of logits and features those that are distilled.
    In the work directory: ``teacher_weights.json``, ``teacher_weights.png``
    and ``sample_weights.png``.

    Args:
        interval: Iterations between two points.
        num_samples: Images in the picture of samples; 0: no picture.
        mark: Notes by teacher for the pictures, ``{'vgg': '60 % wrong
            labels'}``.

    Raises:
        ValueError: Before training: a marked teacher does not exist.
    """

    # Before LoggerHook, which writes what is in the message hub.
    priority = 'NORMAL'

    def __init__(self,
                 interval: Count = 50,
                 num_samples: Natural = 12,
                 mark: dict[str, str] | None = None) -> None:
        self.interval = interval
        self.num_samples = num_samples
        self.mark = dict(mark or {})
        self.record: WeightRecord | None = None
        self._sum: Tensor | None = None
        self._count = 0
        self._last_batch: dict | None = None

    def before_train(self, runner: Runner) -> None:
        """Begin a record, or continue a resumed one."""
        distillation = distillation_in(runner, type(self).__name__)
        names = list(distillation.teacher_names)
        check_marks('WeightVisualizationHook.mark', self.mark, names)
        if self.record is None or self.record.teachers != names:
            self.record = WeightRecord(names)
        self.record.kinds = list(distillation.kinds)

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch=None,
                         outputs=None) -> None:
        """Sum the weights on the device; read them every ``interval``
        iterations."""
        step = distillation_in(runner, type(self).__name__).last_step
        assert step is not None
        self._last_batch = data_batch
        summary = _summary(step.weights)
        self._sum = summary if self._sum is None else \
            self._sum.to(summary.device) + summary
        self._count += 1
        if self.every_n_train_iters(runner, self.interval):
            self._note(runner, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        """Write the record to disk."""
        if is_main_process() and self.record is not None:
            self.record.save(
                os.path.join(runner.work_dir, 'teacher_weights.json'))

    def after_train(self, runner: Runner) -> None:
        """Draw the pictures."""
        if not is_main_process() or self.record is None:
            return
        if self._count:
            self._note(runner, runner.iter)
        if not self.record.iterations:
            return
        self.after_train_epoch(runner)
        save_picture(runner, 'teacher_weights',
                     plot_weights(self.record, self.mark))
        if self.num_samples and self._last_batch is not None:
            self._draw_samples(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save the record in the checkpoint."""
        if self.record is not None:
            checkpoint[CHECKPOINT_KEY] = dict(
                record=asdict(self.record),
                sum=None if self._sum is None else self._sum.cpu(),
                count=self._count)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Continue the record of a resumed run."""
        if runner._resume and CHECKPOINT_KEY in checkpoint:
            state = checkpoint[CHECKPOINT_KEY]
            self.record = WeightRecord(**state['record'])
            self._sum, self._count = state['sum'], state['count']

    def _note(self, runner: Runner, iteration: int) -> None:
        assert self._sum is not None and self.record is not None
        means = (self._sum / self._count).tolist()
        self._sum, self._count = None, 0
        record = self.record
        m = len(record.teachers)
        logit, feature, entropy = means[:m], means[m:2 * m], means[2 * m:]
        record.iterations.append(iteration)
        record.logit.append(logit)
        record.feature.append(feature)
        record.entropy.append(entropy)
        for kind, name, weights, spread in (
                ('logits', 'logit', logit, entropy[0]),
                ('features', 'feature', feature, entropy[1])):
            if kind not in record.kinds:
                continue
            scalars = {f'weight_{name}/{teacher}': weight for teacher, weight
                       in zip(record.teachers, weights)}
            scalars[f'weight_entropy/{name}'] = spread
            for key, value in scalars.items():
                runner.message_hub.update_scalar(f'train/{key}', value)

    def _draw_samples(self, runner: Runner) -> None:
        step = distillation_in(runner, type(self).__name__).last_step
        assert self._last_batch is not None and step is not None
        assert self.record is not None
        count = min(self.num_samples, len(self._last_batch['inputs']))
        normalization = Normalization.of(unwrapped(runner).data_preprocessor)
        swap = normalization is not None and normalization.to_rgb
        images = [
            _image(x, swap) for x in self._last_batch['inputs'][:count]
        ]
        labels = [
            f'label {int(s.gt_label[0])}' if 'gt_label' in s else ''
            for s in self._last_batch['data_samples'][:count]
        ]
        name, weights = ('Logit', step.weights.logit) \
            if 'logits' in self.record.kinds else (
                'Feature', step.weights.feature)
        save_picture(
            runner, 'sample_weights',
            draw_samples(images, weights[:count].float().cpu().numpy(),
                         self.record.teachers, labels, self.mark,
                         f'{name} weights of each teacher, image by image'))


def _summary(weights: TeacherWeights) -> Tensor:
    """Means over the images: logit weights, feature weights, entropies."""
    parts, entropies = [], []
    for rows_BM in (weights.logit, weights.feature):
        parts.append(rows_BM.mean(0))
        share_BM = rows_BM / rows_BM.sum(1, keepdim=True).clamp_min(1e-12)
        entropies.append(torch.special.entr(share_BM).sum(1).mean())
    return torch.cat([*parts, torch.stack(entropies)]).float()


def _image(tensor: Tensor, swap: bool) -> np.ndarray:
    """A raw input [3, H, W] as RGB [H, W, 3] uint8."""
    array = tensor.detach().cpu().numpy().transpose(1, 2, 0)
    if swap:
        array = array[..., ::-1]
    if array.dtype != np.uint8:
        low, high = float(array.min()), float(array.max())
        array = ((array - low) / max(high - low, 1e-6) * 255).astype(np.uint8)
    return np.ascontiguousarray(array)
