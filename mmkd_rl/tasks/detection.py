"""Object detection and instance segmentation with MMDetection's models.

Legend: B batch, M teachers, C classes, A anchors at a location, N objects of
the image with the most of them, P locations of all levels, H W space.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmkd_rl.options import ConfigError
from mmkd_rl.records import Batch, Output, OutputSpec, Truth
from mmkd_rl.registry import TASKS
from mmkd_rl.taps.tap import ALL
from mmkd_rl.tasks.base import LogitTask, TapConfig
from mmkd_rl.tasks.dense_scores import DenseScores, scores_of
from mmkd_rl.tasks.feature import FeatureTask
from mmkd_rl.tasks.shared_norm import warn_of_shared_batch_norm
from mmkd_rl.utils.objects import NONE, covered_cells, objects_of

#: Ratio of the numbers of cells of two maps below which their strides count as
#: equal. A map of half the stride has 4 times the cells; one of an image whose
#: side is no multiple of the stride has a few more.
_SAME_STRIDE = 2.
#: Ratio below which one stride counts as twice the other at most.
_TWICE_THE_STRIDE = 2 * 4.
#: Smallest probability in a logarithm.
_TINY = 1e-6
_ADVICE = 'distil features alone with task.scores=False'


@TASKS.register_module()
class DetectionTask(FeatureTask, LogitTask):
    """Networks that find objects.

    Features are the levels of the neck (of the backbone without a neck), a
    student's level with the teacher's of the same stride; others are left
    out. Networks are run up to these, or up to the dense head: never to boxes
    or masks. Padding is left out of all means; the objects' boxes are at hand
    for terms that weigh foreground, such as :class:`FGDLoss`.

    With ``scores`` also the class scores of the dense head are read, for a
    sigmoid each. All networks must have the same classes (or a class map),
    strides and number of anchors, and the same anchors if there are several
    at each location.

    Args:
        scores: Whether class scores are read.

    Raises:
        ConfigError: ``scores``, and those of two networks have different
            meanings.
    """

    scope = 'mmdet'
    # Deformable convolutions of the coarsest level need three cells.
    probe_sizes = (256, 512, 1024)
    softmax = False

    def __init__(self, scores: bool = False) -> None:
        super().__init__('all')
        self.reads_scores = scores
        self._dense: DenseScores | None = None

    @property
    def judge(self) -> LogitTask | None:
        """The task itself if it reads class scores."""
        return self if self.reads_scores else None

    @property
    def scores_per_class(self) -> int:
        """The number of anchors at a location."""
        return self._dense.anchors if self._dense else 1

    @property
    def needs_same_size(self) -> bool:
        """Whether scores are compared: an anchor means a box in pixels."""
        return self.reads_scores

    def prepare(self, model: nn.Module,
                teachers: Mapping[str, nn.Module]) -> None:
        """Compare the meaning of all networks' scores; warn of a head that
        distillation harms.

        Raises:
            ConfigError: A teacher's scores have another meaning than the
                student's, or a network has no class scores.
        """
        warn_of_shared_batch_norm(model)
        if not self.reads_scores:
            return
        own = self._dense = _scores(model, 'the student')
        for name, network in teachers.items():
            key = f'teacher {name!r}'
            dense = _scores(network, key)
            if replace(dense, classes=own.classes) != own:
                raise ConfigError(
                    'task.scores', f'{key} has {dense}, and the student {own}'
                    f'{_other_boxes(own, dense)}; {_ADVICE}')

    # --------------------------------------------------- how networks are run

    def logit_taps(self, model: nn.Module,
                   key: str) -> TapConfig | list[TapConfig]:
        """The class scores of the dense head, if they are read.

        Raises:
            ConfigError: The task reads scores, and the network has none.
        """
        if not self.reads_scores:
            return []
        _scores(model, key)
        return [dict(path='bbox_head', index=(0, ALL))]

    def edge_taps(self, model: nn.Module) -> list[TapConfig]:
        """The distributions of the dense head, if scores are read and it has
        distributions (GFL and its kind)."""
        dense = scores_of(getattr(model, 'bbox_head', None))
        return [dict(path='bbox_head', index=(1, ALL))] if \
            self.reads_scores and not isinstance(dense, str) and dense.bins \
            else []

    def predict(self, model: nn.Module, features: Sequence[Tensor],
                key: str) -> Output:
        """Run the dense head.

        Raises:
            ConfigError: The network's dense head has no class scores.
        """
        dense = _scores(model, key)
        head: Any = model.bbox_head
        logits, boxes, *_ = head(tuple(features))
        return Output((), tuple(logits), tuple(boxes) if dense.bins else ())

    def run(self, model: nn.Module, batch: Batch) -> Any:
        """Run backbone and neck, and the dense head if scores are read."""
        features = super().run(model, batch)
        return model.bbox_head(features) if self.reads_scores else features

    def pair_levels(self, student: OutputSpec,
                    teacher: OutputSpec) -> tuple[tuple[int, int], ...] | None:
        """The student's levels with the teacher's of nearly the same stride,
        of several the last. Where no two have, the nearest two if one has
        twice the other's stride. ``None``, each with that of the same index,
        where both have the same sizes or features are vectors.

        Raises:
            ConfigError: No two levels have similar strides.
        """
        own, theirs = _areas(student), _areas(teacher)
        if own is None or theirs is None or own == theirs:
            return None
        last = {area: i for i, area in enumerate(own)}
        nearest = [(i, min(reversed(range(len(theirs))),
                           key=lambda j: _ratio(area, theirs[j])))
                   for area, i in last.items()]
        ratios = [_ratio(own[i], theirs[j]) for i, j in nearest]
        if min(ratios) < _SAME_STRIDE:
            return tuple(pair for pair, ratio in zip(nearest, ratios)
                         if ratio < _SAME_STRIDE)
        if min(ratios) >= _TWICE_THE_STRIDE:
            raise ConfigError(
                f'teacher {teacher.name!r}: none of its levels has the stride '
                "of one of the student's: its maps are "
                f"{_sizes(teacher.features)}, and the student's "
                f'{_sizes(student.features)}; tap others with '
                'taps=dict(feature=...), or leave the teacher out')
        i, j = nearest[ratios.index(min(ratios))]
        print_log(
            f'teacher {teacher.name!r}: none of its levels has the stride of '
            f"one of the student's; its {_size(teacher.features[j])} is "
            f"compared with the student's {_size(student.features[i])}, the "
            'finer one averaged down', 'current', logging.WARNING)
        return ((i, j), )

    # -------------------------------------------------------------- labels

    def truth(self, batch: Batch) -> Truth:
        """Objects of each image as :func:`objects_of` gives them; padding is
        not valid.

        Raises:
            ValueError: The samples have no boxes, and class scores are read.
        """
        objects = objects_of(batch.samples, batch.images)
        if objects is None and self.reads_scores:
            raise ValueError(
                'the data samples have no gt_instances with boxes and labels, '
                'which DetectionTask(scores=True) needs; add LoadAnnotations '
                'and PackDetInputs to the training pipeline')
        return replace(super().truth(batch), targets=objects)

    def quality(self, output: Output, truth: Truth) -> Tensor:
        r"""How well objects are found, [B]; at most 0, larger is better:

        .. math::
            \frac{1}{n} \Big( \sum_o \log \max_{x \in o} p_{y_o}(x) +
            \sum_{x \notin o} \sum_c p_c(x)^2 \log(1 - p_c(x)) \Big)

        the probability of each object's class at the best location in its
        box, and focal loss outside of all boxes; n objects, or 1. It is the
        bag likelihood of FreeAnchor (Zhang et al. 2019, arXiv:1909.02466)
        without boxes: no head's own assignment of objects to anchors is
        needed. Zero without class scores.
        """
        if not self.reads_scores:
            return torch.zeros_like(truth.count)
        found = []
        for p_CP, inside_NP, valid_P, objects_N5 in self._images(
                output, truth):
            best_N = (p_CP[_classes(objects_N5)] * inside_NP).amax(
                1).clamp_min(_TINY)
            is_found_N = inside_NP.any(1)
            outside_P = valid_P * ~inside_NP.any(0)
            noise = (p_CP.square() * (1 - p_CP).clamp_min(_TINY).log()).sum(0)
            found.append(
                ((best_N.log() * is_found_N).sum() +
                 (noise * outside_P).sum()) / is_found_N.sum().clamp_min(1))
        return torch.stack(found)

    def margin(self, output: Output, truth: Truth) -> Tensor:
        """Probability of an object's class minus that of the likeliest other
        class there, at the location of :meth:`quality`, a mean over objects,
        [B]."""
        found = []
        for p_CP, inside_NP, _, objects_N5 in self._images(output, truth):
            own_N1 = _classes(objects_N5)[:, None]
            place_N = (p_CP[own_N1[:, 0]] * inside_NP).argmax(1)
            p_NC = p_CP[:, place_N].T
            margin_N = p_NC.gather(1, own_N1)[:, 0] - p_NC.scatter(
                1, own_N1, 0.).amax(1)
            is_found_N = inside_NP.any(1)
            found.append((margin_N * is_found_N).sum() /
                         is_found_N.sum().clamp_min(1))
        return torch.stack(found)

    def entropy(self, output: Output, truth: Truth) -> Tensor:
        """Entropy of each class's probability, in nats, summed over classes, a
        mean over valid locations, [B]."""
        return torch.stack([
            ((torch.special.entr(p_CP) + torch.special.entr(1 - p_CP)).sum(0)
             * valid_P).sum() / valid_P.sum().clamp_min(_TINY)
            for p_CP, _, valid_P, _ in self._images(output, truth)])

    @torch.enable_grad()
    def logit_gradient(self, output: Output,
                       truth: Truth) -> tuple[Tensor, ...]:
        """Gradient of minus :meth:`quality`, [B, A C, h, w] of each level."""
        logits = tuple(z.detach().float().requires_grad_()
                       for z in output.logits)
        return torch.autograd.grad(
            -self.quality(Output(logits=logits), truth).sum(), logits)

    def inner_product(self, a: Tensor, b_BM: Tensor, truth: Truth) -> Tensor:
        """Sum over channels and locations, [B, M]."""
        return (a.unsqueeze(1) * b_BM).flatten(2).sum(2)

    def class_coverage(self, truth: Truth, known_MC: Tensor) -> Tensor:
        """Share of an image's objects whose class each teacher was trained
        on; 1 for an image without objects."""
        classes = self._layout.classes
        labels_BN = truth.targets[..., 4].long()
        known_MBN = known_MC[:, :classes][:, labels_BN.clamp_min(0)].float()
        counts_BN = (labels_BN != NONE).float()
        count_B1 = counts_BN.sum(1)[:, None]
        return torch.where(
            count_B1 > 0, (known_MBN * counts_BN).sum(2).T /
            count_B1.clamp_min(1), 1.)

    # ------------------------------------------------- for the agent's state

    def logit_summary(self, output: Output, truth: Truth) -> Tensor:
        """Largest probability of each class, [B, C]."""
        return torch.stack([(p_CP * valid_P).amax(1) for p_CP, _, valid_P, _
                            in self._images(output, truth)])

    def summary_sizes(self, spec: OutputSpec) -> dict[str, int]:
        """See :meth:`Task.summary_sizes`."""
        return dict(feature=sum(spec.channels),
                    logit=self._dense.classes if self._dense else 0)

    # ------------------------------------------------------------- one image

    @property
    def _layout(self) -> DenseScores:
        assert self._dense is not None
        return self._dense

    def _images(self, output: Output, truth: Truth
                ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Of each image: probabilities [C, P], those of the best anchor; the
        locations that each object covers [N, P]; valid locations [P]; objects
        [N, 5]. P: locations of all levels."""
        shape = (self._layout.anchors, self._layout.classes)
        p_BCP = torch.cat([
            z.float().flatten(2).unflatten(1, shape).amax(1)
            for z in output.logits], 2).sigmoid()
        masks = [truth.valid_at(z) for z in output.logits]
        valid_BP = torch.ones_like(p_BCP[:, 0]) if masks[0] is None else \
            torch.cat([m.flatten(1) for m in masks if m is not None], 1)
        sizes = [z.shape[2:] for z in output.logits]
        for p_CP, valid_P, objects_N5 in zip(p_BCP, valid_BP, truth.targets):
            inside_NP = torch.cat([covered_cells(objects_N5, size).flatten(1)
                                   for size in sizes], 1)
            yield p_CP, inside_NP & (valid_P > 0), valid_P, objects_N5


def _scores(model: nn.Module, name: str) -> DenseScores:
    """Meaning of the score maps of a network's dense head.

    Raises:
        ConfigError: The head has no scores for a sigmoid for each class.
    """
    dense = scores_of(getattr(model, 'bbox_head', None))
    if isinstance(dense, str):
        raise ConfigError('task.scores', f'{name}: {dense}; {_ADVICE}')
    return dense


def _classes(objects_N5: Tensor) -> Tensor:
    return objects_N5[:, 4].long().clamp_min(0)


def _areas(spec: OutputSpec) -> list[int] | None:
    """Cells of each level; ``None``: a level is a vector."""
    if any(len(shape) != 3 for shape in spec.features):
        return None
    return [shape[1] * shape[2] for shape in spec.features]


def _ratio(a: int, b: int) -> float:
    return max(a, b) / min(a, b)


def _sizes(levels: Sequence[tuple[int, ...]]) -> str:
    return ', '.join(map(_size, levels))


def _size(level: tuple[int, ...]) -> str:
    return '{1}x{2}'.format(*level)


def _other_boxes(own: DenseScores, other: DenseScores) -> str:
    return '' if own.boxes == other.boxes or own.anchors != other.anchors \
        else ', and their anchors have other sizes or ratios'
