"""Which teacher layers are mixed into which student layers.

Given as paths, or ``'auto'``: layers are paired by relative depth, one teacher
layer with one or two student layers, as the paper recommends (Sec. 3.2: bottom
layers of a teacher do not help the top layers of a student).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from mmkd_rl.flow.trace import Point, Trace

#: Limits of 'auto': linked student layers, and student layers with which one
#: teacher layer is linked.
MAX_LAYERS, MAX_USES = 4, 2


@dataclass(frozen=True)
class Link:
    """One student layer with the teacher layers that are mixed into it.

    Attributes:
        student: Point at which the mixture replaces the student's tensor.
        teachers: Teacher's index and point of its layer, one or more.
    """
    student: Point
    teachers: tuple[tuple[int, Point], ...]


def resolve_links(links: str | Sequence[dict], student: Trace,
                  teachers: Mapping[str, Trace], fuse: str,
                  key: str = 'links') -> list[Link]:
    """Find the points in the networks that the user's links name.

    Args:
        links: ``'auto'``, or a list of ``dict(student=LAYER,
            teachers={NAME: LAYER or [LAYER, ...]})``; a layer is a path or
            ``dict(path=..., call=...)``.
        student: Trace of the student.
        teachers: Trace of each teacher by name, in the pool's order.
        fuse: See :meth:`Trace.point`.
        key: The config key, for messages.

    Raises:
        TypeError: ``links`` or a part of it has another form.
        ValueError: A layer or a teacher does not exist, a layer does not run
            or runs several times, a layer is given twice, or a teacher is in
            no link.
    """
    if links == 'auto':
        return _pair(student, teachers, fuse)
    if not isinstance(links, (list, tuple)) or not links:
        raise TypeError(
            f"{key} must be 'auto' or a list of dict(student='layer1', "
            f"teachers=dict({next(iter(teachers))}='layer1')), got {links!r}")
    found: list[Link] = []
    for i, link in enumerate(links):
        here = f'{key}[{i}]'
        if not isinstance(link, dict) or set(link) != {'student', 'teachers'}:
            raise TypeError(f'{here} must be a dict with just "student" and '
                            f'"teachers", got {link!r}')
        point = _point(student, link['student'], fuse, f'{here}.student')
        for k, other in enumerate(found):
            if (other.student.path, other.student.call) == (point.path,
                                                            point.call):
                raise ValueError(
                    f"{here}.student={point.layer!r} is the student's layer "
                    f'of {key}[{k}] already; put all its teachers into one '
                    'link')
        found.append(Link(point, _teachers(link['teachers'], teachers, fuse,
                                           f'{here}.teachers')))
    linked = {index for link in found for index, _ in link.teachers}
    for index, name in enumerate(teachers):
        if index not in linked:
            raise ValueError(f'teacher {name!r} is in none of the {key}; '
                             'link one of its layers, or remove the teacher')
    return found


def _teachers(cfg: dict, traces: Mapping[str, Trace], fuse: str,
              key: str) -> tuple[tuple[int, Point], ...]:
    if not isinstance(cfg, dict) or not cfg:
        raise TypeError(f'{key} must be a dict from teachers to layers, got '
                        f'{cfg!r}')
    names = list(traces)
    points = []
    for name, layers in cfg.items():
        if name not in traces:
            raise ValueError(f'{key} has no teacher {name!r}; the teachers '
                             f'are {names}')
        if isinstance(layers, (list, tuple)) and not layers:
            raise TypeError(f'{key}.{name} must name at least one layer, got '
                            f'{layers!r}')
        mine: list[Point] = []
        for layer in layers if isinstance(layers, (list, tuple)) else [layers]:
            point = _point(traces[name], layer, fuse, f'{key}.{name}')
            if (point.path, point.call) in [(p.path, p.call) for p in mine]:
                raise ValueError(f'{key}.{name} has layer {point.layer!r} '
                                 'twice')
            mine.append(point)
        points += [(names.index(name), point) for point in mine]
    return tuple(points)


def _point(trace: Trace, layer: str | dict, fuse: str, key: str) -> Point:
    cfg = dict(path=layer) if isinstance(layer, str) else layer
    if not isinstance(cfg, dict) or not isinstance(
            cfg.get('path'), str) or set(cfg) - {'path', 'call'}:
        raise TypeError(f'{key} must be a path or dict(path=..., call=...), '
                        f'got {layer!r}')
    return trace.point(cfg['path'], fuse, cfg.get('call'), key)


def _pair(student: Trace, teachers: Mapping[str, Trace],
          fuse: str) -> list[Link]:
    own = _stage_ends(student, fuse)
    pairs: list[list[tuple[int, Point]]] = [[] for _ in own]
    for m, trace in enumerate(teachers.values()):
        layers = _stage_ends(trace, fuse)
        # Same relative depth: layer j of n with layer j k / n of k.
        chosen = [
            max(0, round((j + 1) / len(own) * len(layers)) - 1)
            for j in range(len(own))
        ]
        uses: Counter[int] = Counter()
        for j in reversed(range(len(own))):
            uses[chosen[j]] += 1
            if uses[chosen[j]] <= MAX_USES:
                pairs[j].append((m, layers[chosen[j]]))
    return [Link(point, tuple(pair)) for point, pair in zip(own, pairs)
            if pair]


def _stage_ends(trace: Trace, fuse: str) -> list[Point]:
    """The last layer of each stage. A stage ends where the resolution changes,
    or, if that gives too few stages (dilated networks), where the shape
    changes. Networks of one or two stages: layers at even distances.

    Raises:
        ValueError: No layer was found.
    """
    layers = trace.layers()
    if not layers:
        raise ValueError(
            f"{trace.key}: links='auto' found no layer in "
            f'{type(trace.network).__name__}; give links by path')
    stages = _last_of_each(layers, _resolution)
    if len(stages) < MAX_LAYERS:
        stages = _last_of_each(layers, lambda p: p.tensor.shape)
    if len(stages) < 3:
        count = min(MAX_LAYERS, len(layers))
        stages = [layers[round((i + 1) * len(layers) / count) - 1]
                  for i in range(count)]
    # A layer that ends with an activation has the activation's path.
    return [trace.point(p.layer, fuse) for p in stages[-MAX_LAYERS:]]


def _last_of_each(layers: Sequence[Point],
                  key: Callable[[Point], Hashable]) -> list[Point]:
    return [list(group)[-1] for _, group in groupby(layers, key)]


def _resolution(point: Point) -> tuple[int, ...]:
    shape = tuple(point.tensor.shape)
    return (len(shape), *(shape[2:] if len(shape) == 4 else
                          shape[1:2] if len(shape) == 3 else ()))
