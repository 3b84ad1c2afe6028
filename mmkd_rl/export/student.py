"""Extracts the plain student from a run's checkpoint.

MMPretrain, MMDetection and MMSegmentation have the same names for the weights
of a backbone and read them with the prefix ``backbone.``; torchvision has
other names.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Literal, get_args

from torch import Tensor, nn

from mmkd_rl.export.description import data_facts, described
from mmkd_rl.utils.state_dicts import below, read_weights

Format = Literal['mmpretrain', 'mmdet', 'mmseg', 'torchvision']
FORMATS = get_args(Format)
#: Prefix of a student's weights in checkpoints of 0.1's first layout.
_STUDENT = 'student.'
#: Name of the distillation's child module in the student.
DISTILLATION = 'distillation'
#: Name of Knowledge Flow's child module in the student's backbone.
KNOWLEDGE_FLOW = 'knowledge_flow'


def export_student(checkpoint: Mapping, to: str = 'mmpretrain') -> dict:
    """Extract the student's weights.

    Args:
        checkpoint: Checkpoint of a distillation or of an ordinary training.
        to: ``'mmpretrain'``: the whole classifier; ``'mmdet'``, ``'mmseg'``:
            its backbone, for ``init_cfg=dict(type='Pretrained',
            checkpoint=..., prefix='backbone.')``; ``'torchvision'``: the whole
            classifier under torchvision's names (ResNet, ResNeXt and Wide
            ResNet).

    Returns:
        ``{'state_dict': {name: tensor}, 'meta': {...}}``, tensors and plain
        values only, with the names of the classes if they are known, so that
        ``torch.load(..., weights_only=True)`` reads it; for torchvision the
        bare ``{name: tensor}``, as its models load it.

    Raises:
        ValueError: The format is unknown, there are no weights or only
            LoRA's, or the format has no names for this network.
    """
    if to not in FORMATS:
        raise ValueError(f'--to must be one of {FORMATS}, got {to!r}')
    weights: dict[str, Tensor] = {
        n: t.detach().cpu().clone()
        for n, t in plain_student(
            read_weights(checkpoint, 'the checkpoint')).items()
        if not n.startswith('data_preprocessor.')
    }
    if lora := [n for n in weights if '.lora_' in n]:
        raise ValueError(
            f'the checkpoint holds matrices of LoRA ({lora[0]}, ...), which '
            'are nothing without the weights that they change; merge them '
            'into these first (W + scaling * up @ down) and save the whole '
            'model')
    if to in ('mmpretrain', 'torchvision') and not checkpoint.get(
            'meta') and not any(
            n.startswith('backbone.') for n in weights):
        raise ValueError(
            'this is not the checkpoint of a training with this tool or an '
            'OpenMMLab toolbox: it has no "meta", and no weight named '
            f'"backbone.*" (but {", ".join(list(weights)[:3])}, ...); '
            'tools/model_converters/convert.py renames those of torchvision '
            'and timm')
    if to == 'torchvision':
        return _torchvision(weights)
    if to in ('mmdet', 'mmseg'):
        weights = {
            n: t
            for n, t in weights.items() if n.startswith('backbone.')
        }
        if not weights:
            raise ValueError(
                f'--to {to}: the student has no backbone (no weight named '
                '"backbone.*"), so no detector or segmentor can take it')
    meta = checkpoint.get('meta') or {}
    return dict(state_dict=weights, meta=dict(
        format=to, by='mmkd_rl', **described(meta), **data_facts(meta)))


def check_whole(model: nn.Module) -> None:
    """Raise ValueError for a model whose checkpoints leave weights out, which
    a plain student would lack (LoRA saves only its own matrices)."""
    saved = {t.data_ptr() for t in model.state_dict(keep_vars=True).values()
             if isinstance(t, Tensor)}
    lacking = [n for n, p in model.named_parameters()
               if p.numel() and p.data_ptr() not in saved]
    if lacking:
        raise ValueError(
            f"the student's checkpoints leave out {len(lacking)} of its "
            f'weights ({lacking[0]}, ...), so no plain student can be written '
            'from them; train the whole network, or remove StudentExportHook '
            'and merge its weights yourself')


def plain_copy(model: nn.Module) -> nn.Module:
    """A copy of a student's model without its distillation."""
    own = copy.deepcopy(model)
    distillation = getattr(own, DISTILLATION, None)
    if distillation is not None:
        distillation.detach(own)
    return own


def plain_student(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A student's weights under its own names, without prefixes that wrappers
    and trainers add, and without those of distillation and Knowledge Flow."""
    state = below(state, 'backbone.')
    first_layout = {
        n[len(_STUDENT):]: t
        for n, t in state.items() if n.startswith(_STUDENT)
    }
    return {
        n: t
        for n, t in (first_layout or state).items()
        if not n.startswith(f'{DISTILLATION}.')
        and KNOWLEDGE_FLOW not in n.split('.')
    }


def _torchvision(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """MMPretrain's ResNet differs from torchvision's in two prefixes only."""
    if not any(n.startswith(('backbone.', 'head.')) for n in weights):
        return weights  # of a TorchVisionClassifier, with the right names
    pattern = re.compile(
        r'(backbone\.((conv1|bn1)\.|layer[1-4]\.\d+\.(conv|bn|downsample)[^.]*'
        r'\.)|head\.fc\.)')
    strangers = [n for n in weights if not pattern.match(n)]
    stem = weights.get('backbone.conv1.weight')
    if strangers or stem is None or stem.shape[-1] != 7 or \
            'backbone.layer4.0.conv1.weight' not in weights:
        what = f'it has {strangers[0]!r}' if strangers else \
            'its stem or stages are not those of an ImageNet ResNet'
        raise ValueError(
            '--to torchvision: only ResNet, ResNeXt and Wide ResNet have the '
            f'same structure there; {what}. Use --to mmpretrain')
    return {
        n.removeprefix('backbone.').replace('head.fc.', 'fc.'): t
        for n, t in weights.items()
    }
