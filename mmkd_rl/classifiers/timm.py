"""timm's classifiers, inside other modules too."""

from __future__ import annotations

from typing import Any

from mmpretrain.models.classifiers import TimmClassifier as _TimmClassifier

from mmkd_rl.registry import MODELS

from .wrapped import _add_prefix, _drop_prefix


@MODELS.register_module()
class TimmClassifier(_TimmClassifier):
    """MMPretrain's ``TimmClassifier``, which also works inside another module.

    A student may be MMPretrain's own: it stays the model itself. But with
    ``EMAHook`` it stands inside of the average, where MMPretrain's saves
    ``module.model.*`` and looks for ``module.*``: such a run, with teachers or
    without, ends at its first checkpoint. The same holds for any module of
    yours around it. Here names are ``module.*`` both ways; alone they are
    timm's own, as MMPretrain's are, so both read each other's checkpoints.

    Args:
        *args: As for ``mmpretrain.TimmClassifier``.
        **kwargs: Likewise: ``model_name``, ``pretrained``, ``loss``,
            ``data_preprocessor``, ``init_cfg`` and timm's own arguments.
    """

    # The base class registers these two as hooks.
    def _remove_state_dict_prefix(self, *args: Any) -> None:
        _drop_prefix(*args)

    def _add_state_dict_prefix(self, *args: Any) -> None:
        _add_prefix(self, *args)
