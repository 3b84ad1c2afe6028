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

from mmengine.model import BaseModel
from torch import nn

from mmkd_rl.export.student import KNOWLEDGE_FLOW
from mmkd_rl.flow.knowledge_flow import KnowledgeFlow
from mmkd_rl.registry import MODELS
from mmkd_rl.tasks import BackboneTask
from mmkd_rl.teachers import TeacherPool
from mmkd_rl.teachers.loading import build_network
from mmkd_rl.utils.patches import patch_mmengine

#: ``teachers`` of a student inside a MultiTeacherDistiller.
FROM_DISTILLER = 'distiller'


@MODELS.register_module()
def KnowledgeFlowBackbone(  # noqa: N802, in a config it stands for a class
        student: dict,
        teachers: Sequence[dict] | str,
        links: str | Sequence[dict] = 'auto',
        fuse: str = 'input',
        student_weight: float | None = None,
        weight_gain: float = 1.,
        probe_size: int | Sequence[int] | None = None,
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
    if fuse not in ('input', 'output'):
        raise ValueError(f"fuse must be 'input' or 'output', got {fuse!r}")
    for name, value in (('student_weight', student_weight),
                        ('weight_gain', weight_gain)):
        if value is not None and not isinstance(value, (int, float)):
            raise TypeError(f'{name} must be a number, got {value!r}')
    if student_weight is not None and not 0 < student_weight < 1:
        raise ValueError('student_weight must be in (0, 1), got '
                         f'{student_weight}')
    if not weight_gain > 0:
        raise ValueError(f'weight_gain must be > 0, got {weight_gain}')
    if not isinstance(student, dict) or 'type' not in student:
        raise TypeError("student must be a backbone's config, a dict with a "
                        f'"type", got {student!r}')
    student = dict(student)
    if pretrained is not None:
        student['pretrained'] = pretrained
    patch_mmengine()
    backbone = build_network(student, None, 'student')
    if isinstance(backbone, BaseModel):
        raise TypeError(
            f'student: {type(backbone).__name__} is a whole model; give the '
            'config of its backbone, student={{_base_.model.backbone}}')
    if isinstance(backbone, nn.Sequential):
        raise TypeError(
            f'student: {type(backbone).__name__} is an nn.Sequential, which '
            'would run what is added to it as a layer; derive it from '
            'nn.Module')
    flow = KnowledgeFlow(backbone, links, fuse,
                         dict(student_weight=student_weight, gain=weight_gain),
                         probe_size)
    if teachers != FROM_DISTILLER:
        if isinstance(teachers, str):
            raise TypeError(f'teachers must be a list of dicts or '
                            f'{FROM_DISTILLER!r}, got {teachers!r}')
        flow.connect(TeacherPool(teachers, BackboneTask(),
                                 'model.backbone.teachers'))
    setattr(backbone, KNOWLEDGE_FLOW, flow)
    return backbone
