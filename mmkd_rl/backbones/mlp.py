"""Fully connected networks: [B, C, H, W] to vectors.

For MNIST and others. Hinton, Vinyals and Dean, Distilling the knowledge in a
neural network, 2015, distil two hidden layers of 1200 into two of 800; Liu,
Peng and Schwing, Knowledge flow, ICLR 2019, Sec. 7.1, do the same, and use
two of 256 with dropout 0.2 (Chen's, 2017) for EMNIST.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from math import prod

from torch import Tensor, nn
from torch.nn import functional as F

from mmkd_rl.registry import MODELS

from .base import CifarBackbone, check_whole

INIT = (dict(type='Kaiming', layer='Linear', mode='fan_in'), )


class HiddenLayer(nn.Sequential):
    """relu(fc(dropout(x))), [B, in] to [B, out].

    Dropout is no module of its own: the layers of this network are what ends
    in an activation.
    """

    def __init__(self, fc: nn.Linear, relu: nn.Module, dropout: float):
        super().__init__(OrderedDict(fc=fc, relu=relu))
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """[B, in] to [B, out]."""
        return super().forward(F.dropout(x, self.dropout, self.training))


@MODELS.register_module()
class MLP(CifarBackbone):
    """Hidden layers ``layer1``, ``layer2``, ...: relu(linear(dropout(h))).

    Each layer ends in its activation (module paths ``layer1.fc``,
    ``layer1.relu``); dropout is applied after each layer, as the first step of
    the next one, and after the last one before it is returned. With
    ``mmpretrain.ImageClassifier``: ``neck=None`` and a ``LinearClsHead``
    with ``in_channels=hidden[-1]``.

    Args:
        in_shape: (C, H, W) of the images.
        hidden: Width of each hidden layer.
        dropout: Probability behind each hidden layer, in [0, 1).
        out_indices: Layers whose output is returned, from 0; ``None`` for
            the last one. Layer i gives [B, hidden[i]].
        frozen_stages: -1 and 0 train everything, k freezes the first k
            layers.
        act_cfg: Activation; ``None`` for ReLU.
        init_cfg: Initialisation, as in MMEngine; ``None`` leaves PyTorch's.

    Raises:
        ValueError: A shape, width or dropout that cannot be, see also
            :class:`CifarBackbone`.

    Example:
        >>> import torch
        >>> from mmkd_rl.backbones import MLP
        >>> net = MLP(hidden=(1200, 800), out_indices=(0, 1))
        >>> [tuple(x.shape) for x in net(torch.rand(5, 1, 28, 28))]
        [(5, 1200), (5, 800)]
    """

    stem = ()

    def __init__(self,
                 in_shape: Sequence[int] = (1, 28, 28),
                 hidden: Sequence[int] = (1200, 1200),
                 dropout: float = 0.,
                 out_indices: Sequence[int] | None = None,
                 frozen_stages: int = -1,
                 act_cfg: dict | None = None,
                 init_cfg: dict | Sequence[dict] | None = INIT):
        self._check(in_shape, hidden, dropout)
        super().__init__(
            tuple(hidden),
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            act_cfg=act_cfg,
            init_cfg=init_cfg)
        #: (C, H, W): the one size of image that this network takes.
        self.input_shape = tuple(in_shape)
        width = prod(in_shape)
        self.dropout = dropout
        for i, out in enumerate(hidden):
            # The image is not dropped from.
            layer = HiddenLayer(
                nn.Linear(width, out), self.activation(), dropout if i else 0.)
            self.add_module(f'layer{i + 1}', layer)
            width = out
        self._freeze()

    @staticmethod
    def _check(in_shape: Sequence[int], hidden: Sequence[int],
               dropout: float) -> None:
        if not isinstance(in_shape, Sequence) or len(in_shape) != 3:
            raise ValueError('MLP: in_shape must be (channels, height, '
                             f'width), got {in_shape!r}')
        if not isinstance(hidden, Sequence) or not hidden:
            raise ValueError('MLP: hidden must be the widths of one or more '
                             f'layers, as (1200, 1200), got {hidden!r}')
        for key, sizes in (('in_shape', in_shape), ('hidden', hidden)):
            for i, size in enumerate(sizes):
                check_whole(f'MLP: {key}[{i}]', size)
        if not 0 <= dropout < 1:
            raise ValueError(
                f'MLP: dropout must be in [0, 1), got {dropout!r}')

    def _forward_stem(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.input_shape:
            raise ValueError(
                f'MLP: in_shape={self.input_shape}, and the images are '
                f'{tuple(x.shape[1:])}; set in_shape, or resize the images')
        return x.flatten(1)

    def _stage_output(self, index: int, x: Tensor) -> Tensor:
        if index < self.num_stages - 1:
            return x
        return F.dropout(x, self.dropout, self.training)
