"""Knowledge Flow (Liu et al., ICLR 2019) for any backbone.

``KnowledgeFlowBackbone`` builds the student's backbone and returns just that,
with one more child, ``knowledge_flow``, and forward hooks: one before the
backbone runs (the teachers run first), one at each layer that teachers flow
into. So whatever a config, an optimiser or a checkpoint says about the
backbone goes on meaning the same: names of weights, ``out_indices``,
``init_cfg``, frozen stages, layer-wise learning rates. A wrapper class would
put ``student.`` into every name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from mmengine.model import BaseModel
from pydantic import Field
from torch import nn

from mmkd_rl.export.student import KNOWLEDGE_FLOW
from mmkd_rl.flow.knowledge_flow import KnowledgeFlow
from mmkd_rl.options import ConfigError, Count, Positive, checked
from mmkd_rl.registry import MODELS
from mmkd_rl.tasks import BackboneTask
from mmkd_rl.teachers import TeacherPool
from mmkd_rl.teachers.loading import build_network
from mmkd_rl.utils.patches import patch_mmengine


@MODELS.register_module()
@checked
def KnowledgeFlowBackbone(  # noqa: N802, in a config it stands for a class
        student: dict,
        teachers: Sequence[dict] | Literal['distiller'],
        links: Literal['auto'] | Sequence[dict] = 'auto',
        fuse: Literal['input', 'output'] = 'input',
        student_weight: Annotated[float, Field(gt=0, lt=1)] | None = None,
        weight_gain: Positive = 1.,
        probe_size: Count | Sequence[Count] | None = None,
        pretrained: str | None = None) -> nn.Module:
    """A backbone that learns from teachers' inner layers.

    Args:
        student: The backbone's config as it would stand here alone.
        teachers: See :class:`TeacherPool`; ``'distiller'``: those of the
            :class:`MultiTeacherDistiller` that this student is in, which are
            run once for both methods.
        links: ``'auto'``, or see :func:`resolve_links`.
        fuse: ``'input'``: mix what goes into the activation that a layer ends
            with, as the paper does (its output, where it ends with none);
            ``'output'``: mix outputs.
        student_weight: p_w of the student at the beginning, in (0, 1);
            ``None``: all candidates of a layer are equal.
        weight_gain: How much faster p_w is learned than the rest, see
            :class:`Fusion`.
        probe_size: Side, (H, W) or (C, H, W) of the images on which layers
            are looked at once when the model is built. ``None``: the
            backbone's own ``input_shape`` or ``img_size``, else 64, or 224
            where that is too small.
        pretrained: What MMSegmentation's and MMDetection's ``model`` of that
            name hands to its backbone; the student gets it.

    Returns:
        The student's backbone. Its ``knowledge_flow`` is a
        :class:`KnowledgeFlow`.

    Raises:
        TypeError, ValueError, FileNotFoundError: What is wrong with a link, a
            layer, a teacher or an option.
    """
    if 'type' not in student:
        raise ConfigError('student', "must be a backbone's config, a dict "
                          f'with a "type", got {student!r}')
    student = dict(student)
    if pretrained is not None:
        student['pretrained'] = pretrained
    patch_mmengine()
    backbone = build_network(student, None, 'student')
    if isinstance(backbone, BaseModel):
        raise ConfigError(
            'student', f'{type(backbone).__name__} is a whole model; give the '
            'config of its backbone, student={{_base_.model.backbone}}')
    if isinstance(backbone, nn.Sequential):
        raise ConfigError(
            'student', f'{type(backbone).__name__} is an nn.Sequential, which '
            'would run what is added to it as a layer; derive it from '
            'nn.Module')
    flow = KnowledgeFlow(backbone, links, fuse,
                         dict(student_weight=student_weight, gain=weight_gain),
                         probe_size)
    if not isinstance(teachers, str):
        flow.connect(TeacherPool(teachers, BackboneTask(),
                                 'model.backbone.teachers'))
    setattr(backbone, KNOWLEDGE_FLOW, flow)
    return backbone
