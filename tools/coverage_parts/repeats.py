"""Configs whose trials would be the same.

A third of a toolbox's configs differ from another one by schedule, data or the
size of images alone. Nothing of that is left in a trial, whose seed is fixed,
so that its result is known.
"""

from __future__ import annotations

from collections.abc import Iterable

from coverage_parts.selection import path_of
from coverage_parts.small import data_format, sizes, with_size
from coverage_parts.verdicts import WORKS, Verdict
from mmkd_rl.utils.configs import load_config


class Repeats:
    """Verdicts of configs that work, by what was tried.

    Args:
        verdicts: Verdicts that are known already.
    """

    def __init__(self, verdicts: Iterable[Verdict] = ()) -> None:
        self._known: dict[str, Verdict] = {}
        for verdict in verdicts:
            self.add(verdict)

    def add(self, verdict: Verdict) -> None:
        """Keep a verdict, if its config works."""
        if verdict.status != WORKS:
            return
        found = _trial_of(verdict.config)
        if found is not None:
            self._known.setdefault(found[0], verdict)

    def find(self, config: str) -> Verdict | None:
        """The verdict that a trial of this config would have; ``None``: it
        must be tried."""
        found = _trial_of(config)
        if found is None or found[0] not in self._known:
            return None
        same = self._known[found[0]]
        reason, _, _ = same.reason.partition('; as ')
        if not any(reason.startswith(text) for text in found[1]):
            # It works at a size which is not tried for this one.
            return None
        return Verdict(config, WORKS, f'{reason}; as {same.config}')


def _trial_of(config: str) -> tuple[str, list[str]] | None:
    """All that a trial depends on but the size of images, as a text, and the
    sizes as verdicts have them; ``None``: the config cannot be read."""
    try:
        cfg = load_config(path_of(config))
        tried = sizes(cfg)
        small = with_size(cfg, tried[0])
    except Exception:
        # Configs are code, so reading one may raise anything. It is reported
        # when the config is tried.
        return None
    return repr((small.default_scope, tried[0], small.model.to_dict(),
                 small.get('data_preprocessor'), small.optim_wrapper,
                 data_format(small))), [
        f'{height} x {width} pixels' for height, width in tried]
