"""Read tensors inside a network with forward hooks.

A config names a module by its path (``'backbone.layer4'``) or, where that is
not enough, by ``dict(path=..., source='input', call=1, index=0)``. The path is
checked when the model is built. In the student it is resolved again for each
recorded forward pass, because a converter (SyncBN, quantisation) may have
replaced the module since, and the hook is installed during that pass only, so
that copies and pickles of the student contain no hook. In a teacher, which
nothing replaces or copies, hooks are installed once.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mmkd_rl.records import Output

#: ``index`` of a tap that reads all tensors of a tuple, one a level.
ALL = 'all'


class Tap:
    """Reads one tensor, or all tensors, of one module of a network.

    Args:
        model: The network.
        path: Path of a module in it, as in ``model.named_modules()``.
        source: ``'output'`` or ``'input'`` (the first positional one).
        call: Which call of the module in one forward pass, from 0 (-1 is the
            last); ``'all'``: each call is a level. ``None``: the module must
            run exactly once.
        index: Element to read where the module takes or returns a tuple, list
            or dict; ``'all'``: each element is a level. Of an element that is
            a list itself (a map and a class token) the first is read.
            Several: an element of an element, so ``(0, 'all')``: each element
            of the first is a level.
        key: The config key that the user wrote, for messages.
        copy: Whether to copy the tensor, for networks that change it in place
            later.

    Attributes:
        in_training: Element that is the output of evaluation, if the module
            returns more in training, see :func:`find_elements`.

    Raises:
        ValueError: No such module (the message names the nearest paths), or
            an unknown ``source``.
    """

    def __init__(self,
                 model: nn.Module,
                 path: str,
                 source: str = 'output',
                 call: int | str | None = None,
                 index: int | str | Sequence[int | str] = -1,
                 key: str = 'taps',
                 copy: bool = False) -> None:
        if not isinstance(path, str):
            raise ValueError(f'{key}: path must be the path of a module, got '
                             f'{path!r}')
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
        self.in_training: int | None = None
        self.takes_labels = _takes_labels(modules[path])

    def install(self, model: nn.Module,
                record: Callable[[Any], None]) -> RemovableHandle:
        """Call a function with the input or output of each module call.

        Args:
            model: The network, or a copy of it.
            record: The function.

        Returns:
            Handle that removes the hook.
        """
        module = model.get_submodule(self.path)
        # Not lambdas, which a model with its teachers could not be pickled
        # with.
        if self.source == 'output':
            return module.register_forward_hook(
                partial(self._see_output, record), with_kwargs=True)
        return module.register_forward_pre_hook(
            partial(self._see_input, record))

    def _see_output(self, record: Callable[[Any], None], module: nn.Module,
                    args: tuple, kwargs: dict, output: Any) -> None:
        self._keep(record, self._output(module, args, kwargs, output))

    def _see_input(self, record: Callable[[Any], None], module: nn.Module,
                   args: tuple) -> None:
        self._keep(record, args[0])

    def _keep(self, record: Callable[[Any], None], value: Any) -> None:
        record(_copied(value) if self.copy else value)

    def _output(self, module: nn.Module, args: tuple, kwargs: dict,
                output: Any) -> Any:
        """The output that the module has in evaluation mode."""
        if self.takes_labels and (len(args) > 1 or kwargs):
            # Without its hooks; a head is one small layer.
            output = module.forward(args[0])
        if self.in_training is not None and module.training:
            output = output[self.in_training]
        return output

    def listen(self, model: nn.Module) -> Listener:
        """Record the module's calls until the listener is stopped.

        Args:
            model: The network, or a copy of it.
        """
        return Listener(self, model)

    def read(self, seen: Sequence[Any]) -> tuple[Tensor, ...]:
        """Select the tensors at ``call`` and ``index``.

        Args:
            seen: Recorded input or output of each call in one forward pass.

        Raises:
            ValueError: The module did not run; it ran several times and
                ``call`` is ``None``; it has no element at ``index``; or the
                element is not a tensor.
        """
        if not seen:
            raise ValueError(f'{self.key}: module {self.path!r} did not run '
                             'in the forward pass; choose one that does')
        if self.call is None and len(seen) > 1:
            raise ValueError(
                f'{self.key}: module {self.path!r} runs {len(seen)} times in '
                'one forward pass; say which one with '
                f'dict(path={self.path!r}, call=0..{len(seen) - 1})')
        if self.call == ALL:
            return tuple(t for value in seen for t in self._tensors(value))
        call = 0 if self.call is None else self.call
        if not isinstance(call, int) or not -len(seen) <= call < len(seen):
            raise ValueError(
                f'{self.key}: call={call!r}, but module {self.path!r} runs '
                f'{len(seen)} times')
        return self._tensors(seen[call])

    def _tensors(self, value: Any) -> tuple[Tensor, ...]:
        """The tensors at ``index`` in the recorded value of one call."""
        *path, last = self.index if isinstance(
            self.index, (tuple, list)) else (self.index, )
        for index in path:
            value = self._element(value, index)
        if last == ALL:
            levels = value.values() if isinstance(value, dict) else \
                value if isinstance(value, (tuple, list)) else (value, )
            return tuple(map(self._checked, levels))
        return (self._checked(self._element(value, last)), )

    def _element(self, value: Any, index: int | str) -> Any:
        if isinstance(value, (tuple, list, dict)):
            try:
                return value[index]  # type: ignore[index]
            except (KeyError, IndexError, TypeError) as error:
                has = sorted(value) if isinstance(value, dict) else \
                    f'{len(value)} elements'
                raise ValueError(
                    f'{self.key}: index={self.index!r} is not in the '
                    f'{self.source} of {self.path!r}, which has {has}'
                ) from error
        if index not in (0, -1):
            raise ValueError(
                f'{self.key}: index={self.index!r}, but the {self.source} of '
                f'{self.path!r} is one {type(value).__name__}; leave it out')
        return value

    def _checked(self, value: Any) -> Tensor:
        if isinstance(value, (tuple, list)) and value:
            # A map and a class token, or a second branch.
            value = value[0]
        if not isinstance(value, Tensor):
            raise ValueError(f'{self.key}: the {self.source} of {self.path!r} '
                             f'is a {type(value).__name__}, not a tensor')
        return value


class Listener:
    """Records what a tap reads in one forward pass; a context manager.

    Args:
        tap: The tap.
        model: The network, or a copy of it.
    """

    def __init__(self, tap: Tap, model: nn.Module) -> None:
        self._tap = tap
        self._seen: list[Any] = []
        self._handle = tap.install(model, self._seen.append)

    def stop(self) -> None:
        """Remove the hook; may be called twice."""
        self._handle.remove()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *args: Any) -> None:
        self.stop()

    def tensors(self) -> tuple[Tensor, ...]:
        """The recorded tensors, see :meth:`Tap.read`."""
        return self._tap.read(self._seen)

    def tensor(self) -> Tensor:
        """The recorded tensor of a tap with a single level."""
        tensor, = self.tensors()
        return tensor


class OutputTaps:
    """The taps that turn a forward pass into an :class:`Output`.

    Args:
        model: The network.
        features: Config of each level's tap (a path, or the arguments of
            :class:`Tap`).
        logits: Config of each level's tap, likewise; may be empty.
        key: The config key of the network, for messages.
        scores: Makes scores of all classes of the tensor of each level of the
            logits; ``None``: it has them.
        edges: Config of each level's tap of :attr:`Output.edges`.
    """

    def __init__(self, model: nn.Module, features: Sequence[str | dict],
                 logits: Sequence[str | dict], key: str,
                 scores: Callable[[Tensor], Tensor] | None = None,
                 edges: Sequence[str | dict] = ()) -> None:
        self.scores = scores
        self.edges = _build_levels(model, edges, f'{key}.taps.edges')
        self.features = _build_levels(model, features, f'{key}.taps.feature')
        self.logits = _build_levels(model, logits, f'{key}.taps.logits')

    def recording(self, model: nn.Module) -> Recording:
        """Install all taps; they record until the recording is stopped.

        Args:
            model: The network, or a copy of it.
        """
        listeners: list[Listener] = []
        try:
            for tap in self.all():
                listeners.append(tap.listen(model))
        except AttributeError:
            # A module has been removed since the model was built.
            for listener in listeners:
                listener.stop()
            raise
        first = len(self.features)
        last = first + len(self.logits)
        return Recording(listeners[:first], listeners[first:last],
                         self.scores, listeners[last:])

    def all(self) -> tuple[Tap, ...]:
        """All taps, features first."""
        return (*self.features, *self.logits, *self.edges)


class Recording:
    """The tensors that all taps record in one forward pass; a context manager.

    Args:
        features: Listeners of the features.
        logits: Listeners of the logits.
        scores: See :class:`OutputTaps`.
        edges: Listeners of the edges.
    """

    def __init__(self, features: Sequence[Listener],
                 logits: Sequence[Listener],
                 scores: Callable[[Tensor], Tensor] | None = None,
                 edges: Sequence[Listener] = ()) -> None:
        self._features, self._logits = features, logits
        self._scores, self._edges = scores, edges

    def stop(self) -> None:
        """Remove all hooks."""
        for listener in (*self._features, *self._logits, *self._edges):
            listener.stop()

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *args: Any) -> None:
        self.stop()

    def output(self) -> Output:
        """The recorded tensors."""
        features, logits, edges = (
            tuple(t for listener in listeners for t in listener.tensors())
            for listeners in (self._features, self._logits, self._edges))
        if self._scores is not None:
            logits = tuple(map(self._scores, logits))
        return Output(features, logits, edges)


def _build_levels(model: nn.Module, levels: Sequence[str | dict],
                  key: str) -> tuple[Tap, ...]:
    single = len(levels) == 1
    return tuple(_build(model, cfg, key if single else f'{key}[{i}]')
                 for i, cfg in enumerate(levels))


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


def _takes_labels(module: nn.Module) -> bool:
    names = list(inspect.signature(module.forward).parameters)
    return len(names) > 1 and names[1] in ('target', 'targets', 'label',
                                           'labels', 'gt_label')


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
