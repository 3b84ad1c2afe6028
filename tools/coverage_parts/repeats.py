"""Configs whose trials would be the same.

A third of a toolbox's configs differ from another one by schedule, data or the
size of images alone. Nothing of that is left in a trial, whose seed is fixed,
so that its result is known.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import NamedTuple

from coverage_parts.small import data_format, sizes, with_size
from coverage_parts.verdicts import WORKS, Verdict
from mmkd_rl.utils.configs import file_of, load_config


class Repeats:
    """Results of the configs that work, for configs with the same trial.

    Args:
        verdicts: Results of configs that have been tried.
    """

    def __init__(self, verdicts: Iterable[Verdict] = ()) -> None:
        #: By :attr:`_Trial.model`.
        self._known: dict[str, Verdict] = {}
        for verdict in verdicts:
            self.add(verdict)

    def add(self, verdict: Verdict) -> None:
        """Keep the result of a config, if the config works."""
        if verdict.status == WORKS and (trial := _trial(verdict.config)):
            self._known.setdefault(trial.model, verdict)

    def find(self, config: str) -> Verdict | None:
        """The result that a trial of a config would have; ``None``: it must
        be tried."""
        trial = _trial(config)
        if trial is None or trial.model not in self._known:
            return None
        same = self._known[trial.model]
        reason, _, _ = same.reason.partition('; as ')
        if not reason.startswith(trial.sizes):
            # It works at a size which is not tried for this one.
            return None
        return Verdict(config, WORKS, f'{reason}; as {same.config}')


class _Trial(NamedTuple):
    """What the trial of a config depends on.

    Attributes:
        model: All but the sizes of images: model, optimiser and format of the
            data, as a text.
        sizes: Sizes of images that are tried, as the reasons of verdicts begin
            with them.
    """
    model: str
    sizes: tuple[str, ...]


# A config is looked up, and then added.
@functools.lru_cache(maxsize=1)
def _trial(config: str) -> _Trial | None:
    """The trial of a config; ``None``: the config cannot be read."""
    try:
        cfg = load_config(file_of(config))
        tried = sizes(cfg)
        small = with_size(cfg, tried[0])
    except Exception:
        # Configs are code, so reading one may raise anything. It is reported
        # when the config is tried.
        return None
    model = repr((small.default_scope, tried[0], small.model.to_dict(),
                  small.get('data_preprocessor'), small.optim_wrapper,
                  data_format(small)))
    return _Trial(model, tuple(f'{height} x {width} pixels'
                               for height, width in tried))
