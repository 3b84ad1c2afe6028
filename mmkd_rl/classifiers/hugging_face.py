"""Image classifiers of transformers, inside other modules too."""

from __future__ import annotations

from typing import Any

from mmpretrain.models.classifiers import (
    HuggingFaceClassifier as _HuggingFaceClassifier,
)

from mmkd_rl.registry import MODELS

from .wrapped import _add_prefix, _drop_prefix


@MODELS.register_module()
class HuggingFaceClassifier(_HuggingFaceClassifier):
    """MMPretrain's ``HuggingFaceClassifier``, which also works inside another
    module, see :class:`TimmClassifier`.

    Args:
        *args: See ``mmpretrain.HuggingFaceClassifier``.
        **kwargs: ``model_name``, ``pretrained``, ``loss``,
            ``data_preprocessor``, ``init_cfg`` and arguments of the network's
            config.
    """

    # The base class registers these two as hooks.
    def _remove_state_dict_prefix(self, *args: Any) -> None:
        _drop_prefix(*args)

    def _add_state_dict_prefix(self, *args: Any) -> None:
        _add_prefix(self, *args)
