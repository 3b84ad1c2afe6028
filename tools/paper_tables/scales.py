"""Changes a table's config for one of four scales.

``paper`` keeps the config. ``medium``, ``short`` and ``tiny`` keep losses,
strategy, hooks and number of teachers, and replace student, teachers, data and
schedule by small ones, which are the same for all of MTKD-RL's tables; at
``medium`` the teachers' outputs are stored. The tables of Knowledge Flow
differ in networks and tasks, so that one student cannot replace all
(``Table.as_is``): ``short`` runs configs that are small already, ``tiny``
makes each config smaller.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from inspect import signature

from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from mmkd_rl.recipes.storing import store_outputs
from mmkd_rl.registry import MODELS
from mmkd_rl.utils.configs import class_name
from paper_tables import tiny_data
from paper_tables.cells import Table, check_names
from paper_tables.commands import load

#: Scopes of configs of detectors and segmentors.
DENSE = ('mmdet', 'mmseg')
PERMUTED = 'labels permuted'
_RUNNER_KEYS = set(signature(Runner.__init__).parameters) | {
    'auto_scale_lr', 'custom_imports', 'data_root', 'env_cfg',
    'find_unused_parameters', 'model_wrapper_cfg', 'runner_type', 'sync_bn'
}
_CPU_TEACHERS = {
    'resnet14': 'cifar100/teachers/resnet14_1xb128-3e_cifar100.py',
    'wrn10-2': 'cifar100/teachers/wrn10-2_1xb128-3e_cifar100.py',
    'resnet20': 'cifar100/teachers/resnet20_1xb128-2e_cifar100.py',
}
# Options that make a network smaller, for rendered digits of 3x32x32.
_SMALLER: dict[str, dict] = {
    'CifarDenseNet': dict(depth=10, growth_rate=4),
    'CifarWideResNet': dict(depth=10, widen_factor=1),
    'MLP': dict(in_shape=(3, 32, 32)),
    'PlainConvNet': dict(stages='cifar', width=8),
}
_MEDIUM_TEACHERS = {
    'resnet8x4': 'cifar100/teachers/resnet8x4_1xb128-30e_cifar100.py',
    'wrn16-2': 'cifar100/teachers/wrn16-2_1xb128-30e_cifar100.py',
}
#: Folder of stored outputs in a config; the planner moves it.
STORES = 'stores'
_CPU_STUDENT = 'cifar100/baseline/resnet8_1xb64-6e_cifar100-fifth.py'


@dataclass(frozen=True)
class Scale:
    """A budget of data, network sizes and time.

    Attributes:
        name: Name on the command line.
        summary: Description for the head of a report.
        student: File under ``configs`` of the student that replaces all
            students; ``None`` to keep the student of each config.
        student_name: Name of this student.
        teachers: Configs of the pool by teacher, best first; a smaller pool
            has the first ones.
        interval: Interval of the record of weights, in iterations.
        turn: Number of the student's iterations before the agent is first
            trained, and between two trainings; ``None`` for an epoch.
        shrink: Function that makes a config smaller, in place.
        views: Number of views whose outputs of the teachers are stored; 0 to
            run the teachers in each step.
        fitted: Apply :func:`fit` to configs that keep their student.
        seconds: Expected time of a run on one core of a server's CPU, by
            teacher or method, and for all others under ``'baseline'`` or
            ``'distilled'``.
    """
    name: str
    summary: str
    student: str | None = None
    student_name: str = ''
    teachers: dict[str, str] = field(default_factory=dict)
    interval: int = 100
    turn: int | None = None
    shrink: Callable[[Config], None] | None = None
    views: int = 0
    fitted: bool = False
    seconds: dict[str, float] = field(default_factory=dict)


def is_distiller(cfg: Config) -> bool:
    """Whether the model of a config is a MultiTeacherDistiller."""
    return class_name(cfg.model.type) == 'MultiTeacherDistiller'


def on_small(leaf: Config, scale: Scale, student: str) -> Config:
    """Config of an experiment with the scale's teachers, data and schedule.

    Args:
        leaf: Config of the experiment.
        scale: Scale with teachers.
        student: File under ``configs`` of the student.

    Returns:
        A new config. The planner adds configs and checkpoints of teachers.
    """
    cfg = small(student, scale)
    if not is_distiller(leaf):
        return cfg
    given = leaf.model
    model = {
        key: given[key]
        for key in ('type', 'logit_loss', 'feature_loss', 'losses',
                    'weighting', 'projector') if key in given
    }
    # Some configs write the type with its scope, which would change the
    # identity of the run.
    own = cfg.default_scope == 'mmkd_rl'
    model['type'] = ('' if own else 'mmkd_rl.') + class_name(given.type)
    cfg.model = ConfigDict(
        **copy.deepcopy(model),
        student=cfg.model,
        teachers=[
            dict(name=name)
            for name in list(scale.teachers)[:len(given.teachers)]
        ],
        probe_size=32)
    cfg.custom_hooks = copy.deepcopy(leaf.get('custom_hooks', []))
    for hook in cfg.custom_hooks:
        if class_name(hook.type) == 'AgentAlternationHook':
            length = scale.turn or 1
            hook.update(
                warmup=length, interval=length, by_epoch=scale.turn is None)
    if scale.views:
        # Maps, so that terms for logits and for features share a store.
        store_outputs(cfg, STORES, scale.views, features='uint8')
    return cfg


def small(name: str, scale: Scale) -> Config:
    """Load the config of a student or teacher, fitted to a small scale.

    Args:
        name: File under ``configs/``.
        scale: The scale.
    """
    cfg = load(name)
    fit(cfg, scale)
    return cfg


def fit(cfg: Config, scale: Scale) -> None:
    """Shrink a config, and load data without worker processes, in place."""
    if scale.shrink is not None:
        scale.shrink(cfg)
    # With worker processes the random numbers would depend on their order.
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[key].update(num_workers=0, persistent_workers=False)
    cfg.train_cfg.setdefault('val_interval', 1)


def complete(cfg: Config, scale: Scale, marks: dict[str, str]) -> None:
    """Add the hooks that all runs have: record of weights, exact resume.

    Args:
        cfg: Config, changed in place.
        scale: Scale, whose ``interval`` is that of the record.
        marks: Notes by teacher for the picture of the weights.
    """
    # Variables of base configs have no effect and would mislead a reader.
    for key in set(cfg) - _RUNNER_KEYS:
        cfg.pop(key)
    hooks = list(cfg.get('custom_hooks') or [])
    names = [class_name(hook['type']) for hook in hooks]
    if is_distiller(cfg) and 'WeightVisualizationHook' not in names:
        hooks.append(ConfigDict(type='mmkd_rl.WeightVisualizationHook'))
    if 'KnowledgeFlowHook' in names and 'FlowVisualizationHook' not in names:
        hooks.append(ConfigDict(type='mmkd_rl.FlowVisualizationHook'))
    if 'RandomStateHook' not in names:
        hooks.append(ConfigDict(type='mmkd_rl.RandomStateHook'))
    for hook in hooks:
        kind = class_name(hook['type'])
        if kind in ('WeightVisualizationHook', 'FlowVisualizationHook'):
            hook['interval'] = scale.interval
            if marks and kind == 'WeightVisualizationHook':
                hook['mark'] = dict(marks)
    cfg.custom_hooks = hooks
    # Two checkpoints, because the last one cannot be resumed from before its
    # epoch is validated.
    cfg.default_hooks.checkpoint.update(interval=1, max_keep_ckpts=2)
    if 'max_iters' in cfg.train_cfg:
        cfg.default_hooks.checkpoint.update(
            by_epoch=False, interval=cfg.train_cfg.val_interval)


def _on_digits(cfg: Config) -> None:
    """Train a classifier for 8 iterations on the embedded digits."""
    _train_on_digits(cfg)
    cfg.model.head.num_classes = 10


def _each_on_digits(cfg: Config) -> None:
    """Train any classifier, with smaller networks, on the embedded digits."""
    _train_on_digits(cfg)
    network = cfg.model.get('student', cfg.model)
    backbone = network.backbone
    student = backbone.get('student', backbone)
    network.head.num_classes = 10
    if 'probe_size' in cfg.model:
        cfg.model.probe_size = 32
    if small := _SMALLER.get(class_name(student.type)):
        student.update(small)
        network.head.in_channels = MODELS.build(student).out_channels[-1]


def _any_on_tiny(cfg: Config) -> None:
    """Train a detector or segmentor on drawn images, a classifier on the
    embedded digits."""
    if cfg.get('default_scope') in DENSE:
        # The planner moves it to a folder in its work dir.
        tiny_data.fit(cfg, 'data/tiny')
    else:
        _on_digits(cfg)


def _train_on_digits(cfg: Config) -> None:
    digits = load('_base_/demo_digits.py')
    for key in ('data_preprocessor', 'train_dataloader', 'val_dataloader',
                'test_dataloader', 'val_evaluator', 'test_evaluator'):
        cfg[key] = digits[key]
    # It is that of CIFAR-100; digits need no images from --data-root.
    cfg.pop('data_root', None)
    cfg.train_dataloader.batch_size = 32
    cfg.train_dataloader.drop_last = True
    for key, images in (('train_dataloader', 128), ('val_dataloader', 100),
                        ('test_dataloader', 100)):
        cfg[key].dataset.update(renderings=1, indices=images)
    cfg.optim_wrapper = ConfigDict(
        type='OptimWrapper', optimizer=dict(type='AdamW', lr=4e-3))
    cfg.param_scheduler = []
    cfg.train_cfg = ConfigDict(by_epoch=True, max_epochs=2)
    cfg.default_hooks.logger.interval = 1


SCALES = {
    scale.name: scale
    for scale in (
        Scale('paper', 'networks, data and schedule of the paper'),
        Scale(
            'medium',
            'ResNet-20 on all of CIFAR-100, 30 epochs; teachers ResNet-8x4 '
            'and WRN-16-2, trained for 30 epochs, whose outputs are stored '
            'for 6 views of each image',
            'cifar100/baseline/resnet20_1xb128-30e_cifar100.py',
            'resnet20',
            _MEDIUM_TEACHERS,
            interval=130,
            # A third of an epoch.
            turn=130,
            views=6,
            seconds=dict(
                resnet8x4=6_600, baseline=2_700, distilled=3_000,
                **{'wrn16-2': 3_600})),
        Scale(
            'short',
            "ResNet-8 on a fifth of CIFAR-100's training images (10,000, "
            '6 epochs), all test images; teachers trained on all images: '
            'ResNet-14 and WRN-10-2 (3 epochs), ResNet-20 (2 epochs); '
            'bfloat16',
            _CPU_STUDENT,
            'resnet8',
            _CPU_TEACHERS,
            interval=39,
            # With a turn an epoch (156 iterations) the agent would be trained
            # only five times.
            turn=39,
            seconds=dict(
                resnet14=290, resnet20=260, baseline=110, distilled=220,
                mmkd=265, **{'wrn10-2': 350})),
        Scale(
            'tiny',
            'ResNet-8 and teachers ResNet-14, WRN-10-2, ResNet-20, 8 '
            'iterations each on 128 rendered digits, 100 test images: it '
            'shows that everything runs; **its numbers mean nothing**',
            _CPU_STUDENT,
            'resnet8',
            _CPU_TEACHERS,
            interval=1,
            shrink=_on_digits,
            seconds=dict.fromkeys(
                ('resnet14', 'resnet20', 'wrn10-2', 'baseline', 'distilled'),
                9.)),
    )
}
#: Scales of tables that keep the student of each config.
AS_IS = {
    scale.name: scale
    for scale in (
        SCALES['paper'],
        Scale(
            'short',
            'each config as it is; a run takes minutes on a CPU core',
            interval=20,
            fitted=True),
        Scale(
            'tiny',
            'each config with its networks made smaller, 8 iterations on 128 '
            'rendered digits, 100 test images, whatever its task: it shows '
            'that everything runs; **its numbers mean nothing**',
            interval=1,
            shrink=_each_on_digits,
            fitted=True,
            seconds=dict.fromkeys(('baseline', 'distilled'), 9.)),
    )
}


#: Scales of tables of detectors and segmentors.
DOWNSTREAM = {
    **AS_IS,
    'tiny': Scale(
        'tiny',
        'backbones and teachers (ResNet-14, WRN-10-2, ResNet-20) are trained '
        'for 8 iterations on 128 rendered digits; detectors and segmentors '
        "for 2 iterations on a few drawn images in their data set's format: "
        'it shows that everything runs; **its numbers mean nothing**',
        teachers=_CPU_TEACHERS,
        interval=1,
        shrink=_any_on_tiny,
        fitted=True),
}


def find_scale(table: Table, name: str | None) -> Scale:
    """A scale of a table by name; ``None`` for the first one.

    Raises:
        ValueError: The table does not have this scale.
    """
    name = table.scales[0] if name is None else name
    check_names('--scale', [name], table.scales, table.name)
    if table.has_starts:
        return DOWNSTREAM[name]
    return (AS_IS if table.as_is else SCALES)[name]
