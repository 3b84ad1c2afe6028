"""Names of the terms' losses and weights in the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from mmkd_rl.losses import DistillationTerm


def log_names(terms: Sequence[DistillationTerm]) -> list[str]:
    """Names of the terms' losses: ``loss_logit`` and ``loss_feature``. Several
    terms that read the same get their type appended, and a number from the
    second of a type on."""
    kinds = ['logit' if t.reads == 'logits' else 'feature' for t in terms]
    return numbered(
        f'loss_{kind}' +
        (f'_{type(term).__name__}' if kinds.count(kind) > 1 else '')
        for term, kind in zip(terms, kinds))


def weight_name(name: str) -> str:
    """Name of a term's weight in the log; MMEngine adds up all names with
    'loss'."""
    return name.replace('loss', 'weight', 1).replace('loss', 'term')


def numbered(names: Iterable[str]) -> list[str]:
    """Append ``_2``, ``_3``, ... to repeated names."""
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f'{name}_{seen[name]}')
    return unique
