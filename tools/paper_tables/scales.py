"""From a table's config to the one that is run, at one of three scales.

``paper``: the config as it is. ``short`` and ``tiny`` keep what makes the
experiment (losses, strategy, hooks, number of teachers) and put it on a small
student, teachers, data and schedule, the same for all of MTKD-RL's tables.
Knowledge Flow's tables differ in networks and tasks, so no student can stand
in for all (``Table.as_is``): ``short`` runs the configs that are small
already, ``tiny`` makes each one smaller.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from inspect import signature
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from mmkd_rl.recipes import distill
from mmkd_rl.registry import MODELS
from mmkd_rl.utils.configs import configs_of, merge_options
from paper_tables.cells import Cell, Table, check_names

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
_PUPILS = ('MultiTeacherDistiller', 'KnowledgeFlowBackbone')
_WORK = 'work_dirs'
# What makes a network smaller, for rendered digits of 3x32x32.
_SMALLER: dict[str, dict] = {
    'CifarDenseNet': dict(depth=10, growth_rate=4),
    'CifarWideResNet': dict(depth=10, widen_factor=1),
    'MLP': dict(in_shape=(3, 32, 32)),
    'PlainConvNet': dict(stages='cifar', width=8),
}
_CPU_STUDENT = 'cifar100/baseline/resnet8_1xb64-6e_cifar100-fifth.py'


@dataclass(frozen=True)
class Scale:
    """A budget.

    Attributes:
        name: As on the command line.
        summary: What it is, for the report's head.
        student: Config of the student that stands in for all, in ``configs``;
            ``None``: each its own.
        student_name: Its name.
        teachers: Configs of the pool, best first, so that a smaller pool is
            the first ones.
        interval: Of the weights' record, in iterations.
        turn: Student's iterations between two turns of an agent, and before
            the first; ``None``: an epoch.
        shrink: Changes a small config further, in place.
        fitted: Configs that are run as they are get what all small runs have,
            see :func:`fit`.
        seconds: Expected, by a teacher's name, ``'baseline'`` or
            ``'distilled'``; on one core of a server's CPU.
    """
    name: str
    summary: str
    student: str | None = None
    student_name: str = ''
    teachers: dict[str, str] = field(default_factory=dict)
    interval: int = 100
    turn: int | None = None
    shrink: Callable[[Config], None] | None = None
    fitted: bool = False
    seconds: dict[str, float] = field(default_factory=dict)


def load(name: str) -> Config:
    """A config of ours.

    Args:
        name: File under ``configs/``.

    Returns:
        A copy that the caller may change.

    Raises:
        FileNotFoundError: There is none.
    """
    path = configs_of('mmkd_rl') / name
    if not path.is_file():
        raise FileNotFoundError(f'configs/{name}: there is no such config')
    return copy.deepcopy(_read(path))


def read(cell: Cell) -> Config:
    """What a cell runs at the scale of its paper.

    Raises:
        FileNotFoundError, ValueError: See :func:`load` and
            :func:`mmkd_rl.distill`.
    """
    cfg = load(cell.config)
    if cell.strategy:
        cfg = distill(cfg, cell.strategy, pool=cell.pool,
                      terms=cell.terms or None)
        # Each run has a folder of its own.
        cfg.pop('work_dir')
    merge_options(cfg, cell.changes)
    return cfg


def command(cell: Cell) -> str:
    """A cell as one command of ``tools/train.py``, its lines folded."""
    words = [f'mmkd_rl::{cell.config}', *options(cell)]
    if cell.changes or cell.terms or ':' in cell.pool:
        # The folder's usual name says config and strategy only.
        words.append('--work-dir work_dirs/'
                     f'{Path(cell.config).stem}_{cell.method}')
    return 'python tools/train.py ' + ' \\\n    '.join(words)


def options(cell: Cell) -> list[str]:
    """What makes a cell of its config: options of ``tools/train.py``."""
    found = []
    if cell.strategy:
        found.append(f'--distill {cell.strategy} --pool {cell.pool}')
    for term in cell.terms:
        found.append(' '.join(['--term', term['type'], *(
            f'{k}={v}' for k, v in term.items() if k != 'type')]))
    if cell.changes:
        found.append(' '.join(['--cfg-options', *(
            f'{k}={_word(v)}' for k, v in cell.changes.items())]))
    return found


def _word(value: Any) -> str:
    """A value as ``--cfg-options`` reads it."""
    if not isinstance(value, list | tuple):
        return str(value)
    left, right = '[]' if isinstance(value, list) else '()'
    return f'"{left}{",".join(map(str, value))}{right}"'


@lru_cache(maxsize=256)
def _read(path: Path) -> Config:
    """A plan reads some configs dozens of times."""
    return Config.fromfile(path)


def load_named(name: str) -> Config:
    """A config as a teacher names it: a path, or ``mmkd_rl::...``.

    Raises:
        FileNotFoundError: There is none.
    """
    if name.startswith('mmkd_rl::'):
        return load(name.partition('::')[2])
    if '::' in name:
        import mmengine.hub
        return mmengine.hub.get_config(name)
    if not Path(name).is_file():
        raise FileNotFoundError(f'{name!r} is not a file')
    return Config.fromfile(name)


def sources(model: Any) -> list[Any]:
    """Parts of a model's config whose weights come from other runs.

    Teachers of a distiller or of Knowledge Flow, and what a network begins
    from: an ``init_cfg`` of type ``Pretrained`` with a file in ``work_dirs``.

    Returns:
        The parts themselves, in the order in which they stand.
    """
    found = []
    if isinstance(model, dict):
        kind = _plain(model.get('type', ''))
        teachers = model.get('teachers')
        if kind in _PUPILS and isinstance(teachers, list | tuple):
            found += list(teachers)
            model = {k: v for k, v in model.items() if k != 'teachers'}
        if kind == 'Pretrained' and _is_ours(model.get('checkpoint')):
            found.append(model)
        model = list(model.values())
    if isinstance(model, list | tuple):
        for part in model:
            found += sources(part)
    return found


def _is_ours(checkpoint: Any) -> bool:
    """Whether a run here has made it; blank: one whose file is left out."""
    return checkpoint == '' or (isinstance(checkpoint, str)
                                and Path(checkpoint).parts[:1] == (_WORK, ))


def fill(source: Any, config: str | dict, checkpoint: str) -> None:
    """Say where the weights of one of :func:`sources` are, in place."""
    source['checkpoint'] = checkpoint
    if 'name' in source:
        source['config'] = config


def origin(source: Any) -> tuple[str, str]:
    """Name of a source and of the config that makes its weights.

    An ``init_cfg`` has no name; its file tells the config, since
    ``work_dirs/CONFIG/epoch_N.pth`` is where that one's training puts it.

    Raises:
        FileNotFoundError: No config, or several, have that file's name.
    """
    if 'name' in source:
        return str(source['name']), str(source['config'])
    stem = Path(source['checkpoint']).parent.name
    folder = configs_of('mmkd_rl')
    found = sorted(folder.resolve().rglob(f'{stem}.py'))
    if len(found) != 1:
        raise FileNotFoundError(
            f'checkpoint={source["checkpoint"]!r}: {len(found)} configs are '
            f'called {stem}.py, one would say how it is made')
    return stem, f'mmkd_rl::{found[0].relative_to(folder.resolve())}'


def is_distiller(cfg: Config) -> bool:
    """Whether the config distils."""
    return _plain(cfg.model.type) == 'MultiTeacherDistiller'


def on_small(leaf: Config, scale: Scale) -> Config:
    """The experiment of ``leaf`` on the scale's student, data and schedule.

    Teachers' configs and checkpoints are the planner's to fill in.
    """
    assert scale.student is not None
    cfg = small(scale.student, scale)
    if not is_distiller(leaf):
        return cfg
    given = leaf.model
    model = {
        key: given[key]
        for key in ('type', 'logit_loss', 'feature_loss', 'losses',
                    'weighting', 'projector') if key in given
    }
    # With its scope in some leaves: that would be another identity.
    model['type'] = _plain(given.type)
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
        if _plain(hook.type) == 'AgentAlternationHook':
            length = scale.turn or 1
            hook.update(
                warmup=length, interval=length, by_epoch=scale.turn is None)
    return cfg


def small(name: str, scale: Scale) -> Config:
    """A student's or teacher's own config at a small scale."""
    cfg = load(name)
    fit(cfg, scale)
    return cfg


def fit(cfg: Config, scale: Scale) -> None:
    """Make a config smaller, one process; in place."""
    if scale.shrink is not None:
        scale.shrink(cfg)
    # Worker processes would change the order of random numbers with --jobs.
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[key].update(num_workers=0, persistent_workers=False)
    cfg.train_cfg.setdefault('val_interval', 1)


def complete(cfg: Config, scale: Scale, marks: dict[str, str]) -> None:
    """Add what every run of a table has: weights' record, exact resume.

    Args:
        cfg: Changed in place.
        scale: Its interval is the record's.
        marks: Notes on teachers for the record's picture.
    """
    # Variables of the bases: they do nothing, and would mislead a reader.
    for key in set(cfg) - _RUNNER_KEYS:
        cfg.pop(key)
    hooks = list(cfg.get('custom_hooks') or [])
    names = [_plain(hook['type']) for hook in hooks]
    if is_distiller(cfg) and 'WeightVisualizationHook' not in names:
        hooks.append(ConfigDict(type='mmkd_rl.WeightVisualizationHook'))
    if 'KnowledgeFlowHook' in names and 'FlowVisualizationHook' not in names:
        hooks.append(ConfigDict(type='mmkd_rl.FlowVisualizationHook'))
    if 'RandomStateHook' not in names:
        hooks.append(ConfigDict(type='mmkd_rl.RandomStateHook'))
    for hook in hooks:
        kind = _plain(hook['type'])
        if kind in ('WeightVisualizationHook', 'FlowVisualizationHook'):
            hook['interval'] = scale.interval
            if marks and kind == 'WeightVisualizationHook':
                hook['mark'] = dict(marks)
    cfg.custom_hooks = hooks
    # Two: one that is not yet validated is of no use for a resume.
    cfg.default_hooks.checkpoint.update(interval=1, max_keep_ckpts=2)


def permute_labels(cfg: Config, classes: int) -> None:
    """Let a teacher learn a permutation of the classes, in place.

    Raises:
        ValueError: Its training pipeline does not end with PackInputs.
    """
    for dataset in _datasets(cfg.train_dataloader.dataset):
        steps = list(dataset.get('pipeline') or [])
        at = [i for i, s in enumerate(steps) if _plain(s.type) == 'PackInputs']
        if not at:
            continue
        steps.insert(at[-1], ConfigDict(
            type='mmkd_rl.PermuteLabels', num_classes=classes, seed=0))
        dataset.pipeline = steps
        return
    raise ValueError('--spoil needs a training pipeline with PackInputs, '
                     'and this teacher has none')


def move_data(cfg: Config, root: str) -> None:
    """Put ``root`` in the place of the config's ``data_root``, everywhere."""
    old = cfg.get('data_root')
    if not old:
        return
    old, new = str(old).rstrip('/'), root.rstrip('/')

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            for key in value:
                value[key] = moved(value[key])
            return value
        if isinstance(value, list):
            return [moved(item) for item in value]
        if isinstance(value, str) and (value == old
                                       or value.startswith(old + '/')):
            return new + value[len(old):]
        return value

    for key in ('data_root', 'train_dataloader', 'val_dataloader',
                'test_dataloader', 'val_evaluator', 'test_evaluator',
                'custom_hooks'):
        if key in cfg:
            cfg[key] = moved(cfg[key])


def data_folders(cfg: Config) -> list[str]:
    """Folders of images that the config reads."""
    found = []
    for key in ('train_dataloader', 'val_dataloader'):
        for dataset in _datasets(cfg[key].dataset):
            if 'data_root' in dataset:
                found.append(str(dataset.data_root))
    return list(dict.fromkeys(found))


def _datasets(dataset: Any) -> Iterator[Any]:
    """A data set's config and those that it wraps."""
    yield dataset
    for inner in (dataset.get('dataset'), *dataset.get('datasets', ())):
        if inner is not None:
            yield from _datasets(inner)


def _plain(kind: str) -> str:
    """A type's name without its scope."""
    return str(kind).rpartition('.')[2]


def _on_digits(cfg: Config) -> None:
    """A handful of iterations on the embedded digits."""
    _train_on_digits(cfg)
    cfg.model.head.num_classes = 10


def _each_on_digits(cfg: Config) -> None:
    """The same for any classifier, its networks made smaller."""
    _train_on_digits(cfg)
    network = cfg.model.get('student', cfg.model)
    backbone = network.backbone
    student = backbone.get('student', backbone)
    network.head.num_classes = 10
    if 'probe_size' in cfg.model:
        cfg.model.probe_size = 32
    if small := _SMALLER.get(_plain(student.type)):
        student.update(small)
        network.head.in_channels = MODELS.build(student).out_channels[-1]


def _train_on_digits(cfg: Config) -> None:
    digits = load('_base_/demo_digits.py')
    for key in ('data_preprocessor', 'train_dataloader', 'val_dataloader',
                'test_dataloader', 'val_evaluator', 'test_evaluator'):
        cfg[key] = digits[key]
    # CIFAR-100's: --data-root must not look for images.
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
            'short',
            "ResNet-8 on a fifth of CIFAR-100's training images (10,000, "
            '6 epochs), all test images; teachers trained on all images: '
            'ResNet-14 and WRN-10-2 (3 epochs), ResNet-20 (2 epochs); '
            'bfloat16',
            _CPU_STUDENT,
            'resnet8',
            _CPU_TEACHERS,
            interval=39,
            # An epoch of 156 iterations would leave an agent five turns.
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
#: Of tables whose configs are run as they are.
AS_IS = {
    scale.name: scale
    for scale in (
        SCALES['paper'],
        Scale(
            'short',
            'each config as it is: they are made for minutes on a CPU core',
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


def find_scale(table: Table, name: str | None) -> Scale:
    """A scale of a table; ``None``: its first.

    Raises:
        ValueError: The table does not have it.
    """
    name = table.scales[0] if name is None else name
    check_names('--scale', [name], table.scales, table.name)
    return (AS_IS if table.as_is else SCALES)[name]
