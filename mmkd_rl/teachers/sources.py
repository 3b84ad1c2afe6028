"""Networks of other packages by name, as teachers.

- ``'timm::resnet50.a1_in1k'``: a model of timm;
- ``'torchvision::wide_resnet50_2'``: a classifier of torchvision;
- ``'transformers::microsoft/resnet-50'``: an image classifier of transformers
  (a version that MMPretrain works with: 4.28 to 4.57) by its name on the Hub,
  or by a folder with ``config.json`` and ``preprocessor_config.json``;
- ``'python::my_package.nets.MyNet'``: your own class or function that builds
  an ``nn.Module`` from images to class scores. In Python, the class or the
  function itself works, too.

Arguments follow after commas: ``'timm::resnet18,num_classes=10'``. The
network's normalisation and, if it accepts only one, the image size are taken
from its package.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Mapping
from typing import Any

from mmkd_rl.options import ConfigError, parse_options

#: Packages handled here; MMEngine resolves the names of all others.
SOURCES = ('timm', 'torchvision', 'transformers', 'python')
_PREPROCESSOR = 'mmpretrain.ClsDataPreprocessor'


def named(config: Any, key: str) -> Any:
    """Replace a class or a function by its name, which config files can hold.

    >>> import torchvision
    >>> named(torchvision.models.resnet18, 'teacher')
    'python::torchvision.models.resnet.resnet18'

    Args:
        config: ``config`` of a teacher; strings and dicts are returned.
        key: Key of the teacher, for messages.

    Raises:
        ConfigError: An object that cannot be imported by its name: a network,
            a lambda, a class within a function.
    """
    if not callable(config):
        return config
    module = str(getattr(config, '__module__', None))
    name = getattr(config, '__qualname__', '')
    if getattr(sys.modules.get(module), name, None) is not config:
        kind = type(config).__name__
        raise ConfigError(
            key, f'config is a {kind} that a run cannot import by its name; '
            'give a class or a function at the top level of a module, which '
            'builds the network, and the weights as checkpoint')
    return f'python::{module}.{name}'


def expand(teacher: Mapping, key: str) -> dict:
    """Replace a name of this kind in a teacher's dict by the network's config.

    Args:
        teacher: The user's dict; its other entries are kept.
        key: The teacher's config key, for messages.

    Raises:
        ValueError: There is no such network, or arguments have another form.
    """
    teacher = dict(teacher)
    config = named(teacher.get('config'), key)
    if not isinstance(config, str):
        return teacher
    source, separator, rest = config.partition('::')
    if not separator or source not in SOURCES:
        return teacher
    name, *arguments = rest.split(',')
    options = parse_options(arguments, f'{key}: config={config!r}',
                            "'timm::resnet18,num_classes=10'")
    if source == 'python':
        teacher['config'] = dict(
            type='mmkd_rl.ModuleClassifier', module=name, **options)
        return teacher
    kind, look_up = _PACKAGES[source]
    known = look_up(name, key)
    teacher['config'] = dict(
        type=kind, model_name=name, **options,
        data_preprocessor=dict(
            type=_PREPROCESSOR, to_rgb=True,
            mean=[255 * v for v in known['mean']],
            std=[255 * v for v in known['std']]))
    if known.get('size') is not None:
        teacher.setdefault('input_size', known['size'])
    if source == 'transformers':
        teacher.setdefault('taps', dict(
            logits=dict(path='model', index='logits')))
    return teacher


def _of_timm(name: str, key: str) -> dict[str, Any]:
    try:
        import timm
    except ImportError as error:
        raise ValueError(f'{key}: config names a model of timm, which is not '
                         'installed: pip install timm') from error
    if not timm.is_model(name):
        raise ValueError(f'{key}: timm has no model {name!r}'
                         + _near(name, timm.list_models()))
    cfg = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if cfg is None:
        return dict(mean=(.485, .456, .406), std=(.229, .224, .225))
    return dict(mean=cfg.mean, std=cfg.std,
                size=tuple(cfg.input_size[1:])
                if cfg.fixed_input_size else None)


def _near(name: str, names: list[str]) -> str:
    found = difflib.get_close_matches(name, names, n=3)
    return f'; it has {", ".join(found)}, ...' if found else ''


def _of_torchvision(name: str, key: str) -> dict[str, Any]:
    import torchvision
    models = torchvision.models
    names = models.list_models(module=models)
    if name not in names:
        raise ValueError(f'{key}: torchvision has no classifier {name!r}'
                         + _near(name, names))
    weights = models.get_model_weights(name)
    transform = weights.DEFAULT.transforms()  # type: ignore[attr-defined]
    side = transform.crop_size[0]
    fixed = name.startswith(('vit_', 'swin_', 'maxvit'))
    return dict(mean=transform.mean, std=transform.std,
                size=(side, side) if fixed else None)


def _of_transformers(name: str, key: str) -> dict[str, Any]:
    try:
        from transformers import AutoConfig, AutoImageProcessor
    except ImportError as error:
        raise ValueError(
            f'{key}: config names a model of transformers, which is not '
            "installed: pip install 'transformers<5'") from error
    try:
        config = AutoConfig.from_pretrained(name)
        processor = AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f'{key}: transformers has no image classifier {name!r}, neither '
            'on the Hub nor as a folder with config.json and '
            f'preprocessor_config.json: {str(error).splitlines()[0]}'
        ) from error
    side = getattr(config, 'image_size', None)
    return dict(mean=processor.image_mean, std=processor.image_std,
                size=(side, side) if isinstance(side, int) else side)


#: For each package: class that wraps its networks, and function that finds a
#: network's normalisation and image size.
_PACKAGES: dict[str, tuple[str, Callable[[str, str], dict[str, Any]]]] = dict(
    timm=('mmkd_rl.TimmClassifier', _of_timm),
    torchvision=('mmkd_rl.TorchVisionClassifier', _of_torchvision),
    transformers=('mmkd_rl.HuggingFaceClassifier', _of_transformers))
