"""Save and restore the global generators of Python, NumPy and PyTorch; and
separate generators for parts of the distillation."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import numpy as np
import torch

_BITS = np.random.MT19937(0)


def capture(cuda: bool = True) -> dict:
    """The generators' states as plain values and tensors, so that a checkpoint
    with them can be loaded without running code.

    Args:
        cuda: Whether to include the generators of all GPUs.
    """
    version, numbers, gauss = random.getstate()
    # Transforms of the OpenMMLab packages draw from NumPy's global generator.
    name, keys, position, has_gauss, cached = \
        np.random.get_state()  # noqa: NPY002
    return dict(
        python=[version, list(numbers), gauss],
        numpy=[
            name,
            torch.from_numpy(np.asarray(keys, np.int64)),
            int(position),
            int(has_gauss),
            float(cached)
        ],
        torch=torch.get_rng_state(),
        cuda=torch.cuda.get_rng_state_all()
        if cuda and torch.cuda.is_available() else [])


def restore(state: dict) -> None:
    """Restore the states that :func:`capture` returned."""
    version, numbers, gauss = state['python']
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = state['numpy']
    np.random.set_state(  # noqa: NPY002
        (name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state['torch'].cpu())
    if state['cuda'] and len(state['cuda']) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state['cuda']])


@contextmanager
def unchanged_on_cpu() -> Iterator[None]:
    """Restore the generators of Python, NumPy and PyTorch's CPU at the end of
    the block. Those of GPUs are left out, because reading them would start
    CUDA on each GPU."""
    state = capture(cuda=False)
    try:
        yield
    finally:
        restore(state)


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Seed the generators of Python, NumPy and PyTorch's CPU in the block, and
    go on behind it where they were.

    A tenth of the time of :func:`unchanged_on_cpu`, because NumPy gets another
    generator in place of its state; a normal number that NumPy has drawn in
    advance is lost.

    Args:
        *numbers: The seed.
    """
    digest = blake2b(repr(numbers).encode(), digest_size=4).digest()
    seed = int.from_bytes(digest, 'little')
    python, bits = random.getstate(), np.random.get_bit_generator()  # type: ignore[attr-defined]
    # torch.manual_seed would look at each GPU.
    pytorch = torch.default_generator.get_state()
    random.seed(seed)
    np.random.set_bit_generator(_BITS)  # type: ignore[attr-defined]
    # Transforms of the OpenMMLab packages draw from NumPy's global generator.
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_bit_generator(bits)  # type: ignore[attr-defined]
        torch.default_generator.set_state(pytorch)


class RandomNumbers:
    """PyTorch generators of a part of the distillation, one for each type of
    device.

    With them the student's random numbers (dropout, augmentation) do not
    depend on the distillation. Seeded from the global generator when built.
    """

    def __init__(self) -> None:
        self._generators: dict[str, torch.Generator] = {}
        self.seed(int(torch.randint(2**31, ())))

    def seed(self, seed: int) -> None:
        """Restart the generators of all devices."""
        self._seed = seed
        self._generators.clear()

    def on(self, device: torch.device | str) -> torch.Generator:
        """The generator for tensors of a device."""
        name = torch.device(device).type
        if name not in self._generators:
            self._generators[name] = torch.Generator(device).manual_seed(
                self._seed)
        return self._generators[name]

    def state_dict(self) -> dict:
        """The seed, and the states of all generators."""
        return dict(seed=self._seed, generators={
            name: g.get_state() for name, g in self._generators.items()})

    def load_state_dict(self, state: dict) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.seed(state['seed'])
        for name, value in state['generators'].items():
            if name == 'cpu' or torch.cuda.is_available():
                # Without an index: the process's current device.
                self.on(name).set_state(value.cpu())
