"""Teachers whose inner layers are read: backbones of any task.

What a network was trained for does not matter here, so of a classifier, a
detector or a segmentor only the backbone is built, loaded and run. As in
pool.py they are no part of any module tree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmkd_rl.taps import Tap
from mmkd_rl.teachers.loading import (
    UNTRAINED,
    build_network,
    check_teachers,
    init_untrained,
    input_size,
    load_model_config,
    load_weights,
    offline,
    read_checkpoint,
    require_checkpoints,
)
from mmkd_rl.teachers.normalization import InputAdapter, Normalization
from mmkd_rl.teachers.sources import expand

_KEYS = {'name', 'config', 'checkpoint', 'normalization', 'input_size'}
#: What a preprocessor is that does not say so, by package.
_PREPROCESSORS = dict(
    mmpretrain='mmpretrain.ClsDataPreprocessor',
    mmdet='mmdet.DetDataPreprocessor',
    mmseg='mmseg.SegDataPreProcessor')


class FeatureTeacher(nn.Module):
    """A frozen network of which some layers are read.

    Args:
        name: In configs, logs and messages.
        network: A backbone, or a whole model that has none.
        normalization: What it was trained with; ``None``: as the student.
        size: (H, W) of the images that it needs; ``None``: as they come.
    """

    def __init__(self, name: str, network: nn.Module,
                 normalization: Normalization | None,
                 size: tuple[int, int] | None) -> None:
        super().__init__()
        self.name, self.network = name, network
        self._normalization, self._size = normalization, size
        self._taps: tuple[Tap, ...] = ()
        self.adapt(normalization)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FeatureTeacher:
        """A teacher stays in eval."""
        return super().train(False)

    def adapt(self, student: Normalization | None) -> None:
        """Say what the images that come are normalised with."""
        device = next((p.device for p in self.network.parameters()), None)
        self.adapter = InputAdapter(student, self._normalization,
                                    self._size).to(device)

    def listen(self, taps: Sequence[Tap]) -> None:
        """What :meth:`forward` shall read."""
        self._taps = tuple(taps)

    @torch.no_grad()
    def run(self, images: Tensor) -> None:
        """One forward pass on the student's images.

        Raises:
            ValueError: It cannot run on them.
        """
        images = self.adapter(images)
        try:
            if hasattr(self.network, 'data_preprocessor'):
                self.network(images, mode='tensor')
            else:
                self.network(images)
        except (RuntimeError, AssertionError, ValueError) as error:
            raise ValueError(
                f'teacher {self.name!r} fails on images of shape '
                f'{tuple(images.shape)}: {error}; if it needs another size, '
                'give it input_size=...') from error

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """One tensor a tap, without gradient."""
        listeners = [tap.listen(self.network) for tap in self._taps]
        try:
            self.run(images)
        finally:
            for listener in listeners:
                listener.stop()
        return tuple(listener.tensor() for listener in listeners)


class FeaturePool:
    """Frozen backbones.

    Args:
        teachers: One dict a teacher: ``name``; ``config``: a path,
            ``'package::path'``, a model's or a backbone's config;
            ``checkpoint``: file or URL of the backbone or of the whole model,
            or ``'untrained'``; ``normalization`` and ``input_size`` as in
            :class:`TeacherPool`, optional.

    Raises:
        ValueError, TypeError, FileNotFoundError: Whatever is wrong with one
            of them; the message says which.
    """

    def __init__(self, teachers: Sequence[dict]) -> None:
        self.names = check_teachers(teachers, _KEYS)
        require_checkpoints(teachers, 'model.backbone.teachers')
        self._teachers = tuple(
            _build(cfg, name) for cfg, name in zip(teachers, self.names))
        self._looked_at: set[str] = set()

    def __deepcopy__(self, memo: dict) -> FeaturePool:
        """Copies of a student (EMA makes one) share its teachers."""
        return self

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """What layers' paths are relative to."""
        return tuple(t.network for t in self._teachers)

    @property
    def input_sizes(self) -> tuple[tuple[int, int] | None, ...]:
        """(H, W) that images are brought to, for each teacher; ``None``: as
        they come."""
        return tuple(t.adapter.input_size for t in self._teachers)

    def run(self, index: int, images: Tensor) -> None:
        """One forward pass of one teacher, for whoever listens to it."""
        self._teachers[index].run(images)

    def listen(self, taps: Sequence[Sequence[Tap]]) -> None:
        """What :meth:`__call__` shall return of each teacher."""
        for teacher, own in zip(self._teachers, taps):
            teacher.listen(own)

    def adapt(self, student: Normalization | None) -> None:
        """Say what the images that come are normalised with."""
        for teacher in self._teachers:
            teacher.adapt(student)

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """What ``nn.Module._apply`` does to the tree: device, precision."""
        for teacher in self._teachers:
            teacher._apply(fn)

    def __call__(self, images: Tensor, active: Sequence[bool]
                 ) -> tuple[tuple[Tensor, ...], ...]:
        """Layers of each teacher; nothing of those that are not active, which
        are not run.

        Raises:
            FloatingPointError: A teacher's first batch is not finite.
        """
        given = tuple(
            teacher(images) if on else ()
            for teacher, on in zip(self._teachers, active))
        for name, features in zip(self.names, given):
            self._look(name, features)
        return given

    def _look(self, name: str, features: tuple[Tensor, ...]) -> None:
        """The first batch only: looking makes the host wait."""
        if name in self._looked_at or not features:
            return
        self._looked_at.add(name)
        if not all(bool(f.isfinite().all()) for f in features):
            raise FloatingPointError(
                f'teacher {name!r} gives NaN or infinite features; look at '
                'its checkpoint, its normalization and, with mixed '
                'precision, its range')


def _build(cfg: dict, name: str) -> FeatureTeacher:
    key = f'teacher {name!r}'
    cfg = expand(cfg, key)
    if 'config' not in cfg:
        raise ValueError(f'{key} has no config; give a path, "package::path" '
                         'or a dict')
    path = cfg.get('checkpoint')
    if not isinstance(path, str) or not path:
        raise ValueError(
            f'{key} has no checkpoint (got {path!r}); give a file or a URL, '
            f'or checkpoint={UNTRAINED!r} if that is what you want')
    # Read before anything large is built: a wrong path is found at once.
    weights = None if path == UNTRAINED else read_checkpoint(
        path, f'{key}: checkpoint')
    model_cfg, scope = load_model_config(cfg['config'], f'{key}: config')
    backbone = model_cfg.get('backbone')
    network_cfg = model_cfg if backbone is None else backbone
    whole = backbone is None and 'data_preprocessor' in model_cfg
    network_cfg = offline(network_cfg)
    if not whole:
        network_cfg.pop('data_preprocessor', None)
    # A backbone without a prefix is of the package of the model around it.
    scope = _prefix(model_cfg) or scope
    if scope in ('mmkd_rl', 'mmengine'):
        scope = None
    try:
        network = build_network(network_cfg, scope, key)
    except TypeError as error:
        if not whole or 'data_preprocessor' not in str(error):
            raise
        # A backbone with the preprocessor of the model that it is from.
        del network_cfg['data_preprocessor']
        network = build_network(network_cfg, scope, key)
    if weights is None:
        init_untrained(network)
    else:
        own = set(network.state_dict())
        load_weights(network, _own_part(weights, own), path,
                     f'{key}: checkpoint')
    return FeatureTeacher(name, network,
                          _normalization(cfg, model_cfg, scope, key),
                          input_size(cfg, key))


def _own_part(weights: dict[str, Tensor],
              own: set[str]) -> dict[str, Tensor]:
    """A backbone's weights under its own names, out of a whole model's."""
    prefix = 'backbone.'
    inner = {n.removeprefix(prefix): t for n, t in weights.items()
             if n.startswith(prefix)}
    if inner and not any(n.startswith(prefix) for n in own):
        weights = inner
    # What is left over beside a whole backbone are heads.
    needed = {n for n in own if not n.endswith('num_batches_tracked')}
    return {n: t for n, t in weights.items() if n in own} \
        if needed <= set(weights) else weights


def _normalization(cfg: dict, model_cfg: dict, scope: str | None,
                   key: str) -> Normalization | None:
    if 'normalization' in cfg:
        return Normalization.from_config(cfg['normalization'],
                                         f'{key}: normalization')
    preprocessor = model_cfg.get('data_preprocessor')
    if preprocessor is None:
        print_log(
            f"{key}: its config has no data_preprocessor; it gets the "
            "student's normalisation. Say normalization=dict(mean=..., "
            'std=..., to_rgb=...) if it was trained with another', 'current')
        return None
    preprocessor = {
        k: v for k, v in preprocessor.items() if k != 'batch_augments'}
    preprocessor.setdefault(
        'type', _PREPROCESSORS.get(str(scope), _PREPROCESSORS['mmpretrain']))
    return Normalization.of(build_network(preprocessor, scope, key))


def _prefix(model_cfg: dict) -> str | None:
    package, dot, _ = str(model_cfg['type']).partition('.')
    return package if dot else None
