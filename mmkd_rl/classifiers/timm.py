"""timm's classifiers, as students too."""

from __future__ import annotations

from typing import Any

from mmpretrain.models.classifiers import TimmClassifier as _TimmClassifier

from mmkd_rl.registry import MODELS

from .torchvision import _add_prefix, _drop_prefix


@MODELS.register_module()
class TimmClassifier(_TimmClassifier):
    """MMPretrain's ``TimmClassifier``, with checkpoints that load again when
    it stands inside another model.

    A distiller saves MMPretrain's as ``student.model.*`` and then looks for
    ``student.*``, so a resumed run would silently start with new weights.
    Here it is ``student.*`` both ways. Alone, the names are timm's own, as in
    MMPretrain's.

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
