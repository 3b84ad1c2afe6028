"""Teachers of which only inner layers are read (Knowledge Flow)."""

from __future__ import annotations

from typing import Any

from torch import nn

from mmkd_rl.records import Batch, Truth
from mmkd_rl.tasks.base import TapConfig, Task


class BackboneTask(Task):
    """Backbones of networks of any task, without outputs and labels."""

    backbone_only = True

    def feature_taps(self, model: nn.Module,
                     key: str) -> TapConfig | list[TapConfig]:
        """None."""
        return []

    def logit_taps(self, model: nn.Module,
                   key: str) -> TapConfig | list[TapConfig]:
        """None."""
        return []

    def run(self, model: nn.Module, batch: Batch) -> Any:
        """One forward pass of a backbone, or of a whole model that has
        none."""
        if hasattr(model, 'data_preprocessor'):
            return super().run(model, batch)
        return model(batch.images)

    def inner_root(self, model: nn.Module) -> nn.Module:
        """The network itself."""
        return model

    def truth(self, batch: Batch) -> Truth:
        """Not available for backbones.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError('a backbone has no labels')
