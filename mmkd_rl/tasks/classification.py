"""Image classification with MMPretrain's classifiers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmpretrain.models.necks import GlobalAveragePooling
from torch import Tensor, nn

from mmkd_rl.records import Batch, Output, OutputSpec, Truth
from mmkd_rl.registry import TASKS
from mmkd_rl.taps import OutputTaps
from mmkd_rl.tasks.base import LogitTask, TapConfig

_SEVERAL = ('{}: each image must have one label, got {} labels for {} images; '
            'multi-label data cannot be distilled with softmax losses')


@TASKS.register_module()
class ClassificationTask(LogitTask):
    """Networks that give one vector of class scores for each image.

    Defaults: the feature is the backbone's last output (the neck's, if the
    neck averages tokens), the logits are the head's output. For networks
    without backbone and head (``TimmClassifier`` and others) the feature is
    the input of the classifier's linear layer.
    """

    scope = 'mmpretrain'

    def feature_taps(self, model: nn.Module,
                     key: str) -> TapConfig | list[TapConfig]:
        """See :func:`classifier_feature`."""
        return classifier_feature(model, key)

    def logit_taps(self, model: nn.Module,
                   key: str) -> TapConfig | list[TapConfig]:
        """The head's output, or that of the wrapped network."""
        for name in ('head', 'model'):
            if isinstance(getattr(model, name, None), nn.Module):
                return name
        raise ValueError(
            f'{key}: {type(model).__name__} has no head; say where its '
            f"logits are with {key}.taps=dict(logits='...')")

    def classify(self, model: nn.Module, taps: OutputTaps, feature: Tensor,
                 key: str) -> Tensor:
        """Run neck and head on a backbone's output, or the linear layer whose
        input is tapped.

        Raises:
            ValueError: The feature is tapped elsewhere.
        """
        if len(taps.features) != 1:
            raise ValueError(f'{key}: its classifier reads one feature, and '
                             f'{len(taps.features)} levels are tapped')
        tap, = taps.features
        if tap.path in ('backbone', 'neck') and tap.source == 'output' and \
                isinstance(getattr(model, 'head', None), nn.Module):
            if tap.path == 'neck':
                return model.head((feature, ))
            if feature.ndim == 4 and isinstance(
                    getattr(model, 'neck', None), GlobalAveragePooling):
                feature = _mean_over_space(feature)
            features: tuple[Tensor, ...] = (feature, )
            if getattr(model, 'neck', None) is not None:
                features = model.neck(features)
            return model.head(features)
        module = model.get_submodule(tap.path)
        if tap.source == 'input' and isinstance(module, nn.Linear):
            return module(feature)
        raise ValueError(
            f'{key}: its feature is tapped at the {tap.source} of '
            f'{tap.path!r}, so its classifier cannot be run on a mapped '
            "feature; leave taps.feature out, or tap the last linear layer's "
            'input')

    def check(self, spec: OutputSpec, images: Tensor) -> None:
        """Refuse a single score, whose softmax is always 1, and maps.

        Raises:
            ValueError: The network has one score for each image, or scores
                for each pixel.
        """
        if any(len(shape) != 1 for shape in spec.logits):
            raise ValueError(
                f'{spec.name}: the tapped logits have the shape '
                f'{spec.logits[0]} for an image, and ClassificationTask '
                "needs a vector; tap the classifier's output")
        if spec.logits and spec.num_classes < 2:
            raise ValueError(
                f'{spec.name}: one score for each image is no softmax over '
                'classes, and would be distilled with a loss of 0; give it '
                'two classes, or distil features alone with '
                "task=dict(type='FeatureTask')")

    def truth(self, batch: Batch) -> Truth:
        """Class indices [B], or probabilities [B, C] (mixup); all images are
        valid.

        Raises:
            ValueError: An image has several labels.
        """
        return Truth.of_labels(self._targets(batch))

    def _targets(self, batch: Batch) -> Tensor:
        samples = batch.samples
        if len(samples) == 0:
            raise ValueError('the model is trained without data_samples, and '
                             'ClassificationTask needs their labels')
        if 'gt_score' in samples[0]:
            scores = torch.stack([s.gt_score for s in samples])
            if scores.is_floating_point():
                return scores
            # Whole numbers are labels in the form of a vector.
            if bool((scores.sum(1) != 1).any()):
                raise ValueError(_SEVERAL.format(
                    'gt_score', int(scores.sum()), len(samples)))
            return scores.float()
        counts = [s.gt_label.numel() for s in samples]
        if any(count != 1 for count in counts):
            raise ValueError(_SEVERAL.format(
                'gt_label', sum(counts), len(samples)))
        return torch.cat([s.gt_label for s in samples])

    def quality(self, output: Output, truth: Truth) -> Tensor:
        """-CE(z, y), [B]."""
        return -F.cross_entropy(
            _logits(output), truth.targets, reduction='none')

    def accuracy(self, output: Output, truth: Truth) -> Tensor:
        """1 where the likeliest class is the label's (the likeliest one of
        probabilities), [B]."""
        targets = truth.targets
        y_B = targets if targets.ndim == 1 else targets.argmax(1)
        return (_logits(output).argmax(1) == y_B).float()

    def margin(self, output: Output, truth: Truth) -> Tensor:
        """p[y] - max over the other classes; for labels that are probabilities
        y is the likeliest class."""
        p_BC, targets = _logits(output).softmax(1), truth.targets
        y_B = targets if targets.ndim == 1 else targets.argmax(1)
        true_BC = F.one_hot(y_B, p_BC.shape[1]).bool()
        return p_BC.masked_fill(~true_BC, 0.).sum(1) - p_BC.masked_fill(
            true_BC, 0.).amax(1)

    def logit_gradient(self, output: Output,
                       truth: Truth) -> tuple[Tensor, ...]:
        """grad_z CE = p - e_y, [B, C]."""
        z_BC, targets = _logits(output.detach()), truth.targets
        truth_BC = targets if targets.ndim > 1 else F.one_hot(
            targets, z_BC.shape[1])
        return (z_BC.softmax(1) - truth_BC, )

    def entropy(self, output: Output, truth: Truth) -> Tensor:
        """H of the softmax, [B]."""
        return torch.special.entr(_logits(output).softmax(1)).sum(1)

    def class_coverage(self, truth: Truth, known_MC: Tensor) -> Tensor:
        """1 where the teacher was trained on the image's class; for labels
        that are probabilities their sum over such classes."""
        known_CM = known_MC.T.float()
        targets = truth.targets
        return targets.float() @ known_CM if targets.ndim > 1 else \
            known_CM[targets]

    def inner_product(self, a: Tensor, b_BM: Tensor, truth: Truth) -> Tensor:
        """Sum over classes, [B, M]."""
        # Not einsum: autocast would lower its precision.
        return (a.unsqueeze(1) * b_BM).sum(2)

    def logit_summary(self, output: Output, truth: Truth) -> Tensor:
        """The logits themselves, [B, C]."""
        return output.logits[0]


def classifier_feature(model: nn.Module, key: str) -> TapConfig:
    """The tap of a classifier's feature: the backbone's output, the mean of
    its tokens, or the input of the last linear layer.

    Args:
        model: The network.
        key: The network's config key, for messages.

    Raises:
        ValueError: The model has neither a backbone nor a linear layer.
    """
    if isinstance(getattr(model, 'backbone', None), nn.Module):
        layers = getattr(getattr(model, 'head', None), 'layers', None)
        if hasattr(layers, 'head_dist'):
            # A distilled DeiT's backbone gives two tokens; the class token is
            # the feature.
            return dict(path='head.layers.head', source='input')
        neck = getattr(model, 'neck', None)
        if isinstance(neck, GlobalAveragePooling) and isinstance(
                neck.gap, nn.AdaptiveAvgPool1d):
            # MLP-Mixer's backbone gives tokens [B, D, L]; the mean over them
            # is the feature.
            return 'neck'
        return 'backbone'
    linear = [
        name for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    if not linear:
        raise ValueError(
            f'{key}: {type(model).__name__} has neither a backbone nor a '
            f'linear layer; say where its feature is with '
            f"{key}.taps=dict(feature='...')")
    # timm's DeiT and LeViT end with the layer of the distillation token.
    last = linear[-1].replace('head_dist', 'head')
    return dict(path=last if last in linear else linear[-1], source='input')


def _logits(output: Output) -> Tensor:
    return output.logits[0].float()


def _mean_over_space(feature: Tensor) -> Tensor:
    """Global average pooling, [B, D, 1, 1].

    Computed as a matrix product, because its gradient keeps the memory format
    of the feature; the pooling layer's gradient does not, which slows down all
    layers before it.
    """
    rows = feature.permute(0, 2, 3, 1).flatten(1, 2) if feature.is_contiguous(
        memory_format=torch.channels_last) else feature.flatten(2).mT
    share = rows.new_full((len(rows), 1, rows.shape[1]), 1 / rows.shape[1])
    return torch.bmm(share, rows).view(len(rows), -1, 1, 1)
