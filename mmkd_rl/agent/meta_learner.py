"""MMKD's weight networks with all that they need to learn.

Like :class:`AgentLearner` it is no ``nn.Module``: the networks are no part of
the student's optimiser, of its weight averages or of DDP's buckets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mmengine.optim  # noqa: F401  (registers PyTorch's optimisers)
import torch
from mmengine import dist
from mmengine.registry import OPTIMIZERS
from torch import Tensor, nn

from mmkd_rl.agent.hard_samples import HardBuffer
from mmkd_rl.registry import build
from mmkd_rl.utils.random_state import RandomNumbers


class WeightNetwork(nn.Module):
    """softmax(MLP(x)): a sample's state to weights of the teachers.

    The last layer starts at zero, so that the first weights are equal.

    Args:
        size: S.
        num_teachers: M.
        hidden: Width of the hidden layer.

    Raises:
        ValueError: ``hidden`` is not positive.
    """

    def __init__(self, size: int, num_teachers: int,
                 hidden: int = 128) -> None:
        super().__init__()
        if hidden < 1:
            raise ValueError(f'weighting.hidden must be >= 1, got {hidden}')
        last = nn.Linear(hidden, num_teachers)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.first = nn.Linear(size, hidden)
        self.last = last

    def forward(self, state: Tensor) -> Tensor:
        """[B, S] to [B, M]; rows sum to one."""
        return self.last(self.first(state).relu()).softmax(1)


class MetaLearner:
    """Networks, their optimiser, and the samples that they learn from.

    Args:
        networks: By name, ``'logit'`` and ``'feature'`` or one of them.
        optimizer: Config of the optimiser, without the parameters; what it
            leaves out is Adam's with 1e-3.
        buffer: Hard samples.

    Raises:
        ValueError, TypeError: No such optimiser, or not such arguments.
    """

    def __init__(self, networks: dict[str, WeightNetwork],
                 optimizer: dict | None, buffer: HardBuffer) -> None:
        self.networks = nn.ModuleDict(networks)
        self.optimizer: torch.optim.Optimizer = build(
            OPTIMIZERS, {'type': 'Adam', 'lr': 1e-3, **(optimizer or {})},
            'weighting.optimizer', params=self.parameters())
        self.buffer = buffer
        #: Updates so far; 0 while weights are equal.
        self.updates = 0

    def __deepcopy__(self, memo: dict) -> MetaLearner:
        """Copies of a distiller (EMA makes one) share its networks."""
        return self

    @property
    def random(self) -> RandomNumbers:
        """Generators with which samples of the buffer are drawn."""
        return self.buffer.random

    def parameters(self) -> list[nn.Parameter]:
        """Of the networks."""
        return list(self.networks.parameters())

    def step(self, gradients: Sequence[Tensor]) -> tuple[bool, Tensor]:
        """One step of the optimiser on the mean over all processes.

        Args:
            gradients: One a parameter.

        Returns:
            Whether they were finite, or else nothing was changed; and their
            norm.
        """
        dist.all_reduce_params(list(gradients), op='mean')
        norm = torch.linalg.vector_norm(
            torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
        finite = bool(norm.isfinite())
        if finite:
            for parameter, gradient in zip(self.parameters(), gradients):
                parameter.grad = gradient
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.updates += 1
        return finite, norm

    def synchronize(self) -> None:
        """Give every process the first one's networks."""
        for tensor in self.networks.state_dict().values():
            dist.broadcast(tensor)

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """What ``nn.Module._apply`` does to the tree: device, precision."""
        self.networks._apply(fn)
        self.buffer.apply_(fn)
        for state in self.optimizer.state.values():
            for name, value in state.items():
                if isinstance(value, Tensor) and name != 'step':
                    state[name] = fn(value)

    def state_dict(self) -> dict:
        """Tensors and plain values only."""
        return dict(
            networks={
                k: v.cpu()
                for k, v in self.networks.state_dict().items()
            },
            optimizer=self.optimizer.state_dict(),
            buffer=self.buffer.state_dict(),
            random=self.random.state_dict(),
            updates=self.updates)

    def load_state_dict(self, state: dict) -> None:
        """Restore what :meth:`state_dict` returned.

        Raises:
            ValueError: The state is of other networks.
        """
        try:
            self.networks.load_state_dict(state['networks'])
        except RuntimeError as error:
            raise ValueError(
                "the checkpoint's weight networks do not fit this config "
                f'(other teachers, losses or hidden): {error}') from error
        self.optimizer.load_state_dict(state['optimizer'])
        self.buffer.load_state_dict(state['buffer'])
        device = next(self.networks.parameters()).device
        self.buffer.apply_(lambda t: t.to(device))
        self.updates = state['updates']
        if 'random' in state:  # not in checkpoints of 0.1's first layout
            self.random.load_state_dict(state['random'])
