"""The child module that mixes teachers' layers into a student's backbone.

:class:`KnowledgeFlow` is the backbone's child ``knowledge_flow``. It has Q and
w of each linked layer, knows which teachers are active, and has the hooks that
run the teachers before the student and mix their layers in.
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
from mmkd_rl.flow.losses import dependency_loss
from mmkd_rl.flow.mixer import Mixer
from mmkd_rl.flow.probe import extra_tokens, image_size, look_at
from mmkd_rl.flow.transform import Layout
from mmkd_rl.taps import Tap
from mmkd_rl.teachers.normalization import Normalization
from mmkd_rl.teachers.pool import TeacherBorrower, TeacherPool
from mmkd_rl.utils.originals import Original

#: For each teacher, the tensors of its linked layers.
Features = tuple[tuple[Tensor, ...], ...]


def flow_of(model: nn.Module) -> KnowledgeFlow:
    """Return the only knowledge flow in a model.

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


class KnowledgeFlow(TeacherBorrower):
    """Q, w and the schedule's state of one student backbone.

    Args:
        backbone: The student's backbone; hooks are registered on it.
        links, fuse, probe_size: See :func:`KnowledgeFlowBackbone`.
        fusion: Options of each :class:`Fusion`.

    Attributes:
        strength: a, see fusion.py; ``None`` until KnowledgeFlowHook or other
            code sets it. Training without a value is refused, because the
            teachers would never be withdrawn.
        fuse_in_eval: Whether teachers are also mixed in in evaluation mode.
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
        self._pool: TeacherPool | None = None
        #: Whether the teachers belong to a distiller, which normalises their
        #: images and moves them between devices.
        self.borrowed = False
        #: Teachers' features that :meth:`lend` has given for the next
        #: forward pass of the backbone in training.
        self._lent: Features | None = None
        #: Teachers' features of the backbone's first forward pass since
        #: :meth:`forget`; ``None``: no pass has used the teachers.
        self.first_features: Features | None = None
        self._backbone: Callable[[], nn.Module] = partial(_self, backbone)
        self._mixers: list[Mixer] = []
        self._places: list[str] = []  # for the table
        self._active: list[bool] = []
        self._is_original: Original | None = Original()
        backbone.register_forward_pre_hook(self._begin, with_kwargs=True)
        backbone.register_forward_hook(self._check)

    # ------------------------------------------------------------- building

    @property
    def waits_for_teachers(self) -> bool:
        """Whether no teachers have been connected yet."""
        return self._pool is None

    @property
    def wants_features(self) -> bool:
        """Whether teachers' features are mixed in when the student is trained
        next."""
        return not (self.independent or self.strength == 0)

    def borrow(self, pool: TeacherPool) -> None:
        """Take the teachers of a distiller."""
        self.connect(pool)
        self.borrowed = True

    def lend(self, features: Features | None) -> None:
        """Set the teachers' features for the backbone's next training pass,
        in which the teachers are then not run.

        In evaluation mode the teachers are run, because the images may differ.

        Args:
            features: One tensor for each tapped layer of each teacher;
                ``None``: clear the features given before.
        """
        self._lent = features

    @property
    def lent_by_distiller(self) -> Features | None:
        """Features that a distiller has set with :meth:`lend` for the next
        forward pass; ``None``: there are none, or the teachers do not belong
        to a distiller."""
        return self._lent if self.borrowed else None

    def connect(self, pool: TeacherPool) -> None:
        """Run all networks once, resolve the links and make Q and w.

        Args:
            pool: The teachers.

        Raises:
            ValueError: See :func:`resolve_links`; or the tensor of a layer
                cannot be mixed, see :meth:`Layout.of`.
        """
        for name in pool.names:
            if name == STUDENT or ':' in name:
                raise ValueError(
                    f"teacher {name!r}: a teacher's name must not be "
                    f"{STUDENT!r} and must not contain ':', because names of "
                    'logged weights are built with both')
        images, student, teachers = look_at(self._backbone(), pool,
                                            self._probe_size)
        links = resolve_links(self._links, student, teachers, self._fuse)
        slots: list[list[Tap]] = [[] for _ in pool.names]
        for link in links:
            self._add(link, slots, pool, images)
        pool.listen(slots)
        self._pool = pool
        self._active = [True] * len(pool)
        self.register_buffer('active', torch.tensor(self._active))
        print_log(f'knowledge flow (fuse={self._fuse!r}):\n{self.table()}',
                  'current')

    def _add(self, link: Link, slots: list[list[Tap]],
             pool: TeacherPool, images: Tensor) -> None:
        backbone, size = self._backbone(), image_size(images)
        candidates = []
        for m, point in link.teachers:
            teacher = pool[m]
            slots[m].append(
                Tap(teacher.root, point.path, point.source, point.call,
                    -1 if point.index is None else point.index,
                    f'teacher {teacher.name!r}', point.overwritten))
            candidates.append(
                Candidate(
                    m, f'{teacher.name}:{point.layer}',
                    len(slots[m]) - 1,
                    Layout.of(point.tensor,
                              f'layer {point.layer!r} of teacher '
                              f'{teacher.name!r}', extra_tokens(teacher.root),
                              size, teacher.input_size, len(images))))
        fusion = Fusion(
            link.student.layer,
            Layout.of(link.student.tensor,
                      f'layer {link.student.layer!r} of the student',
                      extra_tokens(backbone), size, None, len(images)),
            candidates, **self._fusion)
        self.fusions.append(fusion)  # type: ignore[attr-defined]
        mixer = Mixer(link.student.call, link.student.calls,
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
        """The linked layers as a text table."""
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
        """Hook before the student's forward pass: run the teachers and give
        their features to the mixers."""
        self.forget_mixture()
        if self._pool is None and backbone.training:
            raise RuntimeError(
                "KnowledgeFlowBackbone(teachers='distiller') uses the "
                'teachers of a MultiTeacherDistiller, but it is trained '
                'outside of one; give it teachers=[dict(...)] of its own')
        if self._pool is None or self.independent or not (
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
        features = self._ask(images)
        size = image_size(images)
        for mixer, weights in zip(self._mixers, self.weights()):
            mixer.begin([
                features[c.teacher][c.slot] if self._active[c.teacher] else
                None for c in mixer.fusion.candidates], weights, size)

    def _ask(self, images: Tensor) -> Features:
        """Teachers' features of the backbone's images: those set by
        :meth:`lend`, or else the teachers are run."""
        lent, self._lent = self._lent, None
        features = lent if lent is not None and self.training else \
            self.pool.inner(images, self._active)
        if self.first_features is None:
            self.first_features = features
        return features

    def _check(self, backbone: nn.Module, args: tuple, output: Any) -> None:
        """Hook after the student's forward pass: check that each mixed layer
        ran."""
        for mixer in self._mixers:
            if mixer.missed:
                raise RuntimeError(
                    f'layer {mixer.fusion.name!r} of the student ran when '
                    'the model was built, but not in training. (With '
                    "with_cp=True a stage's blocks are run, and not the "
                    'stage itself.) Link a layer that runs in training, such '
                    'as the last block of the stage')

    def forget_mixture(self) -> None:
        """Drop the mixed features of the last batch."""
        for mixer in self._mixers:
            mixer.begin(None)

    def forget(self) -> None:
        """Drop the last batch's features. Not called directly after the
        student's forward pass: activation checkpointing runs parts of it again
        in the backward pass."""
        self.forget_mixture()
        self._lent = self.first_features = None

    # ------------------------------------------------- teachers and weights

    @property
    def pool(self) -> TeacherPool:
        """The teachers, after :meth:`connect`."""
        assert self._pool is not None
        return self._pool

    @property
    def teacher_names(self) -> tuple[str, ...]:
        """Names of all teachers, in order."""
        return () if self._pool is None else self._pool.names

    @property
    def active_teachers(self) -> tuple[str, ...]:
        """Names of the teachers that have not been retired."""
        return tuple(n for n, on in zip(self.teacher_names, self._active)
                     if on)

    @property
    def independent(self) -> bool:
        """Whether the student is alone."""
        return not any(self._active)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the student's layers into which teachers are mixed."""
        return tuple(f.name for f in self.fusions)

    @property
    def candidates(self) -> tuple[tuple[str, ...], ...]:
        """Candidates of each layer: ``'student'``, ``'TEACHER:LAYER'``, ..."""
        return tuple(f.names for f in self.fusions)

    def weights(self) -> list[Tensor]:
        """Current weights p' of each layer, [1 + candidates] each, the student
        first; each sums to one."""
        strength = 1. if self.strength is None else self.strength
        return [f.weights(self._active, strength) for f in self.fusions]

    def dependency(self) -> Tensor:
        """Dependency loss of Eq. (5), of p_w without the strength."""
        return dependency_loss(
            f.log_weights(self._active) for f in self.fusions)

    def watch_gaps(self, on: bool = True) -> None:
        """Set whether the layers compute gaps for :meth:`handover`."""
        for mixer in self._mixers:
            mixer.watches_gap = on

    def handover(self) -> Tensor:
        """Mean over the layers of :func:`handover_gap` in the last forward
        pass times :meth:`Fusion.trust`, with the student's gradient; 0 if no
        teachers were mixed in."""
        gaps = [m.fusion.trust(self._active) * m.gap for m in self._mixers
                if m.gap is not None]
        return torch.stack(gaps).mean() if gaps else torch.zeros(
            (), device=self.active.device)

    def retire(self, names: Iterable[str]) -> None:
        """Retire teachers: their weights are zero from now on, and they are no
        longer run unless a distiller runs them.

        Args:
            names: Names of the teachers to retire; repeated names and names
                of teachers that are retired already have no effect.
        """
        for name in names:
            self._active[self.teacher_names.index(name)] = False
        self.active.copy_(torch.tensor(self._active))

    def weak_teachers(self, threshold: float) -> list[str]:
        """Active teachers with weights below the threshold in all layers.

        Synchronises with the device.
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
        """Set the normalisation of the student's images."""
        if self._pool is not None and not self.borrowed:
            self._pool.adapt(normalization)

    def _apply(self, fn: Callable, recurse: bool = True):
        """Also move the teachers, which are not in the module tree."""
        super()._apply(fn, recurse)
        if self._is_original is not None and self._pool is not None and \
                not self.borrowed:
            self._pool.apply_(fn)
        return self

    def __getstate__(self) -> dict:
        """Leave the features of the last batch out of copies."""
        return {**self.__dict__, '_lent': None, 'first_features': None}

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if self._pool is not None:
            gone = [n for n, on in zip(self.teacher_names,
                                       self.active.tolist()) if not on]
            self._active = [True] * len(self._active)
            self.retire(gone)


def _self(module: nn.Module) -> nn.Module:
    return module
