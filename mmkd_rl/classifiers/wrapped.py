"""Any network that maps images to class scores, as an MMPretrain model."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from mmpretrain.models.classifiers import BaseClassifier
from mmpretrain.models.heads import ClsHead
from torch import Tensor, nn

from mmkd_rl.registry import MODELS

CROSS_ENTROPY: dict = dict(type='mmpretrain.CrossEntropyLoss', loss_weight=1.0)


class WrappedClassifier(BaseClassifier):
    """A network in the attribute ``model``. Names in its checkpoints are the
    network's, without a prefix.

    Args:
        model: Network from images [B, 3, H, W] to class scores [B, C]; of
            several outputs the first is taken.
        loss: Config of the classification loss.
        data_preprocessor: As for ``mmpretrain.ImageClassifier``.
        init_cfg: See ``mmengine.model.BaseModule``.
    """

    def __init__(self,
                 model: nn.Module,
                 loss: dict = CROSS_ENTROPY,
                 data_preprocessor: dict | None = None,
                 init_cfg: dict | None = None) -> None:
        if data_preprocessor is None:
            data_preprocessor = {}
        if isinstance(data_preprocessor, dict):
            data_preprocessor.setdefault('type',
                                         'mmpretrain.ClsDataPreprocessor')
        super().__init__(
            init_cfg=init_cfg, data_preprocessor=data_preprocessor)
        self.model = model
        model.register_forward_hook(_main_output)
        # Without parameters: it turns logits into losses and predictions.
        self.head = ClsHead(loss=loss)
        self.register_state_dict_post_hook(_drop_prefix)
        self.register_load_state_dict_pre_hook(_add_prefix)

    def forward(self, inputs: Tensor, data_samples=None, mode='tensor'):
        """See ``mmpretrain.ImageClassifier``; ``'tensor'`` mode gives
        [B, C]."""
        logits = (self.model(inputs), )
        if mode == 'tensor':
            return self.head(logits)
        if mode == 'loss':
            return self.head.loss(logits, data_samples)
        if mode == 'predict':
            return self.head.predict(logits, data_samples)
        raise ValueError("mode must be 'tensor', 'loss' or 'predict', got "
                         f'{mode!r}')

    def extract_feat(self, inputs: Tensor):
        """Not available: networks have no common name for their features.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError('use taps to read features of '
                                  f'{type(self.model).__name__}')

    def loss(self, inputs: Tensor, data_samples) -> dict:
        """Losses of a batch."""
        return self.forward(inputs, data_samples, mode='loss')

    def predict(self, inputs: Tensor, data_samples=None):
        """Predictions of a batch."""
        return self.forward(inputs, data_samples, mode='predict')


@MODELS.register_module()
class ModuleClassifier(WrappedClassifier):
    """A classifier from a user's plain ``nn.Module``.

    Args:
        module: Import path of the module's class or of a function that builds
            it, ``'my_package.nets.MyNet'``.
        loss: Config of the classification loss.
        data_preprocessor: As for ``mmpretrain.ImageClassifier``.
        init_cfg: See ``mmengine.model.BaseModule``.
        **kwargs: Arguments of the class or the function.

    Raises:
        ValueError: ``module`` cannot be imported.
        TypeError: ``module`` builds no ``nn.Module``.
    """

    def __init__(self,
                 module: str,
                 loss: dict = CROSS_ENTROPY,
                 data_preprocessor: dict | None = None,
                 init_cfg: dict | None = None,
                 **kwargs: Any) -> None:
        model = imported(module)(**kwargs)
        if not isinstance(model, nn.Module):
            raise TypeError(f'module={module!r} builds a '
                            f'{type(model).__name__}, not an nn.Module')
        super().__init__(model, loss, data_preprocessor, init_cfg)


def imported(path: str) -> Any:
    """Import an object by its path.

    Raises:
        ValueError: No such module, or no such name in it.
    """
    module, _, name = path.rpartition('.')
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f'module={path!r} cannot be imported ({error}); give a path such '
            "as 'my_package.nets.MyNet', whose package Python finds "
            '(PYTHONPATH)') from error


def _main_output(module: nn.Module, args: tuple, output: Any) -> Any:
    """The class scores of a network that also gives those of auxiliary heads
    in training (GoogLeNet, Inception) or other results; the auxiliary ones
    are not trained."""
    if isinstance(output, Mapping):
        return output.get('logits', next(iter(output.values())))
    return output[0] if isinstance(output, (tuple, list)) else output


def _drop_prefix(module: nn.Module, state: dict, prefix: str,
                 metadata: dict) -> None:
    for name in list(state):
        if name.startswith(prefix + 'model.'):
            state[prefix + name[len(prefix + 'model.'):]] = state.pop(name)


def _add_prefix(module: nn.Module, state: dict, prefix: str,
                *args: Any) -> None:
    own = {prefix + 'model.' + n for n, _ in module.model.named_parameters()}
    own |= {prefix + 'model.' + n for n, _ in module.model.named_buffers()}
    for name in list(state):
        long = prefix + 'model.' + name[len(prefix):]
        if name.startswith(prefix) and long in own:
            state[long] = state.pop(name)
