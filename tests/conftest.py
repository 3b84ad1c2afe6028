"""Fixtures of all tests."""

import random

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope

from mmkd_rl.utils.patches import patch_mmengine

# The tools do the same; many tests read configs of mmseg before anything else.
patch_mmengine()


@pytest.fixture(autouse=True)
def same_random_numbers():
    """Seed all generators, so that the result of a test without a seed of its
    own does not depend on the tests before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def clean_scope():
    """Remove the default scope of a test's runner, in which names of the next
    test would be looked up, and its loggers, which write to closed streams."""
    yield
    DefaultScope._instance_dict.clear()
    MMLogger._instance_dict.clear()
