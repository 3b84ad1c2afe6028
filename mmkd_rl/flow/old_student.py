"""theta_old of Knowledge Flow's Eq. (6): an earlier copy of the student.

The copy uses the teachers' features of the present student, so its logits on a
batch cost one forward pass of the student.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from mmkd_rl.export.student import plain_copy
from mmkd_rl.flow.knowledge_flow import Features, flow_of
from mmkd_rl.taps import Tap


class OldStudent:
    """The fused network at the previous iteration, or an average of it.

    Args:
        network: The student's whole network, with a knowledge flow in it.
        logits: Tap of the logits: a path, or the arguments of :class:`Tap`.
        momentum: alpha of theta_old <- alpha theta_old + (1 - alpha) theta
            (Sec. 7.6); 0: the previous iteration.

    Raises:
        ValueError: The tap's module does not exist.
    """

    def __init__(self, network: BaseModel, logits: str | dict,
                 momentum: float = 0.) -> None:
        self.momentum = momentum
        self._own = plain_copy(network).requires_grad_(False)
        self._flow = flow_of(self._own)
        self._flow.watch_gaps(False)
        self._tap = logits_tap(self._own, logits)
        self.network = network
        self.train()

    def train(self) -> None:
        """Put batch norms in training mode, as in the student, and all else in
        eval mode: dropout noise must not count as a change of the student's
        prediction."""
        self._own.train()
        norms = [m for m in self._own.modules()
                 if isinstance(m, _NormBase) and m.training]
        self._own.eval()
        for module in (self._flow, *norms):
            module.training = True

    @torch.no_grad()
    def logits(self, inputs: Tensor,
               features: Features | None = None
               ) -> tuple[Tensor, Features | None]:
        """f_theta_old before the softmax.

        Args:
            inputs: Input of the student's network.
            features: Teachers' features of these inputs; ``None``: the
                teachers are run.

        Returns:
            The logits; and the teachers' features of the backbone's first
            forward pass, ``None`` if no teachers were mixed in.
        """
        self._retire()
        self._flow.lend(features)
        try:
            with self._tap.listen(self._own) as listener:
                self._own(inputs, mode='tensor')
            return listener.tensor(), self._flow.first_features
        finally:
            self._flow.forget()

    @torch.no_grad()
    def update(self) -> None:
        """Replace theta_old, or update the average, with theta."""
        own, new = self._own.state_dict(), self.network.state_dict()
        floats = [n for n, t in own.items() if t.is_floating_point()]
        torch._foreach_lerp_([own[n] for n in floats],
                             [new[n] for n in floats], 1 - self.momentum)
        for name in own.keys() - set(floats):
            own[name].copy_(new[name])
        self._follow()

    def tensors(self) -> Iterator[Tensor]:
        """Parameters and buffers of the copy."""
        yield from self._own.parameters()
        yield from self._own.buffers()

    def state_dict(self) -> dict:
        """Weights of the copy, on the CPU, and strength of its flow."""
        return dict(weights={n: t.cpu() for n, t in
                             self._own.state_dict().items()},
                    strength=self._flow.strength)

    def load_state_dict(self, state: dict) -> None:
        """Restore the state of :meth:`state_dict`."""
        self._own.load_state_dict(state['weights'])
        self._flow.strength = state['strength']

    def _follow(self) -> None:
        """Copy the student's state that is not in tensors."""
        self._flow.strength = flow_of(self.network).strength
        self._retire()

    def _retire(self) -> None:
        """Retire the teachers that the student has retired."""
        gone = set(self._flow.active_teachers) - set(
            flow_of(self.network).active_teachers)
        if gone:
            self._flow.retire(gone)


def logits_tap(network: nn.Module, cfg: str | dict) -> Tap:
    """Build the tap of the user's option ``logits``.

    Raises:
        TypeError: The option is neither a path nor a dict.
        ValueError: See :class:`Tap`.
    """
    if isinstance(cfg, str):
        cfg = dict(path=cfg, call=-1)
    if not isinstance(cfg, dict) or 'path' not in cfg:
        raise TypeError('KnowledgeFlowHook.logits must be a module path or a '
                        f'dict with "path", got {cfg!r}')
    return Tap(network, key='KnowledgeFlowHook.logits', **cfg)


def find_logits(network: nn.Module) -> dict | None:
    """Find the logits of OpenMMLab's classifiers and segmentors.

    Returns:
        Arguments of :class:`Tap`; ``None``: the network has no class logits
        that can be compared between two students (a detector).
    """
    for path in ('head', 'decode_head'):
        head = getattr(network, path, None)
        if isinstance(head, nn.ModuleList) and len(head):
            path, head = f'{path}.{len(head) - 1}', head[-1]
        if path.startswith('decode_head'):
            # The head's loss() calls its forward(), which triggers no hook.
            if isinstance(getattr(head, 'conv_seg', None), nn.Module):
                return dict(path=f'{path}.conv_seg', call=-1)
        elif isinstance(head, nn.Module):
            return dict(path=path, call=-1)
    return None
