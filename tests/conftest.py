"""What every test needs."""

import pytest
from mmengine.registry import DefaultScope


@pytest.fixture(autouse=True)
def clean_scope():
    """A runner leaves its default scope behind, in which the next test's
    names would be looked up."""
    yield
    DefaultScope._instance_dict.clear()
