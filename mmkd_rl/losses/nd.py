r"""ND, the loss of KD++ (Wang et al. 2025, arXiv:2305.17007): the feature's
direction and norm.

.. math:: L_m = 1 - \frac{\langle s_m, e_y^m \rangle}{\max(|s_m|, |t_m|)}

s_m is the projected student feature r_m(F_S) and t_m the teacher's, both
averaged over space; e_c^m is the unit vector along teacher m's mean feature of
class c over the training set. While the student's feature is shorter than the
teacher's, the loss falls both with a better direction and with a longer
feature; once it is longer, only with a better direction. One number per sample
and teacher, in [0, 2]. It is not zero for a student that equals its teacher,
because the target is the direction of the class, not of the sample.

**Class means** are buffers and so saved in checkpoints: [C, D_m] for each
teacher. ``means='dataset'`` is the paper's and needs ClassMeanHook, which runs
the teachers on the training set once; ``'running'`` takes the mean over the
batches so far, this batch included. A class without images has no direction;
the loss of its samples is zero.

**Labels that are probabilities** (mixup): the expectation of the loss,
sum_c y_c (1 - <s, e_c> / max(|s|, |t|)), which is the formula with the
expected direction sum_c y_c e_c; in running means an image counts y_c for
class c.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from mmengine import dist
from torch import Tensor

from mmkd_rl.losses.base import FeatureTerm
from mmkd_rl.options import ConfigError, NonNegative
from mmkd_rl.records import OutputSpec, Pairs, Truth
from mmkd_rl.registry import MODELS
from mmkd_rl.utils.pooling import mean_over_space

#: Lower bound of a feature's norm in the denominator.
_SHORTEST = 1e-6


@MODELS.register_module()
class NDLoss(FeatureTerm):
    """Loss of the student's feature along the teacher's class mean.

    Args:
        loss_weight: beta of MTKD-RL, Eq. (2); applied by the distiller. The
            authors' is between 0.5 and 4, with 2 for most of KD++.
        means: ``'dataset'``: the training set's, from ClassMeanHook;
            ``'running'``: of the batches so far, without a pass beforehand.
            The first is the default because it is the paper's, and because
            the target is then constant; without ClassMeanHook the first batch
            raises an error.
    """

    hooks = (dict(type='mmkd_rl.ClassMeanHook'), )
    #: Images of each class in the means, [C].
    counts: Tensor

    def __init__(self,
                 loss_weight: NonNegative = 2.0,
                 means: Literal['dataset', 'running'] = 'dataset') -> None:
        super().__init__(loss_weight)
        self.means = means
        self._ready = False  # cached, to save a synchronisation

    @classmethod
    def needed_hooks(cls, options: dict) -> tuple[dict, ...]:
        """See :meth:`DistillationTerm.needed_hooks`; running means need no
        pass over the data set."""
        return () if options.get('means') == 'running' else cls.hooks

    def build(self, student: OutputSpec, teachers: Sequence[OutputSpec],
              projector: dict | None = None) -> None:
        """Make the projectors and the buffers of the class means.

        Raises:
            ConfigError: The student has no logits (which give the number of
                classes) or several levels; or see :meth:`FeatureTerm.build`.
        """
        classes = student.num_classes
        if not classes:
            raise ConfigError('NDLoss needs images with one class each, and '
                              'this task has none; use FitNetLoss')
        if any(len(shape) > 1 for shape in student.logits):
            raise ConfigError('NDLoss needs images with one class each, and '
                              'here each pixel has one; use FitNetLoss')
        if len(student.features) > 1:
            raise ConfigError('NDLoss takes one feature, got '
                              f'{len(student.features)} levels; tap the last '
                              "one alone with taps=dict(feature='...')")
        super().build(student, teachers, projector)
        self.register_buffer('counts', torch.zeros(classes))
        for m, spec in enumerate(teachers):
            self.register_buffer(f'mean{m}',
                                 torch.zeros(classes, spec.channels[0]))
        self.num_teachers = len(teachers)

    @property
    def ready(self) -> bool:
        """Whether the class means have been set."""
        if not self._ready:
            self._ready = bool(self.counts.any())
        return self._ready

    @property
    def class_means(self) -> list[Tensor]:
        """Class means of each teacher, [C, D_m]."""
        return [self._mean(m) for m in range(self.num_teachers)]

    @torch.no_grad()
    def set_means(self, sums: Sequence[Tensor], counts: Tensor) -> None:
        """Set the class means.

        Args:
            sums: Sums of each teacher's features, [C, D_m].
            counts: Numbers of images in the sums, [C].
        """
        assert len(sums) == self.num_teachers
        self.counts.copy_(counts)
        for m, sums_CD in enumerate(sums):
            self._mean(m).copy_(sums_CD / counts.clamp_min(1e-6)[:, None])
        self._ready = False

    def compare(self, pairs: Pairs, truth: Truth) -> Tensor:
        """L_m, [B, M], in float32.

        Raises:
            ConfigError: There are no class labels, or no class means.
        """
        targets = truth.targets
        if not isinstance(targets, Tensor) or targets.ndim > 2:
            raise ConfigError(
                'NDLoss needs one label an image, and '
                f"{'there are none' if targets is None else 'got many'}; use "
                'FitNetLoss')
        if not hasattr(self, 'num_teachers'):
            raise ValueError('NDLoss was used before it was built; outside of '
                             'a distiller call build(student, teachers) first')
        assert len(pairs) == self.num_teachers
        # Autocast would run the products with the labels in half precision.
        with torch.autocast(targets.device.type, enabled=False):
            return self._loss(pairs, targets)

    def _loss(self, pairs: Pairs, targets: Tensor) -> Tensor:
        students = [_pool(p.student) for p, in pairs]
        teachers = [_pool(p.teacher).detach() for p, in pairs]
        # Only in a training step: a second pass of the same batch has no
        # gradient.
        if self.means == 'running' and self.training and \
                torch.is_grad_enabled():
            self._add(teachers, targets)
        if self.means == 'dataset' and not self.ready:
            raise ConfigError(
                'NDLoss has no class means. Add '
                "dict(type='mmkd_rl.ClassMeanHook') to custom_hooks, or take "
                "feature_loss=dict(type='NDLoss', means='running')")
        share_B = self._known(targets)
        columns: list[Tensor] = [share_B] * len(pairs)
        for group in _same_width(students):
            s_BGD = torch.stack([students[m] for m in group], 1)
            t_BGD = torch.stack([teachers[m] for m in group], 1)
            e_BGD = torch.stack(
                [self._direction(m, targets) for m in group], 1)
            length_BG = torch.maximum(
                torch.linalg.vector_norm(s_BGD, dim=2),
                torch.linalg.vector_norm(t_BGD, dim=2)).clamp_min(_SHORTEST)
            loss_BG = share_B[:, None] - (s_BGD * e_BGD).sum(2) / length_BG
            for m, loss_B in zip(group, loss_BG.unbind(1)):
                columns[m] = loss_B
        return torch.stack(columns, 1)

    def _mean(self, index: int) -> Tensor:
        return self.get_buffer(f'mean{index}')

    def _known(self, targets: Tensor) -> Tensor:
        """Label probability of the classes that have a mean, [B]."""
        known_C = (self.counts > 0).float()
        return known_C[targets] if targets.ndim == 1 else \
            targets.float() @ known_C

    def _direction(self, index: int, targets: Tensor) -> Tensor:
        """The expected direction, [B, D_m]; zero for a class without mean."""
        mean_CD = self._mean(index)
        if targets.ndim == 1:
            return F.normalize(mean_CD[targets], dim=1)
        return targets.float() @ F.normalize(mean_CD, dim=1)

    @torch.no_grad()
    def _add(self, teachers: Sequence[Tensor], targets: Tensor) -> None:
        """Add a batch, of all processes, to the running means."""
        sums, counts_C = class_sums(teachers, targets, len(self.counts))
        for tensor in (counts_C, *sums):
            dist.all_reduce(tensor)
        self.counts.add_(counts_C)
        total_C1 = self.counts.clamp_min(1e-6)[:, None]
        for m, sums_CD in enumerate(sums):
            mean_CD = self._mean(m)
            mean_CD.add_((sums_CD - counts_C[:, None] * mean_CD) / total_C1)


def class_sums(features: Sequence[Tensor], targets: Tensor,
               num_classes: int) -> tuple[list[Tensor], Tensor]:
    """Sums of features over the images of each class, and numbers of images.

    Args:
        features: Features, [B, D_m, ...] each; averaged over space.
        targets: Class indices [B], or probabilities [B, C].
        num_classes: C.

    Returns:
        Sums [C, D_m] of each feature and numbers [C], all in float32. Images
        with a feature that is not finite are left out, because one would make
        the mean useless.
    """
    with torch.autocast(targets.device.type, enabled=False):
        pooled = [_pool(f) for f in features]
        finite_B1 = torch.stack([f_BD.isfinite().all(1)
                                 for f_BD in pooled]).all(0)[:, None]
        y_CB = ((F.one_hot(targets, num_classes) if targets.ndim == 1 else
                 targets).float() * finite_B1).T
        return [
            y_CB @ torch.where(finite_B1, f_BD, 0.) for f_BD in pooled
        ], y_CB.sum(1)


def _pool(feature: Tensor) -> Tensor:
    return mean_over_space(feature.float())


def _same_width(features: Sequence[Tensor]) -> list[list[int]]:
    """Indices of the features, grouped by D."""
    groups: dict[int, list[int]] = {}
    for m, feature in enumerate(features):
        groups.setdefault(feature.shape[1], []).append(m)
    return list(groups.values())
