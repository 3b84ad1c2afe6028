"""timm's classifiers, inside other modules too."""

from __future__ import annotations

from typing import Any

from mmpretrain.models.classifiers import TimmClassifier as _TimmClassifier

from mmkd_rl.registry import MODELS

from .wrapped import _add_prefix, _drop_prefix


@MODELS.register_module()
class TimmClassifier(_TimmClassifier):
    """MMPretrain's ``TimmClassifier``, which also works inside another module.

    MMPretrain's class works only as the outermost model. Inside another
    module, such as the average of ``EMAHook``, it saves ``module.model.*`` and
    loads ``module.*``, so a run with EMA fails at its first checkpoint, with
    or without teachers. Here both names are ``module.*``. As the outermost
    model both classes use timm's names, so they load each other's checkpoints.

    Args:
        *args: See ``mmpretrain.TimmClassifier``.
        **kwargs: ``model_name``, ``pretrained``, ``loss``,
            ``data_preprocessor``, ``init_cfg`` and timm's own arguments.
    """

    # The base class registers these two as hooks.
    def _remove_state_dict_prefix(self, *args: Any) -> None:
        _drop_prefix(*args)

    def _add_state_dict_prefix(self, *args: Any) -> None:
        _add_prefix(self, *args)
