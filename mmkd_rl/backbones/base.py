"""Base class of the networks for 32x32 images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.cnn import build_activation_layer, build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

# Not in place: an in-place ReLU overwrites its own input, and a tap on the
# values before the activation would read the values after it. Autograd keeps
# only the ReLU's output either way, so this costs no memory across layers.
DEFAULT_ACT = dict(type='ReLU', inplace=False)
DEFAULT_NORM = dict(type='BN', requires_grad=True)
#: Values of ``stem_pool``.
POOLS = (1, 2, 4)
DEFAULT_INIT = (
    dict(type='Kaiming', layer=['Conv2d']),
    dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
)


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


def norm(cfg: dict, channels: int) -> nn.Module:
    """Build a normalisation layer."""
    return build_norm_layer(cfg, channels)[1]


def check_depth(name: str, depth: int, offset: int) -> int:
    """Number of blocks in each of the three stages of a network with
    ``6n + offset`` layers.

    Raises:
        ValueError: No whole number of blocks gives this depth.
    """
    blocks, rest = divmod(depth - offset, 6) if isinstance(depth, int) \
        and not isinstance(depth, bool) else (0, 1)
    if rest or blocks < 1:
        examples = ', '.join(str(6 * n + offset) for n in (1, 2, 3, 4, 5, 6))
        raise ValueError(f'{name}: depth must be 6n + {offset} with n >= 1 '
                         f'({examples}, ...), got {depth!r}')
    return blocks


def check_whole(key: str, value: object, least: int = 1) -> None:
    """Check that a value is a whole number and not too small.

    Raises:
        ValueError: ``value`` is not an int of ``least`` or more.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(
            f'{key} must be a whole number >= {least}, got {value!r}')


class CifarBackbone(BaseModule):
    """Stem, stages ``layer1``, ``layer2``, ..., and selected outputs.

    A subclass adds the modules named in ``stem`` and ``tail``, and the stages,
    each a sequence of blocks. If its stem is not ``conv1``, ``bn1``, ``relu``,
    or modules follow the last stage, it overrides ``_forward_stem`` and
    ``_stage_output``.

    Args:
        stage_channels: Channels of each stage's output.
        out_indices: Stages whose output is returned, from 0; ``None`` for the
            last one. Stage i gives [B, stage_channels[i], H_i, W_i]; the
            sizes are given in the subclass.
        frozen_stages: -1 trains everything, 0 freezes the stem, k the stem
            and the first k stages (no gradient; norms in eval mode).
        norm_eval: Keep all batch norms in eval mode while training.
        with_cp: Recompute each block in the backward pass instead of keeping
            its activations. Batch norms then see a batch twice in their
            running statistics, and a tap records blocks, not stages
            (``layer3.2`` for ``layer3``).
        channels_last: Run in this memory format, shapes unchanged. Training
            is 1.3 to 1.8 times faster with it on a CPU; on a GPU it pays
            with mixed precision. Not under a detector's RoIAlign: MMCV's
            operator misreads such maps without a word.
        act_cfg: Activation; ``None`` for ReLU.
        stem_pool: 1, 2 or 4: pool the stem's output (3x3 maxima of stride 2,
            once or twice), so that all outputs have this many times the
            stride. For detectors and segmentors, whose images have more
            pixels than 32x32; the weights stay the same. A network without
            stem pools the images, by their mean.
        norm_cfg: Normalisation; ``None`` for batch norm.
        init_cfg: Initialisation, as in MMEngine; ``None`` leaves PyTorch's.

    Raises:
        ValueError: ``out_indices``, ``frozen_stages`` or ``stem_pool`` out of
            range.
    """

    # modules with weights before the first and after the last stage
    stem: tuple[str, ...] = ('conv1', 'bn1')
    tail: tuple[str, ...] = ()

    def __init__(self,
                 stage_channels: Sequence[int],
                 out_indices: Sequence[int] | None = None,
                 frozen_stages: int = -1,
                 norm_eval: bool = False,
                 with_cp: bool = False,
                 channels_last: bool = False,
                 stem_pool: int = 1,
                 act_cfg: dict | None = None,
                 norm_cfg: dict | None = None,
                 init_cfg: dict | Sequence[dict] | None = DEFAULT_INIT):
        if init_cfg is not None and not isinstance(init_cfg, dict):
            init_cfg = list(init_cfg)
        super().__init__(init_cfg)
        name = type(self).__name__
        self.num_stages = len(stage_channels)
        if out_indices is None:
            out_indices = (self.num_stages - 1, )
        elif isinstance(out_indices, int):
            out_indices = (out_indices, )
        allowed = tuple(range(self.num_stages))
        if not out_indices or any(i not in allowed for i in out_indices):
            raise ValueError(f'{name}: out_indices must be some of {allowed}, '
                             f'got {out_indices!r}')
        if frozen_stages not in (-1, 0, *(i + 1 for i in allowed)):
            raise ValueError(f'{name}: frozen_stages must be -1 (none), 0 '
                             f'(stem) or 1 to {self.num_stages}, got '
                             f'{frozen_stages!r}')
        if stem_pool not in POOLS:
            raise ValueError(f'{name}: stem_pool must be one of {POOLS}, got '
                             f'{stem_pool!r}')
        self.stem_pool = stem_pool
        self.out_indices = tuple(sorted(out_indices))
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.with_cp = with_cp
        self.channels_last = channels_last
        self.act_cfg = dict(DEFAULT_ACT if act_cfg is None else act_cfg)
        self.norm_cfg = dict(DEFAULT_NORM if norm_cfg is None else norm_cfg)
        self.out_channels = tuple(stage_channels[i] for i in self.out_indices)

    def activation(self) -> nn.Module:
        return build_activation_layer(self.act_cfg)

    @property
    def stages(self) -> tuple[nn.Module, ...]:
        return tuple(
            getattr(self, f'layer{i + 1}') for i in range(self.num_stages))

    def _forward_stem(self, x: Tensor) -> Tensor:
        return self.relu(self.bn1(self.conv1(x)))

    def _pool_stem(self, x: Tensor) -> Tensor:
        if not self.stem:  # these are the images
            return F.avg_pool2d(x, self.stem_pool, ceil_mode=True)
        for _ in range(self.stem_pool.bit_length() - 1):
            x = F.max_pool2d(x, 3, stride=2, padding=1)
        return x

    def _stage_output(self, index: int, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of images [B, 3, H, W], one for each out index."""
        if self.channels_last:
            # The layers follow the format of their input.
            x = x.contiguous(memory_format=torch.channels_last)
        x = self._forward_stem(x)
        if self.stem_pool > 1:
            x = self._pool_stem(x)
        outs = []
        for i, stage in enumerate(self.stages[:self.out_indices[-1] + 1]):
            if self.with_cp and torch.is_grad_enabled():
                for block in stage:  # type: ignore[attr-defined]
                    x = checkpoint(block, x, use_reentrant=False)
            else:
                # As a whole, so that a tap on the stage records it.
                x = stage(x)
            if i in self.out_indices:
                outs.append(self._stage_output(i, x))
        return tuple(outs)

    def _frozen_modules(self) -> list[nn.Module]:
        """The modules that ``frozen_stages`` names."""
        if self.frozen_stages < 0:
            return []
        tail = self.tail if self.frozen_stages == self.num_stages else ()
        return [
            *(getattr(self, name) for name in (*self.stem, *tail)),
            *self.stages[:self.frozen_stages]
        ]

    def _freeze(self) -> None:
        for module in self._frozen_modules():
            module.eval()
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> CifarBackbone:
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self
