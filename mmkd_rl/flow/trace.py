"""Records which modules of a network run, in which order, with which tensors.

Links are checked and paired with the record of one forward pass, made by hooks
on every module: which modules run, how often, what they return, and whether a
layer ends with an activation.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

#: Python modules of which all classes are elementwise activations, apart from
#: _NO_ACTIVATIONS.
_ACTIVATION_FILES = ('torch.nn.modules.activation',
                     'mmcv.cnn.bricks.activation', 'mmcv.cnn.bricks.hswish',
                     'mmcv.cnn.bricks.hsigmoid', 'mmcv.cnn.bricks.swish',
                     'timm.layers.activations')
_NO_ACTIVATIONS = (nn.MultiheadAttention, nn.Softmax, nn.Softmax2d,
                   nn.LogSoftmax, nn.Softmin)


@dataclass(frozen=True)
class Point:
    """Place in a network where a tensor is read or replaced.

    Attributes:
        layer: Name of the layer in the user's links.
        path: Path of the module whose input or output is recorded.
        source: ``'input'`` (the first positional one) or ``'output'``.
        call: Which call of the module in one forward pass, from 0.
        calls: Calls in one forward pass.
        index: Element of the output where the output is a tuple; ``None``:
            the output is the tensor itself.
        tensor: The recorded tensor.
        overwritten: Whether a later module changed it in place.
    """
    layer: str
    path: str
    source: str
    call: int
    calls: int
    index: int | None
    tensor: Tensor
    overwritten: bool


@dataclass(eq=False)
class _Call:
    path: str
    begin: int
    end: int
    args: tuple
    output: Any
    # Versions (counts of in-place writes) of input and output at the call.
    read: int
    given: int


class Trace:
    """Record of one forward pass of a network.

    Args:
        network: The network.
        run: Runs the network once.
        key: The network's config key, for messages.
    """

    def __init__(self, network: nn.Module, run: Callable[[], Any],
                 key: str) -> None:
        self.network, self.key = network, key
        self.modules = dict(network.named_modules())
        self._calls: dict[str, list[_Call]] = defaultdict(list)
        self._clock = 0
        handles = []
        open_calls: dict[str, list[tuple]] = defaultdict(list)

        def enter(path: str) -> Callable:
            def hook(module: nn.Module, args: tuple) -> None:
                open_calls[path].append((self._tick(), args, _version(args)))
            return hook

        def leave(path: str) -> Callable:
            def hook(module: nn.Module, args: tuple, output: Any) -> None:
                begin, args, read = open_calls[path].pop()
                self._calls[path].append(
                    _Call(path, begin, self._tick(), args, output, read,
                          _version(output)))
            return hook

        for path, module in self.modules.items():
            handles.append(module.register_forward_pre_hook(enter(path)))
            handles.append(module.register_forward_hook(leave(path)))
        try:
            run()
        finally:
            for handle in handles:
                handle.remove()

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    def runs(self, path: str) -> int:
        """Number of calls of a module."""
        return len(self._calls[path]) if path in self._calls else 0

    def point(self, path: str, fuse: str = 'input', call: int | None = None,
              key: str = '') -> Point:
        """Find the point at which a layer is read or replaced.

        Args:
            path: Path of the layer's module.
            fuse: ``'input'``: input of the activation that the layer ends
                with, or the layer's output if it ends with none;
                ``'output'``: the layer's output.
            call: Which call of the module; ``None``: it must run once.
            key: The config key of the layer, for messages.

        Raises:
            ValueError: There is no such module (the message names the nearest
                paths), it does not run, or it runs several times and ``call``
                is ``None``.
        """
        key = key or self.key
        if path not in self.modules or not path:
            paths = [p for p in self.modules if p]
            near = difflib.get_close_matches(path, paths, n=4, cutoff=.5)
            raise ValueError(
                f'{key}: {type(self.network).__name__} has no layer '
                f'{path!r}; nearest: {near or paths[:6]}')
        calls = self._calls.get(path, [])
        if not calls:
            inner = [p for p in self.modules if p.startswith(path + '.')
                     and self.runs(p)]
            hint = f'; inside of it {inner[:4]} do' if inner else ''
            raise ValueError(
                f'{key}: layer {path!r} does not run in the forward pass of '
                f'{type(self.network).__name__}{hint}')
        if call is None and len(calls) > 1:
            raise ValueError(
                f'{key}: layer {path!r} runs {len(calls)} times in one '
                f'forward pass; say which with dict(path={path!r}, '
                f'call=0..{len(calls) - 1}), or name the block around it')
        which = 0 if call is None else call
        if isinstance(which, bool) or not isinstance(which, int) or not \
                -len(calls) <= which < len(calls):
            raise ValueError(f'{key}: call={call!r}, but layer {path!r} runs '
                             f'{len(calls)} times')
        which %= len(calls)
        name = path if len(calls) == 1 else f'{path}#{which}'
        layer = calls[which]
        index, tensor = _tensor_in(layer.output)
        if tensor is None:
            raise ValueError(
                f'{key}: layer {path!r} gives a '
                f'{type(layer.output).__name__} without a tensor in it')
        end = self._last_activation(layer, tensor) if fuse == 'input' else None
        if end is None:
            return Point(name, path, 'output', which, len(calls), index,
                         tensor, tensor._version != layer.given)
        siblings = self._calls[end.path]
        return Point(name, end.path, 'input', siblings.index(end),
                     len(siblings), None, end.args[0],
                     end.args[0]._version != end.read)

    def _last_activation(self, layer: _Call, output: Tensor) -> _Call | None:
        """The activation whose output is also the layer's output."""
        inside = [
            call for path, calls in self._calls.items()
            if is_activation(self.modules[path]) for call in calls
            if layer.begin <= call.begin and call.end <= layer.end
        ]
        if not inside:
            return None
        last = max(inside, key=lambda call: call.end)
        same = last.output is output and last.args and isinstance(
            last.args[0], Tensor)
        return last if same else None

    def layers(self) -> list[Point]:
        """The network's layers in the order in which they run: its blocks, and
        each convolution or linear layer outside of blocks with the norm and
        the activation after it. Layers before the first block are the stem and
        left out.
        """
        layers: list[str] = []
        current: str | None = None  # still growing
        has_block = False
        for path in self._units():
            module = self.modules[path]
            leaf = not any(True for _ in module.children())
            if _has_weights(module):
                if not leaf and not has_block:
                    has_block, layers = True, []
                current = path if leaf else None
                layers.append(path)
            elif current is not None and leaf and self._shape(
                    path) == self._shape(layers[-1]):
                if not _passes_on(module):
                    layers[-1] = path  # norm or activation after it
            else:
                current = None
        return [self.point(path) for path in layers]

    def _units(self) -> list[str]:
        """The outermost modules that run once and return one tensor;
        containers (nn.Sequential, ...) are replaced by their children."""
        def opened(parent: str) -> list[str]:
            found = []
            for name, child in self.modules[parent].named_children():
                path = f'{parent}.{name}' if parent else name
                if path not in self.modules:
                    continue  # known by another path already
                calls = self._calls.get(path, [])
                plain = len(calls) == 1 and isinstance(
                    calls[0].output, Tensor)
                if plain and not isinstance(child, nn.Sequential):
                    found.append(path)
                elif len(calls) < 2:
                    found += opened(path)
            return found

        units = opened('')
        while len(units) == 1 and any(
                True for _ in self.modules[units[0]].children()):
            units = opened(units[0])
        return sorted(units, key=lambda p: self._calls[p][0].end)

    def _shape(self, path: str) -> tuple[int, ...]:
        return tuple(self._calls[path][0].output.shape)


def is_activation(module: nn.Module) -> bool:
    """Whether a module is an elementwise activation, like a ReLU."""
    return type(module).__module__ in _ACTIVATION_FILES and not isinstance(
        module, _NO_ACTIVATIONS)


def _passes_on(module: nn.Module) -> bool:
    """Whether a module only passes its input on (dropout, identity)."""
    return isinstance(module, nn.Identity) or 'Drop' in type(module).__name__


def _version(value: Any) -> int:
    """Number of in-place writes to a tensor, or to the first of a tuple."""
    tensor = _tensor_in(value)[1]
    return 0 if tensor is None else tensor._version


def _has_weights(module: nn.Module) -> bool:
    return any(p.ndim > 1 for p in module.parameters())


def _tensor_in(output: Any) -> tuple[int | None, Tensor | None]:
    if isinstance(output, Tensor):
        return None, output
    if isinstance(output, (tuple, list)):
        for index, value in enumerate(output):
            if isinstance(value, Tensor):
                return index, value
    return None, None
