"""Teachers of which only inner layers are read (Knowledge Flow)."""

from __future__ import annotations

from typing import Any

from torch import nn

from mmkd_rl.records import Batch
from mmkd_rl.tasks.base import TapConfig
from mmkd_rl.tasks.feature import FeatureTask


class BackboneTask(FeatureTask):
    """Backbones of networks of any task, without outputs."""

    backbone_only = True

    def feature_taps(self, model: nn.Module,
                     key: str) -> TapConfig | list[TapConfig]:
        """An empty list: there are no outputs."""
        return []

    def run(self, model: nn.Module, batch: Batch) -> Any:
        """One forward pass of a backbone, or of a whole model that has
        none."""
        if hasattr(model, 'data_preprocessor'):
            return model(batch.images, mode='tensor')
        return model(batch.images)

    def inner_root(self, model: nn.Module) -> nn.Module:
        """The network itself."""
        return model
