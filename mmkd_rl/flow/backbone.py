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

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmkd_rl.flow.fusion import STUDENT, Candidate, Fusion
from mmkd_rl.flow.links import Link, resolve_links
from mmkd_rl.flow.losses import dependency_loss, handover_gap
from mmkd_rl.flow.trace import Trace
from mmkd_rl.flow.transform import Layout
from mmkd_rl.registry import MODELS
from mmkd_rl.taps import Tap
from mmkd_rl.teachers.features import FeaturePool
from mmkd_rl.teachers.lent import LentFeatures
from mmkd_rl.teachers.loading import build_network
from mmkd_rl.teachers.normalization import Normalization
from mmkd_rl.teachers.pool import TeacherPool
from mmkd_rl.utils.originals import Original

#: The name of the child; what the export takes out.
CHILD = 'knowledge_flow'
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
        teachers: See :class:`FeaturePool`; ``'distiller'``: those of the
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
    backbone = build_network(student, None, 'student')
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
        flow.connect(FeaturePool(teachers))
    setattr(backbone, CHILD, flow)
    return backbone


def flow_of(model: nn.Module) -> KnowledgeFlow:
    """The knowledge flow somewhere in a model.

    Raises:
        ValueError: There is none, or more than one.
    """
    found = [m for m in model.modules() if isinstance(m, KnowledgeFlow)]
    if len(found) != 1:
        raise ValueError(
            f'{type(model).__name__} has {len(found)} backbones of type '
            "'mmkd_rl.KnowledgeFlowBackbone', it must have one: "
            "backbone=dict(type='mmkd_rl.KnowledgeFlowBackbone', "
            'student=dict(...), teachers=[...])')
    return found[0]


class KnowledgeFlow(nn.Module):
    """Q, w and the schedule's state of one student backbone.

    Args:
        backbone: The student's; hooks are put on it.
        links, fuse, probe_size: See :func:`KnowledgeFlowBackbone`.
        fusion: Options of each :class:`Fusion`.

    Attributes:
        strength: a, see fusion.py; ``None`` until somebody (KnowledgeFlowHook)
            sets it, without which training would never end alone.
        fuse_in_eval: Mix when the student predicts, too.
    """

    active: Tensor

    def __init__(self, backbone: nn.Module, links: str | Sequence[dict],
                 fuse: str, fusion: dict[str, Any],
                 probe_size: int | Sequence[int] | None) -> None:
        super().__init__()
        self.strength: float | None = None
        self.fuse_in_eval = False
        self.fusions: Sequence[Fusion] = \
            nn.ModuleList()  # type: ignore[assignment]
        self._links, self._fuse = links, fuse
        self._fusion, self._probe_size = fusion, probe_size
        # Plain attributes: neither the student nor the teachers are children.
        self._source: FeaturePool | LentFeatures | None = None
        self._backbone: Callable[[], nn.Module] = partial(_self, backbone)
        self._mixers: list[_Mixer] = []
        self._places: list[str] = []  # for the table
        self._active: list[bool] = []
        self._is_original: Original | None = Original()
        backbone.register_forward_pre_hook(self._begin, with_kwargs=True)
        backbone.register_forward_hook(self._check)

    # ------------------------------------------------------------- building

    @property
    def waits_for_teachers(self) -> bool:
        """Whether a distiller has yet to lend its teachers."""
        return self._source is None

    def borrow(self, pool: TeacherPool) -> None:
        """Take the teachers of a distiller."""
        self.connect(LentFeatures(pool))

    def connect(self, source: FeaturePool | LentFeatures) -> None:
        """Look at all layers once, resolve the links and make Q and w.

        Raises:
            ValueError: See :func:`resolve_links`; or a layer that no Q can
                join.
        """
        for name in source.names:
            if name == STUDENT or ':' in name:
                raise ValueError(
                    f'teacher {name!r}: the name must not be {STUDENT!r} nor '
                    'have a ":", in logs it would be taken for something else')
        images, student, teachers = self._look(source)
        links = resolve_links(self._links, student, teachers, self._fuse)
        slots: list[list[Tap]] = [[] for _ in source.names]
        for link in links:
            self._add(link, slots, source, images)
        source.listen(slots)
        self._source = source
        self._active = [True] * len(source.names)
        self.register_buffer('active', torch.tensor(self._active))
        print_log(f'knowledge flow (fuse={self._fuse!r}):\n{self.table()}',
                  'current')

    def _look(self, source: FeaturePool | LentFeatures
              ) -> tuple[Tensor, Trace, dict[str, Trace]]:
        """A forward pass of each network on the smallest images on which all
        of them can run.

        Raises:
            ValueError: There are none.
        """
        backbone = self._backbone()
        shapes = _shapes(backbone, self._probe_size)
        for shape in shapes:
            images = torch.zeros(2, *shape)
            try:
                return images, _trace(backbone, images), {
                    name: Trace(network, partial(source.run, m, images),
                                f'teacher {name!r}')
                    for m, (name, network) in enumerate(
                        zip(source.names, source.networks))}
            except (RuntimeError, AssertionError, ValueError) as error:
                if shape is shapes[-1]:
                    raise ValueError(
                        f'{error} (layers are looked at on images of shape '
                        f'{shape}; probe_size=SIDE or (C, H, W) says '
                        'another)') from error
        raise AssertionError

    def _add(self, link: Link, slots: list[list[Tap]],
             source: FeaturePool | LentFeatures, images: Tensor) -> None:
        backbone, size = self._backbone(), _image_size(images)
        candidates = []
        for m, point in link.teachers:
            network = source.networks[m]
            slots[m].append(
                Tap(network, point.path, point.source, point.call,
                    -1 if point.index is None else point.index,
                    f'teacher {source.names[m]!r}', point.overwritten))
            candidates.append(
                Candidate(
                    m, f'{source.names[m]}:{point.layer}',
                    len(slots[m]) - 1,
                    Layout.of(point.tensor,
                              f'layer {point.layer!r} of teacher '
                              f'{source.names[m]!r}', _extra(network), size,
                              source.input_sizes[m], len(images))))
        fusion = Fusion(
            link.student.layer,
            Layout.of(link.student.tensor,
                      f'layer {link.student.layer!r} of the student',
                      _extra(backbone), size, None, len(images)), candidates,
            **self._fusion)
        self.fusions.append(fusion)  # type: ignore[attr-defined]
        mixer = _Mixer(link.student.call, link.student.calls,
                       link.student.index, fusion)
        self._mixers.append(mixer)
        self._places.append(
            f'before {link.student.path}'
            if link.student.source == 'input' else 'at its output')
        module = backbone.get_submodule(link.student.path)
        if link.student.source == 'input':
            module.register_forward_pre_hook(mixer.mix_input)
        else:
            module.register_forward_hook(mixer.mix_output)

    def table(self) -> str:
        """Which layers are linked, as text."""
        assert self._source is not None
        rows = [('student', 'mixed', 'shape', 'teacher', 'shape',
                 'entries of Q')]
        for fusion, place in zip(self.fusions, self._places):
            for candidate, q in zip(fusion.candidates, fusion.transforms):
                rows.append((fusion.name, place, str(fusion.layout),
                             candidate.name,
                             str(candidate.layout),
                             f'{sum(p.numel() for p in q.parameters()):,}'))
        widths = [max(map(len, column)) for column in zip(*rows)]
        return '\n'.join('  '.join(
            cell.ljust(w) for cell, w in zip(row, widths)).rstrip()
            for row in rows)

    # ----------------------------------------------------- a forward pass

    def _begin(self, backbone: nn.Module, args: tuple, kwargs: dict) -> None:
        """Before the student runs: run the teachers, hand out what they
        say."""
        self.forget_mixture()
        if self._source is None and backbone.training:
            raise RuntimeError(
                "KnowledgeFlowBackbone(teachers='distiller') is trained "
                'outside of a MultiTeacherDistiller, which would lend it '
                'teachers; give it teachers=[dict(...)] of its own')
        if self._source is None or self.independent or not (
                self.training or self.fuse_in_eval):
            return
        if self.strength is None:
            raise RuntimeError(
                'a KnowledgeFlowBackbone is trained without a schedule, so '
                'its student would never end alone; add custom_hooks=['
                "dict(type='mmkd_rl.KnowledgeFlowHook')], or set "
                'flow_of(model).strength yourself')
        if self.strength == 0:
            return
        images = args[0] if args else next(iter(kwargs.values()))
        features = self._source(images, self._active)
        size = _image_size(images)
        for mixer, weights in zip(self._mixers, self.weights()):
            mixer.begin([
                features[c.teacher][c.slot] if self._active[c.teacher] else
                None for c in mixer.fusion.candidates], weights, size)

    def _check(self, backbone: nn.Module, args: tuple, output: Any) -> None:
        """Behind the student: nobody was passed over."""
        for mixer in self._mixers:
            if mixer.missed:
                raise RuntimeError(
                    f'layer {mixer.fusion.name!r} of the student runs when '
                    'the model is built, and not in training (as stages of '
                    'which the blocks are recomputed, with_cp=True); link '
                    'one that does, as the last block in it')

    def forget_mixture(self) -> None:
        """Let go of this student's share of the last batch."""
        for mixer in self._mixers:
            mixer.begin(None)

    def forget(self) -> None:
        """Let go of the last batch's features, for all copies. Not done when
        the student has run: activation checkpointing runs it again in the
        backward pass."""
        self.forget_mixture()
        if self._source is not None:
            self._source.forget()

    # -------------------------------------------------------- who is trusted

    @property
    def source(self) -> FeaturePool | LentFeatures:
        """Who runs the teachers; there must be some by now."""
        assert self._source is not None
        return self._source

    @property
    def teacher_names(self) -> tuple[str, ...]:
        """All, in order."""
        return () if self._source is None else self._source.names

    @property
    def active_teachers(self) -> tuple[str, ...]:
        """Those that still take part."""
        return tuple(n for n, on in zip(self.teacher_names, self._active)
                     if on)

    @property
    def independent(self) -> bool:
        """Whether the student is alone."""
        return not any(self._active)

    @property
    def layers(self) -> tuple[str, ...]:
        """The student's layers that teachers may flow into."""
        return tuple(f.name for f in self.fusions)

    @property
    def candidates(self) -> tuple[tuple[str, ...], ...]:
        """Of each layer: ``'student'``, then ``'TEACHER:LAYER'``."""
        return tuple(f.names for f in self.fusions)

    def weights(self) -> list[Tensor]:
        """What each layer is mixed with now, [1 + candidates] each, the
        student first; they sum to one."""
        strength = 1. if self.strength is None else self.strength
        return [f.weights(self._active, strength) for f in self.fusions]

    def dependency(self) -> Tensor:
        """Eq. (5) of p_w, without the schedule's strength."""
        return dependency_loss(
            f.log_weights(self._active) for f in self.fusions)

    def watch_gaps(self, on: bool = True) -> None:
        """Whether :meth:`handover` will be asked for."""
        for mixer in self._mixers:
            mixer.watches_gap = on

    def handover(self) -> Tensor:
        """Mean over the layers of :func:`handover_gap` in the last forward
        pass, with the student's gradient; 0 where it was alone."""
        gaps = [m.gap for m in self._mixers if m.gap is not None]
        return torch.stack(gaps).mean() if gaps else torch.zeros(
            (), device=self.active.device)

    def retire(self, names: Iterable[str]) -> None:
        """Teachers that take part no longer; their weights are zero from now
        on, and those of our own are not run.

        Args:
            names: They; a name twice or gone already does no harm.
        """
        for name in names:
            self._active[self.teacher_names.index(name)] = False
        self.active.copy_(torch.tensor(self._active))

    def weak_teachers(self, threshold: float) -> list[str]:
        """Active teachers whose weights are below the threshold everywhere.

        Makes the host wait for the device.
        """
        largest = dict.fromkeys(self.active_teachers, 0.)
        for fusion, row in zip(self.fusions, self.weights()):
            for candidate, p in zip(fusion.candidates, row[1:].tolist()):
                name = self.teacher_names[candidate.teacher]
                if name in largest:
                    largest[name] = max(largest[name], p)
        return [name for name, p in largest.items() if p < threshold]

    # -------------------------------------------------- as part of a module

    def set_normalization(self, normalization: Normalization | None) -> None:
        """Say what the student's images are normalised with."""
        if self._source is not None:
            self._source.adapt(normalization)

    def _apply(self, fn: Callable, recurse: bool = True):
        """Move the teachers along; they are not in the tree."""
        super()._apply(fn, recurse)
        if self._is_original is not None and self._source is not None:
            self._source.apply_(fn)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if self._source is not None:
            gone = [n for n, on in zip(self.teacher_names,
                                       self.active.tolist()) if not on]
            self._active = [True] * len(self._active)
            self.retire(gone)


class _Mixer:
    """The hook on one module of the student.

    It stands there for good and does nothing without features: what
    activation checkpointing runs a second time must be mixed a second time.

    Args:
        call: Which call of the module is meant.
        calls: How many there are in one forward pass.
        index: Element of a tuple that it gives.
        fusion: Does the work.
    """

    def __init__(self, call: int, calls: int, index: int | None,
                 fusion: Fusion) -> None:
        self.call, self.calls, self.index = call, calls, index
        self.fusion = fusion
        #: Whether to note how far the student is from the mixture.
        self.watches_gap = False
        self.begin(None)

    def begin(self, features: Sequence[Tensor | None] | None,
              weights: Tensor | None = None,
              image: tuple[int, int] | None = None) -> None:
        """A forward pass of the student begins; ``None``: it is alone."""
        self._features, self._weights, self._image = features, weights, image
        self._count = 0
        self.gap: Tensor | None = None

    @property
    def missed(self) -> bool:
        """Whether there are features that nothing was mixed with."""
        return self._features is not None and self._count <= self.call

    def __getstate__(self) -> dict:
        """A copy has seen no batch."""
        return {**self.__dict__, '_features': None, '_weights': None,
                'gap': None}

    def mix_input(self, module: nn.Module, args: tuple) -> tuple | None:
        """Before an activation."""
        return (self._mix(args[0]), *args[1:]) if self._turn() else None

    def mix_output(self, module: nn.Module, args: tuple, output: Any) -> Any:
        """Behind a module."""
        if not self._turn():
            return None
        if self.index is None:
            return self._mix(output)
        values = list(output)
        values[self.index] = self._mix(values[self.index])
        return type(output)(values)

    def _turn(self) -> bool:
        if self._features is None:
            return False
        count, self._count = self._count, self._count + 1
        return count % self.calls == self.call

    def _mix(self, own: Tensor) -> Tensor:
        assert self._features is not None and self._weights is not None
        mixed = self.fusion(own, self._features, self._weights, self._image)
        if self.watches_gap:
            self.gap = handover_gap(own, mixed)
        return mixed


def _self(module: nn.Module) -> nn.Module:
    return module


@torch.no_grad()
def _trace(backbone: nn.Module, images: Tensor) -> Trace:
    """The student's forward pass.

    Raises:
        ValueError: It cannot run on these images.
    """
    training = backbone.training
    backbone.eval()
    try:
        return Trace(backbone, partial(backbone, images), 'student')
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(
            f'student: {type(backbone).__name__} fails on images of shape '
            f'{tuple(images.shape)}: {error}') from error
    finally:
        backbone.train(training)


def _shapes(backbone: nn.Module, size: int | Sequence[int] | None
            ) -> list[tuple[int, ...]]:
    first = next((p for p in backbone.parameters() if p.ndim == 4), None)
    channels = 3
    if first is not None:
        groups = next((m.groups for m in backbone.modules()
                       if isinstance(m, nn.Conv2d)), 1)
        channels = first.shape[1] * groups
    if size is None:
        size = getattr(backbone, 'input_shape',
                       getattr(backbone, 'img_size', None))
    if size is None:
        return [(channels, 64, 64), (channels, 224, 224)]
    pair = (size, ) * 2 if isinstance(size, int) else size
    if not isinstance(pair, (tuple, list)) or len(pair) not in (2, 3) or \
            not all(isinstance(n, int) and n > 0 for n in pair):
        raise ValueError('probe_size must be a side, (H, W) or (C, H, W), got '
                         f'{size!r}')
    return [(channels, *pair)[-3:]]


def _extra(network: nn.Module) -> int | None:
    """Tokens without a place, where the network says how many."""
    for name in ('num_extra_tokens', 'num_prefix_tokens'):
        for module in (network, getattr(network, 'model', None)):
            if isinstance(getattr(module, name, None), int):
                return getattr(module, name)
    return None


def _image_size(images: Tensor) -> tuple[int, int] | None:
    return (images.shape[2], images.shape[3]) if images.ndim == 4 else None
