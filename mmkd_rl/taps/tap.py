"""Read a tensor inside a network that was not written to give it.

A config names a module by its path (``'backbone.layer4'``), or, where that is
not enough, says ``dict(path=..., source='input', call=1, index=0)``. The path
is resolved once, when the model is built; while a tap records, a forward hook
stands on that module and is taken away again, so that outside of a
distillation step the network is exactly what it was.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from mmkd_rl.records import ModelOutput


class Tap:
    """One tensor of one module of a network.

    Args:
        model: The network.
        path: Path of a module in it, as in ``model.named_modules()``.
        source: ``'output'`` or ``'input'`` (the first positional one).
        call: Which call of the module in one forward pass, from 0 (-1 is the
            last). ``None``: it must run just once.
        index: Which element, where the module takes or gives a tuple, list or
            dict.
        key: The config key that the user wrote, for messages.
        copy: Keep a copy of it, where the network works on in place.

    Raises:
        ValueError: No such module; the message names the nearest paths. Or a
            ``source`` that is neither.
    """

    def __init__(self,
                 model: nn.Module,
                 path: str,
                 source: str = 'output',
                 call: int | None = None,
                 index: int | str = -1,
                 key: str = 'taps',
                 copy: bool = False) -> None:
        modules = dict(model.named_modules())
        if path not in modules or not path:
            raise ValueError(
                f'{key}: {type(model).__name__} has no module {path!r}; '
                f'nearest: {_nearest(path, list(modules))}')
        if source not in ('output', 'input'):
            raise ValueError(
                f"{key}: source must be 'output' or 'input', got {source!r}")
        self.path, self.source, self.call, self.index = (path, source, call,
                                                         index)
        self.key, self.copy = key, copy
        self._module = modules[path]
        self._seen: list[Any] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Listen to the module inside the ``with`` block."""
        self._seen = []
        if self.source == 'output':
            handle = self._module.register_forward_hook(
                lambda _, __, output: self._hear(output))
        else:
            handle = self._module.register_forward_pre_hook(
                lambda _, args: self._hear(args[0]))
        try:
            yield
        finally:
            handle.remove()

    def _hear(self, value: Any) -> None:
        self._seen.append(_copied(value) if self.copy else value)

    def take(self) -> Tensor:
        """What was recorded; it is forgotten here.

        Raises:
            ValueError: The module did not run, or ran several times and
                ``call`` does not say which is meant; it gave several things,
                and none at ``index``; what it gave is no tensor.
        """
        seen, self._seen = self._seen, []
        if not seen:
            raise ValueError(f'{self.key}: module {self.path!r} did not run '
                             'in the forward pass; choose one that does')
        if self.call is None and len(seen) > 1:
            raise ValueError(
                f'{self.key}: module {self.path!r} runs {len(seen)} times in '
                'one forward pass; say which one with '
                f'dict(path={self.path!r}, call=0..{len(seen) - 1})')
        call = 0 if self.call is None else self.call
        if not -len(seen) <= call < len(seen):
            raise ValueError(
                f'{self.key}: call={call}, but module {self.path!r} runs '
                f'{len(seen)} times')
        value = seen[call]
        if isinstance(value, (tuple, list, dict)):
            try:
                value = value[self.index]  # type: ignore[index]
            except (KeyError, IndexError, TypeError) as error:
                has = sorted(value) if isinstance(value, dict) else \
                    f'{len(value)} elements'
                raise ValueError(
                    f'{self.key}: index={self.index!r} is not in the '
                    f'{self.source} of {self.path!r}, which has {has}'
                ) from error
        if not isinstance(value, Tensor):
            raise ValueError(f'{self.key}: the {self.source} of {self.path!r} '
                             f'is a {type(value).__name__}, not a tensor')
        return value


class OutputTaps:
    """The two taps that turn a forward pass into a :class:`ModelOutput`.

    Args:
        model: The network.
        feature: Tap config (a path, or the arguments of :class:`Tap`).
        logits: Likewise.
        key: The config key of the network, for messages.
    """

    def __init__(self, model: nn.Module, feature: str | dict,
                 logits: str | dict, key: str) -> None:
        self.feature = _build(model, feature, f'{key}.taps.feature')
        self.logits = _build(model, logits, f'{key}.taps.logits')

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Both taps listen inside the ``with`` block."""
        with ExitStack() as stack:
            stack.enter_context(self.feature.recording())
            stack.enter_context(self.logits.recording())
            yield

    def take(self) -> ModelOutput:
        """The recorded output."""
        return ModelOutput(
            logits=self.logits.take(), feature=self.feature.take())


def _build(model: nn.Module, cfg: str | dict, key: str) -> Tap:
    if isinstance(cfg, str):
        cfg = dict(path=cfg)
    if not isinstance(cfg, dict) or 'path' not in cfg:
        raise TypeError(f'{key} must be a module path or a dict with "path", '
                        f'got {cfg!r}')
    known = {'path', 'source', 'call', 'index'}
    if unknown := set(cfg) - known:
        raise ValueError(f'{key} has unknown {sorted(unknown)}; it takes '
                         f'{sorted(known)}')
    return Tap(model, key=key, **cfg)


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_copied(v) for v in value]
    return value


def _nearest(path: str, paths: list[str]) -> list[str]:
    """Paths that the user may have meant: similar ones, and the children of
    the longest part that exists."""
    near = difflib.get_close_matches(path, paths, n=3, cutoff=0.6)
    parent = path
    while parent and parent not in paths:
        parent = parent.rpartition('.')[0]
    depth = parent.count('.') + 2 if parent else 1
    children = [
        p for p in paths
        if p and p.startswith(parent) and p.count('.') == depth - 1
    ]
    return near + [c for c in children if c not in near][:8]
