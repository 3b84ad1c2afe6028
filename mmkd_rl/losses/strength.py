r"""How strong a term is in the course of a training.

Options of every term, beside its own:

- ``loss_weight='auto'``: lambda is set at the start so that the term's
  gradient is ``ratio`` times as long as that of the model's own loss,

  .. math:: \lambda = ratio \frac{\Vert \nabla_x L_S \Vert}
      {\Vert \nabla_x mean_i \sum_m G^m_i / M \Vert},

  at the student's tapped features x (of terms that read logits: at its
  logits): the geometric mean over the first 20 batches, then constant. The
  backward passes that it needs end at x; they do not reach the backbone.
- ``until``: share of the training after which the weight is zero.
- ``decay``: how the weight falls until then: ``'none'``, ``'linear'`` or
  ``'cosine'``.

The progress of the training is what MMEngine's ``RuntimeInfoHook``, a default
hook, writes into the message hub.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from mmengine.logging import MessageHub, print_log
from torch import Tensor, nn

from mmkd_rl.options import Checked, ConfigError, Positive, Share
from mmkd_rl.utils.processes import sums_over_processes

#: Options of :class:`Strength` in a term's config.
OPTIONS = ('until', 'decay', 'ratio')
AUTO = 'auto'
#: Batches at the start from which ``loss_weight='auto'`` is computed.
_BATCHES = 20
#: Losses are scaled by it, so that their gradients do not underflow in half
#: precision.
_SCALE = 2.**10

_CURVES = dict(
    none=lambda x: 1.,
    linear=lambda x: 1. - x,
    cosine=lambda x: .5 + .5 * math.cos(math.pi * x))


class Strength(Checked, nn.Module):
    """Weight of a term: set by gradients, and fading.

    Args:
        auto: Whether the weight is set at the start of the training.
        until: See above; 1: the whole training.
        decay: See above.
        ratio: See above; for automatic weights alone. ``None``: 1.

    Raises:
        ConfigError: A ratio with a weight that is not automatic.
    """

    log_weight: Tensor
    batches: Tensor

    def __init__(self, auto: bool = False, until: Share = 1.,
                 decay: Literal['none', 'linear', 'cosine'] = 'none',
                 ratio: Positive | None = None) -> None:
        super().__init__()
        if ratio is not None and not auto:
            raise ConfigError('ratio', "this is of loss_weight='auto', and "
                              "the weight is a number; add loss_weight='auto'"
                              ', or leave it out')
        self.auto, self.until, self.decay = auto, until, decay
        self.ratio = ratio or 1.
        if auto:
            self.register_buffer('log_weight', torch.zeros(()))
            self.register_buffer('batches', torch.zeros((), dtype=torch.long))
        # Numbers in place of the buffers, to save synchronisations; ``None``:
        # to be read again.
        self._weight: float | None = None
        self._measured: int | None = None

    def weight(self, given: float) -> float:
        """The present weight.

        Args:
            given: The term's ``loss_weight``, unless it is automatic.
        """
        if self.auto:
            if self._weight is None:
                self._weight = self._measured_weight() \
                    if self._count() else 1.
            given = self._weight
        return given * self._share()

    def _measured_weight(self) -> float:
        return self.ratio * math.exp(float(self.log_weight))

    def _share(self) -> float:
        fades = self.until < 1 or self.decay != 'none'
        if not fades or not self.training:
            # In evaluation there is no training that progresses.
            return 1.
        done = _progress() / self.until
        return _CURVES[self.decay](done) if done < 1 else 0.

    @property
    def is_measuring(self) -> bool:
        """Whether the weight still needs :meth:`measure`."""
        return self.auto and self._count() < _BATCHES

    def _count(self) -> int:
        if self._measured is None:
            self._measured = int(self.batches)
        return self._measured

    def measure(self, own: Tensor, term: Tensor, at: Sequence[Tensor],
                name: str) -> None:
        """Add a batch to the automatic weight.

        Args:
            own: The model's own loss, a scalar.
            term: The term's loss at equal weights of the teachers.
            at: The student's tensors at which gradients are compared.
            name: The term's name in the log.

        Raises:
            ConfigError: The model's own loss does not depend on them.
        """
        squares = [_square(own, at), _square(term, at)]
        if squares[0] is None:
            raise ConfigError(
                'loss_weight', "'auto' compares gradients at the tapped "
                "tensors of the student, and the model's own loss does not "
                'depend on them; tap others with taps=..., or give a number')
        lengths = sums_over_processes([
            own.new_zeros((), dtype=torch.float32) if square is None
            else square for square in squares])
        if not (lengths[0] > 0 and lengths[1] > 0):
            return  # a batch that teaches nothing, such as one without labels
        self.batches += 1
        ratio = .5 * (lengths[0] / lengths[1]).log()
        self.log_weight += (ratio - self.log_weight) / self.batches
        self._weight = self._measured = None
        if not self.is_measuring:
            print_log(f'loss_weight of {name} is '
                      f'{self._measured_weight():.4g} from here on '
                      "('auto')", 'current')

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._weight = self._measured = None


def split_strength(cfg: Any) -> tuple[Any, dict | None]:
    """Split a term's config into its own options and those of
    :class:`Strength`; ``None``: it has none of these.

    Raises:
        ConfigError: The weight is another word than ``'auto'``.
    """
    if not isinstance(cfg, Mapping):
        return cfg, None  # refused where it is built
    own = {k: v for k, v in cfg.items() if k not in OPTIONS}
    strength = {k: cfg[k] for k in OPTIONS if k in cfg}
    weight = own.get('loss_weight')
    if isinstance(weight, str) and weight != AUTO:
        raise ConfigError('loss_weight', f'must be a number >= 0 or {AUTO!r}, '
                          f'got {weight!r}')
    if weight == AUTO:
        del own['loss_weight']
        strength['auto'] = True
    return own, strength or None


def _square(loss: Tensor, at: Sequence[Tensor]) -> Tensor | None:
    """Squared length of the gradient; ``None``: the loss does not depend on
    the tensors."""
    if not loss.requires_grad:
        return None
    found = [g for g in torch.autograd.grad(
        loss * _SCALE, at, retain_graph=True, allow_unused=True)
        if g is not None]
    return torch.stack([g.float().square().sum() for g in found]).sum() \
        if found else None


def _progress() -> float:
    """Share of the training that is done, in [0, 1).

    Raises:
        RuntimeError: No hook says how far the training is.
    """
    hub = MessageHub.get_current_instance()
    done, length = hub.get_info('iter'), hub.get_info('max_iters')
    if done is None or not length:
        raise RuntimeError(
            "a term's until and decay need the progress of the training, "
            "which MMEngine's RuntimeInfoHook writes; keep it in "
            'default_hooks')
    return done / length
