"""Knowledge Flow (Liu et al., ICLR 2019) for any backbone.

``KnowledgeFlowBackbone`` returns the student's backbone itself, with one more
child, ``knowledge_flow``, and forward hooks: one on the backbone, which runs
the teachers first, and one at each layer into which teachers' layers are
mixed. So all references to the backbone in configs, optimisers and checkpoints
stay valid: names of weights, ``out_indices``, ``init_cfg``, frozen stages,
layer-wise learning rates. A wrapper class would put ``student.`` into every
name.
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
        student: The backbone's config, as without Knowledge Flow.
        teachers: See :class:`TeacherPool`; ``'distiller'``: use the teachers
            of the :class:`MultiTeacherDistiller` that this student is in,
            which are run once for both methods.
        links: ``'auto'``, or see :func:`resolve_links`.
        fuse: ``'input'``: mix the inputs of the activations that layers end
            with, as the paper does (the output of a layer without one);
            ``'output'``: mix outputs.
        student_weight: Initial p_w of the student, in (0, 1); ``None``: all
            candidates of a layer start with the same weight.
        weight_gain: Factor by which p_w is learned faster than the other
            weights, see :class:`Fusion`.
        probe_size: Side, (H, W) or (C, H, W) of the images on which all
            networks are run once when the model is built. ``None``: the
            backbone's own ``input_shape`` or ``img_size``, else 64, or 224
            where that is too small.
        pretrained: Passed on to the student; MMSegmentation's and
            MMDetection's models set it on their backbone.

    Returns:
        The student's backbone. Its ``knowledge_flow`` is a
        :class:`KnowledgeFlow`.

    Raises:
        TypeError, ValueError, FileNotFoundError: A link, a layer, a teacher or
            an option is wrong.
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
