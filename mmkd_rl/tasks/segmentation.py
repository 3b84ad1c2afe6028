"""Semantic segmentation with MMSegmentation's models.

All values are computed in the resolution of the student's logits (1/4 or 1/8
of the image's for most heads), to which the teachers' logits have been
resized: labels are read at the pixels that are nearest to the logits' grid.
So neither the student nor a teacher needs logits in the size of the image.

Legend: B batch, M teachers, C classes, H W space.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkd_rl.records import Batch, Output, OutputSpec, Truth
from mmkd_rl.registry import TASKS
from mmkd_rl.taps import OutputTaps
from mmkd_rl.tasks.base import LogitTask, TapConfig, neck_or_backbone
from mmkd_rl.utils.pooling import masked_mean
from mmkd_rl.utils.processes import mean_over_processes

#: A label that is no class.
_IGNORED = -1


@TASKS.register_module()
class SegmentationTask(LogitTask):
    """Networks that give a vector of class scores for each pixel.

    Defaults: the feature is the map of the neck (of the backbone if there is
    no neck) that the decode head reads, of several the last; the logits are
    the output of ``conv_seg``, the decode head's last layer (with a cascade
    of heads, of the last head that has one). Auxiliary heads are not
    distilled. A head with one channel, whose sigmoid is the probability of
    the second of two classes, has the scores (0, z), whose softmax is the
    same.

    Pixels without a label (the decode head's ``ignore_index``) and padding are
    left out of all means.

    Args:
        ignore_index: Label of pixels without a class; ``None``: that of the
            student's decode head.
    """

    scope = 'mmseg'
    projector = dict(norm=False)

    def __init__(self, ignore_index: int | None = None) -> None:
        self.ignore_index = ignore_index
        self.num_classes: int | None = None

    def prepare(self, model: nn.Module,
                teachers: Mapping[str, nn.Module]) -> None:
        """Read the number of classes and the ignored label of the student's
        decode head."""
        head = _last_head(model)
        classes = getattr(head, 'num_classes', None)
        # One class and its background.
        self.num_classes = 2 if classes == 1 else classes
        if self.ignore_index is None:
            self.ignore_index = getattr(head, 'ignore_index', 255)

    # --------------------------------------------------- how networks are run

    def feature_taps(self, model: nn.Module,
                     key: str) -> TapConfig | list[TapConfig]:
        """The map of the neck, or of the backbone, that the decode head reads;
        of several the last.

        Raises:
            ValueError: The model has neither.
        """
        index = getattr(_scoring_head(model)[0], 'in_index', -1)
        return neck_or_backbone(
            model, key, index if isinstance(index, int) else index[-1])

    def logit_taps(self, model: nn.Module,
                   key: str) -> TapConfig | list[TapConfig]:
        """``conv_seg`` of the last decode head that has one.

        Raises:
            ValueError: There is none.
        """
        head, path = _scoring_head(model)
        if head is None:
            raise ValueError(
                f'{key}: {type(model).__name__} with '
                f'{type(_last_head(model)).__name__} '
                'has no layer decode_head.conv_seg whose output are scores of '
                'classes; distil features alone with '
                "task=dict(type='FeatureTask'), or say where the scores are "
                f"with {key}.taps=dict(logits='...')")
        # In training it runs again for the head after it.
        return dict(path=f'{path}.conv_seg',
                    call=None if head is _last_head(model) else 0)

    def scores(self, logits: Tensor) -> Tensor:
        """(0, z) of a single channel z."""
        return logits if logits.shape[1] != 1 else torch.cat(
            [torch.zeros_like(logits), logits], 1)

    def run(self, model: nn.Module, batch: Batch) -> Any:
        """Run a forward pass; of a cascade of heads up to the last one with
        scores, because PointRend's point head cannot run alone."""
        head: Any = getattr(model, 'decode_head', None)
        if not isinstance(head, nn.ModuleList):
            return super().run(model, batch)
        maps: Any = model.extract_feat(batch.images)  # type: ignore
        scoring, _ = _scoring_head(model)
        previous: tuple = ()
        for part in head:
            previous = (part.forward(maps, *previous), )  # type: ignore
            if part is scoring:
                break
        return previous[0]

    def check(self, spec: OutputSpec, images: Tensor) -> None:
        """Refuse a network whose maps have a single pixel."""
        for shape in (*spec.features, *spec.logits):
            if len(shape) == 3 and shape[1:] == (1, 1) and \
                    max(images.shape[2:]) > 1:
                raise ValueError(
                    f'{spec.name!r} gives a single pixel for images of '
                    f'{images.shape[2]}x{images.shape[3]} (set by '
                    'model.probe_size, or the crops of the training data), '
                    'which are smaller than its stride; use larger images, '
                    'or tap an earlier layer with taps=dict(feature=...)')

    def classify(self, model: nn.Module, taps: OutputTaps, feature: Tensor,
                 key: str) -> Tensor:
        """Run a decode head that reads the tapped map alone.

        Raises:
            ValueError: The head reads several maps, or the tapped one is
                another.
        """
        head: Any = getattr(model, 'decode_head', None)
        tap = taps.features[-1]
        index = getattr(head, 'in_index', None)
        has_neck = isinstance(getattr(model, 'neck', None), nn.Module)
        maps = len(getattr(model.backbone, 'out_indices', ()))
        is_last = not has_neck and index == maps - 1 and tap.index == -1
        if not isinstance(index, int) or \
                not (tap.index == index or is_last) or \
                tap.path != ('neck' if has_neck else 'backbone'):
            raise ValueError(
                f'{key}: its decode head ({type(head).__name__}) does not '
                'read the tapped map alone, so it cannot be run on a mapped '
                'feature')
        return self.scores(head.forward([feature] * max(1, index + 1)))

    # -------------------------------------------------------------- labels

    def truth(self, batch: Batch) -> Truth:
        """Class indices [B, H, W], -1 where a pixel has none.

        Raises:
            ValueError: Images have no label maps, or of another size.
        """
        size = tuple(batch.images.shape[2:])
        maps = []
        for sample in batch.samples:
            label = getattr(sample, 'gt_sem_seg', None)
            if label is None:
                break
            maps.append(label.data.squeeze(0))
        if not maps or len(maps) != len(batch.images):
            raise ValueError(
                'the data samples have no gt_sem_seg, which SegmentationTask '
                'needs; add LoadAnnotations and PackSegInputs to the training '
                'pipeline')
        if tuple(maps[0].shape) != size:
            raise ValueError(
                f'gt_sem_seg has the size {tuple(maps[0].shape)} and the '
                f'images {size}; transforms and data_preprocessor must change '
                'both alike')
        labels = torch.stack(maps).to(batch.images.device).long()
        assert self.num_classes is not None
        classes = (labels >= 0) & (labels < self.num_classes) & (
            labels != self.ignore_index)
        truth = self.truth_of(labels.masked_fill(~classes, _IGNORED))
        return replace(truth, images=mean_over_processes(
            (truth.count > 0).sum().float()))

    def truth_of(self, targets: Tensor) -> Truth:
        """The truth of images of this process alone, from :attr:`targets` of
        an earlier one."""
        valid = (targets != _IGNORED).float()
        return Truth(targets, valid, valid.sum((1, 2)))

    def quality(self, output: Output, truth: Truth) -> Tensor:
        """-CE(z, y), a mean over valid pixels, [B]."""
        z, y = _logits(output), _labels_at(output, truth)
        loss = F.cross_entropy(z, y, ignore_index=_IGNORED, reduction='none')
        return -masked_mean(loss, (y != _IGNORED).float())

    def accuracy(self, output: Output, truth: Truth) -> Tensor:
        """Share of right pixels of the valid ones, [B]."""
        z, y = _logits(output), _labels_at(output, truth)
        return masked_mean((z.argmax(1) == y).float(), (y != _IGNORED).float())

    def margin(self, output: Output, truth: Truth) -> Tensor:
        """p[y] - max over the other classes, a mean over valid pixels, [B]."""
        p, y = _logits(output).softmax(1), _labels_at(output, truth)
        true = y.clamp_min(0).unsqueeze(1)
        margin = p.gather(1, true).squeeze(1) - p.scatter(1, true, 0.).amax(1)
        return masked_mean(margin, (y != _IGNORED).float())

    def entropy(self, output: Output, truth: Truth) -> Tensor:
        """H of the softmax, a mean over valid pixels, [B]."""
        logits = output.logits[0]
        return masked_mean(
            torch.special.entr(logits.float().softmax(1)).sum(1),
            truth.valid_at(logits))

    def logit_gradient(self, output: Output,
                       truth: Truth) -> tuple[Tensor, ...]:
        """grad_z CE = p - e_y of each pixel, 0 without a label,
        [B, C, h, w]."""
        z, y = _logits(output.detach()), _labels_at(output, truth)
        slope = z.softmax(1)
        slope = slope.scatter_add(
            1, y.clamp_min(0).unsqueeze(1), slope.new_full(
                (len(y), 1, *y.shape[1:]), -1.))
        return (slope * (y != _IGNORED).unsqueeze(1), )

    def inner_product(self, a: Tensor, b_BM: Tensor, truth: Truth) -> Tensor:
        """Sum over classes, mean over valid pixels, [B, M]."""
        products = (a.unsqueeze(1) * b_BM).sum(2)
        valid = truth.valid_at(a)
        return torch.stack([masked_mean(p, valid)
                            for p in products.unbind(1)], 1)

    def class_coverage(self, truth: Truth, known_MC: Tensor) -> Tensor:
        """Share of an image's valid pixels whose class each teacher was
        trained on; 1 for an image without valid pixels."""
        masks = truth.covered or self._covered(truth, known_MC)
        return torch.stack([
            torch.where(truth.count > 0, mask.sum((1, 2)) /
                        truth.count.clamp_min(1), 1.) for mask in masks
        ], 1)

    def with_coverage(self, truth: Truth, known_MC: Tensor) -> Truth:
        """The truth with :attr:`Truth.covered`."""
        return replace(truth, covered=self._covered(truth, known_MC))

    @staticmethod
    def _covered(truth: Truth, known_MC: Tensor) -> tuple[Tensor, ...]:
        assert truth.valid is not None
        return tuple(known_C[truth.targets.clamp_min(0)] * truth.valid
                     for known_C in known_MC)

    # ------------------------------------------------- for the agent's state

    def logit_summary(self, output: Output, truth: Truth) -> Tensor:
        """Share of each class in the prediction: the softmax averaged over
        valid pixels, [B, C]."""
        logits = output.logits[0]
        p = logits.float().softmax(1)
        valid = truth.valid_at(logits)
        if valid is None:
            return p.mean((2, 3))
        total = valid.sum((1, 2)).clamp_min(1e-6)
        return torch.einsum('bchw,bhw->bc', p, valid) / total[:, None]


def _scoring_head(model: nn.Module) -> tuple[Any, str]:
    """The last decode head that has ``conv_seg``, ``None`` if there is none,
    and its path."""
    head = getattr(model, 'decode_head', None)
    heads = {f'decode_head.{i}': h for i, h in enumerate(head)} if isinstance(
        head, nn.ModuleList) else {'decode_head': head}
    for path in reversed(heads):
        if isinstance(getattr(heads[path], 'conv_seg', None), nn.Module):
            return heads[path], path
    return None, ''


def _last_head(model: nn.Module) -> Any:
    head: Any = getattr(model, 'decode_head', None)
    return head[-1] if isinstance(head, nn.ModuleList) else head


def _logits(output: Output) -> Tensor:
    return output.logits[0].float()


def _labels_at(output: Output, truth: Truth) -> Tensor:
    """Labels at the pixels of the logits' grid, [B, h, w]."""
    targets, size = truth.targets, output.logits[0].shape[2:]
    if targets.shape[1:] == size:
        return targets
    rows, columns = (
        # Centre of each cell of the grid.
        ((torch.arange(n, device=targets.device) + .5) * total / n).long()
        for n, total in zip(size, targets.shape[1:]))
    return targets[:, rows][:, :, columns]
