"""What every test needs."""

import random

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

from mmkd_rl.utils.patches import patch_mmengine

# As the tools do; many tests read configs of mmseg first.
patch_mmengine()


@pytest.fixture(autouse=True)
def same_random_numbers():
    """Whatever ran before: a test that draws without a seed of its own must
    not pass on one day and fail on another."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def clean_scope():
    """A runner leaves its default scope behind, in which the next test's
    names would be looked up."""
    yield
    DefaultScope._instance_dict.clear()
