"""Find a model's weights in a checkpoint of any origin, and bring their names
to the model's.

Trainers keep weights under different keys, several sets in one file (averaged
ones beside the raw ones) and below prefixes of wrappers (``module.`` of
DataParallel, ``_orig_mod.`` of torch.compile, ``model.`` of Lightning).
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor

#: Segments of names that only wrappers of modules add.
_MARKS = {'_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module',
          '_forward_module'}
#: Also that of DataParallel, which a network may have, too.
_WRAPPERS = _MARKS | {'module'}
#: Keys of sets of weights, the likeliest first.
_KEYS = ('state_dict', 'model_state_dict', 'model', 'net', 'network',
         'student', 'weights', 'params', 'module')
_AVERAGED = re.compile(r'(^|[._ ])(ema|averaged?|swa)([._)]|$)', re.IGNORECASE)
#: How deep sets of weights are looked for.
_DEPTH = 3


@dataclass(frozen=True)
class Found:
    """A set of weights in a checkpoint.

    Attributes:
        weights: Tensors by their names.
        place: Keys that lead to them, as in ``'a.b'``; ``''``: the checkpoint
            itself.
        note: What the user should know about the choice; ``''``: nothing.
    """
    weights: dict[str, Tensor]
    place: str
    note: str = ''


def read_weights(content: Any, what: str) -> dict[str, Tensor]:
    """The weights in a checkpoint, see :func:`find_weights`; what the user
    should know about the choice is logged.

    Args:
        content: What was read from the file.
        what: Option and file, for messages.

    Raises:
        ValueError: There are no weights, or some are no numbers, see
            :func:`check_values`.
    """
    found = find_weights(content)
    if found is None:
        keys = f' (it has {_some(map(repr, content))})' \
            if isinstance(content, Mapping) and content else ''
        raise ValueError(f'{what} holds no weights{keys}: it has no '
                         '"state_dict" and is no dict of tensors; give the '
                         'checkpoint of a training, or an export')
    check_values(found.weights, what)
    if found.note:
        print_log(f'{what}: {found.note} are used', 'current',
                  logging.WARNING)
    return found.weights


def named_as(weights: Mapping[str, Tensor], own: Mapping[str, Tensor],
             needed: Collection[str], what: str) -> dict[str, Tensor]:
    """Weights of a file under a model's names, see :func:`fit_names`, and
    without records, see :func:`without_records`; the change is logged.

    Args:
        weights: Tensors of the file.
        own: Tensors of the model.
        needed: Names of the model's tensors that a file should have.
        what: Option and file, for messages.

    Raises:
        ValueError: Two sets of weights in the file fit equally well.
    """
    try:
        fitting, change = fit_names(weights, {n: own[n] for n in needed})
    except ValueError as error:
        raise ValueError(f'{what} {error}') from error
    if change:
        print_log(f'{what}: its weights are read {change}', 'current')
    return without_records(fitting, own)


def find_weights(content: Any) -> Found | None:
    """The set of weights in a checkpoint; ``None``: there is none.

    Of several sets, averaged weights come first, since these are what a
    training with averaging tests and publishes. MMEngine keeps these under
    ``state_dict`` and the raw ones under ``ema_state_dict``.

    Args:
        content: What was read from the file.
    """
    sets = dict(_pairs_split(_sets(content)))
    if 'state_dict' in sets and ('meta' in content or
                                 'steps' in sets.get('ema_state_dict', {})):
        return Found(sets['state_dict'], 'state_dict')
    averaged = [place for place in sets if _AVERAGED.search(place)]
    raw = [place for place in sets if place not in averaged]
    if averaged:
        place = min(averaged, key=_rank)
        return Found(sets[place], place, '' if not raw else
                     f'averaged weights under {place!r}, not the raw ones '
                     f'under {min(raw, key=_rank)!r}')
    if not raw:
        return None
    place = min(raw, key=_rank)
    others = [p for p in raw if p != place and len(sets[p]) > 1]
    return Found(sets[place], place, '' if not others else
                 f'weights under {place!r}, not those under '
                 f'{", ".join(map(repr, others))}')


def _pairs_split(sets: Iterator[tuple[str, dict[str, Tensor]]]
                 ) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Of a set with a student and its teacher, which in mean teachers (semi-
    and self-supervised training) is the student's average, the teacher's."""
    for place, weights in sets:
        student, teacher = (
            {n.removeprefix(p): t for n, t in weights.items()
             if n.startswith(p)} for p in ('student.', 'teacher.'))
        if teacher and student.keys() == teacher.keys():
            yield f'{place}.student'.lstrip('.'), student
            yield f'{place}.teacher (its average, ema)'.lstrip('.'), teacher
        else:
            yield place, weights


def _sets(content: Any, place: str = '',
          depth: int = _DEPTH) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """All sets of weights, by the keys that lead to them."""
    if not isinstance(content, Mapping) or not content:
        return
    if place.split('.')[-1] in ('optimizer', 'optim_wrapper', 'optimizers',
                                'param_schedulers'):
        return
    tensors = {_without(n, _MARKS): _tensor(v) for n, v in content.items()
               if isinstance(n, str) and (isinstance(v, Tensor) or isinstance(
                   v, np.ndarray) and v.dtype.kind in 'fiub')}
    named = [n for n in tensors if '.' in n]
    # Records have single arrays; a network has several dotted names.
    if tensors and (len(tensors) == len(content) or
                    len(named) > len(content) / 2):
        yield place, tensors
        return
    if depth:
        for name, value in content.items():
            yield from _sets(value, f'{place}.{name}'.lstrip('.'), depth - 1)


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.as_tensor(value)


def _rank(place: str) -> tuple[int, int]:
    first = place.split('.')[0]
    return (_KEYS.index(first) if first in _KEYS else len(_KEYS), len(place))


def fit_names(weights: Mapping[str, Tensor], own: Mapping[str, Tensor],
              ) -> tuple[dict[str, Tensor], str]:
    """Bring the names in a file to those of a model.

    Segments that wrappers add are dropped, and the prefix below which the
    file has most of the model's names; or the model's own prefix is added
    where all names of the file fit below it. Names that fit already are left
    alone.

    Args:
        weights: Tensors of the file.
        own: Tensors of the model.

    Returns:
        The weights, without those of other prefixes, and a description of the
        change for a message, ``''`` without one.

    Raises:
        ValueError: Two prefixes fit equally well.
    """
    best = dict(weights)
    fits = _fitting(best, own)
    if fits == len(own):
        return best, ''
    plain = _without_wrappers(weights)
    change = ''
    if _fitting(plain, own) > fits:
        best, fits, change = plain, _fitting(plain, own), \
            "without segments of wrappers such as 'module.'"
    counts: Counter[str] = Counter()
    for name, tensor in plain.items():
        for start in _starts(name):
            if name[start:] in own and \
                    own[name[start:]].shape == tensor.shape:
                counts[name[:start]] += 1
    if counts:
        prefix, count = counts.most_common(1)[0]
        if prefix and count > fits:
            prefix = _only([p for p, n in counts.items() if n == count])
            return ({n.removeprefix(prefix): t for n, t in plain.items()
                     if n.startswith(prefix)}, f'below the prefix {prefix!r}')
    for prefix in {n[:start] for n in own for start in _starts(n)[1:]}:
        longer = {prefix + n: t for n, t in plain.items()}
        if _fitting(longer, own) == len(longer) > fits:
            return longer, f'with the prefix {prefix!r}'
    return best, change


def _only(prefixes: list[str]) -> str:
    """The prefix to take of several that fit equally well.

    Raises:
        ValueError: None is that of averaged weights alone.
    """
    averaged = [p for p in prefixes if _AVERAGED.search(p)]
    if len(averaged) == 1:
        return averaged[0]
    # 'a.' and 'a.b.' where names repeat: the shorter one has more.
    if len(prefixes) > 1:
        raise ValueError(
            'has several sets of weights that fit, below '
            f'{" and ".join(map(repr, sorted(prefixes)))}; save one of them '
            'alone and use that file')
    return prefixes[0]


def _starts(name: str) -> list[int]:
    """Where the segments of a name begin."""
    return [0] + [i + 1 for i, letter in enumerate(name) if letter == '.']


def _fitting(weights: Mapping[str, Tensor],
             own: Mapping[str, Tensor]) -> int:
    return sum(n in own and own[n].shape == t.shape
               for n, t in weights.items())


def _without_wrappers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {_without(n, _WRAPPERS): t for n, t in weights.items()}


def _without(name: str, segments: set[str]) -> str:
    return '.'.join(s for s in name.split('.') if s not in segments)


def without_records(weights: Mapping[str, Tensor],
                    own: Collection[str]) -> dict[str, Tensor]:
    """Leave out what is no weight of a network: counters that profilers and
    averages add (one number each, ``total_ops``, ``n_averaged``), copies that
    averaging hooks keep as buffers (``ema_backbone_conv1_weight``), and heads
    that are used in training alone.

    Args:
        weights: Tensors by names, as :func:`fit_names` gives them.
        own: Names of the model's weights.
    """
    flat = {'ema_' + n.replace('.', '_') for n in own}
    return {n: t for n, t in weights.items()
            if n in own or not (t.numel() == 1 or n in flat
                                or _is_auxiliary(n))}


def _is_auxiliary(name: str) -> bool:
    """Whether a name is of an auxiliary head (MMSegmentation, GoogLeNet,
    Inception, DeepLab of torchvision)."""
    first = name.split('.')[0]
    return first.startswith('auxiliary_head') or first in (
        'aux1', 'aux2', 'AuxLogits', 'aux_classifier')


def below(weights: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Drop the segments of wrappers, and the prefix, before a part of a model
    whose name is known; unchanged where the part is at the top, or is not
    there.

    >>> list(below({'net.backbone.a': torch.ones(1)}, 'backbone.'))
    ['backbone.a']

    Args:
        weights: Tensors by their names.
        part: Name of the part with a dot.

    Raises:
        ValueError: The part is below several prefixes.
    """
    inner = [n.removeprefix(part) for n in weights if n.startswith(part)]
    if inner and not all(n.startswith('module.') for n in inner):
        return dict(weights)
    plain = _without_wrappers(weights)
    counts = Counter(n[:start] for n in plain for start in _starts(n)
                     if n[start:].startswith(part))
    if not counts:
        return plain
    most = max(counts.values())
    prefix = _only([p for p, n in counts.items() if n == most])
    return {n.removeprefix(prefix): t for n, t in plain.items()
            if n.startswith(prefix)}


def check_values(weights: Mapping[str, Tensor], what: str) -> None:
    """Refuse weights with which no network computes anything.

    Args:
        weights: Tensors by their names.
        what: Option and file, for messages.

    Raises:
        ValueError: Some are NaN or infinite: the training that wrote them has
            diverged; or they are sparse, or whole numbers, as those of
            quantised networks are.
    """
    if whole := [n for n, t in weights.items() if n.endswith('weight')
                 and not t.is_floating_point() and not t.is_complex()]:
        raise ValueError(
            f'{what} has whole numbers in {len(whole)} weights: '
            f'{_some(whole)}; it is of a quantised network. Give the '
            'checkpoint from before')
    if sparse := [n for n, t in weights.items()
                  if t.layout != torch.strided]:
        raise ValueError(f'{what} has sparse tensors: {_some(sparse)}; save '
                         'them with to_dense()')
    if bad := [n for n, t in weights.items() if t.is_floating_point()
               and not t.is_meta and not bool(torch.isfinite(t).all())]:
        raise ValueError(
            f'{what} has NaN or infinite values in {len(bad)} weights: '
            f'{_some(bad)}; the training that wrote it has diverged. Use an '
            'earlier checkpoint')


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')


def digest(state: Mapping[str, Tensor]) -> str:
    """A text that differs where a name, a type or a value of weights does.

    Args:
        state: The weights by name, in any order.
    """
    found = blake2b(digest_size=16)
    for name, tensor in sorted(state.items()):
        flat = tensor.detach().cpu().contiguous().flatten()
        found.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}'.encode())
        if flat.numel():
            found.update(flat.view(torch.uint8).numpy().data)
    return found.hexdigest()
