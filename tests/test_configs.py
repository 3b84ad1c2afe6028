"""Every config under configs/cifar100 and configs/imagenet is a lab note and
is found by its name. These configs, and all distillations of them in MTKD-RL's
tables, can be built, and train for one step of the student and of the agent.

To take only a minute on one core, the tests replace the images by two images
of noise (32x32, for ImageNet 64x64, so that vision transformers with a fixed
image size are built for 64), use untrained teachers, run each set of teachers
once for all configs with these teachers, and set the class means of ``NDLoss``
to noise. Student, losses, strategy, reward, updater, optimiser and hooks are
those of the config.
"""

import argparse
import copy
import json
import re
import shlex
from functools import cache, lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import (
    DATASETS,
    PARAM_SCHEDULERS,
    DefaultScope,
    init_default_scope,
)
from mmengine.runner import Runner
from mmpretrain.structures import DataSample

from mmkd_rl import recipes
from mmkd_rl.distillers import builder, distillation_of
from mmkd_rl.losses import NDLoss
from mmkd_rl.registry import HOOKS, MODELS
from mmkd_rl.teachers import FrozenTeacher, TeacherPool
from mmkd_rl.teachers.loading import build_network, load_model_config
from mmkd_rl.utils import cli
from mmkd_rl.utils.configs import complete_loaders, merge_options
from mmkd_rl.weighting import MTKDRL
from paper_tables import commands, pages
from paper_tables.flow_tables import FLOW_TABLES
from paper_tables.tables import METHODS, TABLES

ROOT = Path(__file__).parents[1]


def _leaves(folder):
    return sorted(
        str(p.relative_to(ROOT))
        for p in (ROOT / 'configs' / folder).rglob('*.py'))


CIFAR, IMAGENET = _leaves('cifar100'), _leaves('imagenet')
LEAVES = CIFAR + IMAGENET
BASES = sorted(
    str(p.relative_to(ROOT)) for p in (ROOT / 'configs' / '_base_').rglob(
        '*.py') if 'demo' not in p.name)
#: Cells of MTKD-RL's tables that distil, by a name for the test.
CELLS = {
    f'{Path(cell.config).parts[0]}-{cell.student}-{cell.method}': cell
    for table in TABLES.values() if table not in FLOW_TABLES
    for cell in table.cells if cell.strategy}
#: Cells of one student with the methods of a table and with our variants.
COMPARED = [name for name, cell in CELLS.items()
            if cell.method.partition('_')[0] in METHODS]
#: Cells that are trained in the tests: variants of a method for one student.
TRAINED = [name for name, cell in CELLS.items()
           if not cell.extra or cell.student in ('resnet56', 'resnet18')]
STUDENTS = {
    'cifar100': ['regnetx-200mf', 'mobilenetv2-x1.0', 'shufflenetv2-x1.0',
                 'resnet56'],
    'imagenet': ['resnet18', 'resnet34', 'deit-tiny', 'cait-xxs24']}
ABLATIONS = [
    *(f'updater-{u}' for u in ('pg', 'dpg', 'ddpg', 'ppo')),
    *(f'state-{s}' for s in ('performance', 'gaps', 'all')),
    *(f'teachers-{m}' for m in range(1, 5)),
    'alpha-1', 'beta-5', 'logit-only', 'feature-only']


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    """Run in the repository's root: paths of teachers are relative to it."""
    monkeypatch.chdir(ROOT)
    yield
    DefaultScope._instance_dict.clear()


@cache
def of_cell(name):
    """Config of a cell; callers must not change it."""
    return commands.read(CELLS[name])


@cache
def _read(path):
    return Config.fromfile(path)


def read(path):
    """A copy of a config, which is parsed only once."""
    return copy.deepcopy(_read(path))


# ---- names and notes -----------------------------------------------------


@pytest.mark.parametrize('path', BASES)
def test_base_parses(path):
    assert Config.fromfile(path)


def test_every_cell_is_there():
    """Tables 1, 2 and 3 have all methods for all students; Tables 6 and 7 and
    Fig. 2 have all rows."""
    for data, students in STUDENTS.items():
        for student in students:
            for method in METHODS:
                if method != 'baseline':
                    assert f'{data}-{student}-{method}' in CELLS
    for name in ABLATIONS:
        assert f'cifar100-shufflenetv2-x1.0-{name}' in CELLS
    assert {'imagenet-resnet18-dist', 'imagenet-resnet18-nd'} <= set(CELLS)


@pytest.mark.parametrize('path', LEAVES)
def test_name_follows_the_pattern(path):
    """Names are STUDENT_EPOCHS_DATA."""
    data, folder = Path(path).parts[1:3]
    if folder == 'teachers':
        pattern = r'[a-z0-9.-]+_(\dxb\d+-\d+e(-fp32)?_)?' + data
    else:
        pattern = r'[a-z0-9.-]+_(1xb\d+-)?\d+e(-fp32)?_' + data + '(-fifth)?'
    assert re.fullmatch(pattern, Path(path).stem)
    epochs = re.search(r'(\d+)e_', Path(path).stem)
    if epochs:
        assert read(path).train_cfg.max_epochs == int(epochs.group(1))


@pytest.mark.parametrize('path', LEAVES)
def test_leaf_is_a_lab_note(path):
    """The docstring of a config has the command, the expected accuracy and the
    differences from the paper."""
    text = Path(path).read_text()
    note, body = text.split('"""')[1:3]
    assert re.search(rf'^    {re.escape(path)}( 8| checkpoints/\S+)?$', note,
                     re.M)
    assert 'Differences:' in note or 'Not an experiment of the paper' in note
    assert any(words in note for words in (
        'Expected:', 'Not yet reproduced.', 'Not yet run.'))
    assert 'Paper:' in note or 'Not an experiment of the paper' in note
    assert '@' not in note
    assert len(body.splitlines()) < 45


@pytest.mark.parametrize('name', pages.PAGES)
def test_the_tables_of_a_page_are_the_data(name):
    """Pages have the tables that ``paper_tables.pages`` writes, and their
    links exist."""
    text = Path(name).read_text()
    assert pages.fill(text) == text
    assert text.count('<!-- end -->') == text.count('<!-- ') / 2 > 0
    for link in re.findall(r'\]\(([^)#:]+)(?:#[^)]*)?\)', text):
        assert Path(name).parent.joinpath(link).exists(), link


@pytest.mark.parametrize('cell', [
    pytest.param(cell, id=f'{table.name}-{cell.student}-{cell.method}')
    for table in TABLES.values() for cell in table.cells])
def test_a_cells_command_is_the_cell(cell):
    """The command that is printed for a cell has the config of the cell, and a
    work dir that no other config has."""
    words = shlex.split(commands.command(cell).replace('\\\n', ''))
    assert words[:2] == ['python', 'tools/train.py']
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    parser.add_argument('--work-dir')
    parser.add_argument('--backbone-from')
    parser.add_argument('--cfg-options', nargs='+', action=cli.Options)
    recipes.add_arguments(parser)
    args = parser.parse_args(words[2:])
    cfg = recipes.read_config(args)
    merge_options(cfg, args.cfg_options or {})
    folder = args.work_dir or cfg.get('work_dir') or Path(args.config).stem
    assert _FOLDERS.setdefault(Path(folder).name, cfg.to_dict()) == \
        cfg.to_dict()
    cfg.pop('work_dir', None)
    assert cfg.to_dict() == commands.read(cell).to_dict()


#: Config by the work dir in the cell's command.
_FOLDERS: dict = {}


# ---- comparability -------------------------------------------------------


@pytest.mark.parametrize('name', CELLS)
def test_distilled_and_alone_differ_in_the_model_only(name):
    """Data, schedule and evaluation are those of the student alone."""
    cfg, other = of_cell(name), commands.load(CELLS[name].config)
    complete_loaders(other)
    for key in ('train_dataloader', 'val_dataloader', 'optim_wrapper',
                'param_scheduler', 'train_cfg', 'data_preprocessor',
                'randomness'):
        assert cfg[key] == other[key], key
    assert cfg.model.student == other.model


@pytest.mark.parametrize('name', COMPARED)
def test_methods_differ_in_the_weights_only(name):
    """Teachers, losses and loss weights are those of AVER."""
    method = CELLS[name].method
    model = of_cell(name).model
    other = of_cell(name[:-len(method)] + 'aver').model
    differs = {k for k in {*model, *other} if model.get(k) != other.get(k)}
    assert differs <= {'weighting'} | (
        {'feature_loss'} if method == 'aver-kd' else set()) | (
        {'projector'} if method.endswith('_official') else set())


@pytest.mark.parametrize('name', CELLS)
def test_parts_have_their_hooks(name):
    """Configs have the hooks that their parts need, and no others."""
    cfg = of_cell(name)
    hooks = {h['type'].rpartition('.')[2] for h in cfg.custom_hooks}
    assert ('AgentAlternationHook' in hooks) == (
        cfg.model.weighting.type == 'MTKDRL')
    assert ('MetaWeightingHook' in hooks) == (
        cfg.model.weighting.type == 'MMKD')
    assert ('ClassMeanHook' in hooks) == name.endswith('-nd')
    assert {'TeacherCheckHook', 'StudentExportHook'} <= hooks
    init_default_scope(cfg.default_scope)
    for hook in cfg.custom_hooks:
        HOOKS.build(hook)


@pytest.mark.parametrize('base, lr, epochs', [
    ('cifar100_240e', {0: .05, 149: .05, 150: .005, 180: 5e-4, 239: 5e-5},
     240),
    # weights in the appendix
    ('cifar100_240e [100, 150]', {0: .05, 99: .05, 100: .005, 150: 5e-4},
     240),
    ('imagenet_100e', {0: .1, 29: .1, 30: .01, 60: 1e-3, 90: 1e-4}, 100),
    ('imagenet_300e_deit', {0: 1e-6, 5: 1e-3, 299: 1e-5}, 300),
])
def test_learning_rates(base, lr, epochs):
    """Learning rates of a single weight, with four iterations an epoch."""
    base, _, milestones = base.partition(' ')
    cfg = Config.fromfile(f'configs/_base_/schedules/{base}.py')
    if milestones:
        cfg.param_scheduler.milestones = json.loads(milestones)
    init_default_scope('mmkd_rl')
    rates = _rates(cfg, 4)
    assert len(rates) == 4 * epochs
    for epoch, rate in lr.items():
        # DeiT's cosine schedule ends within the last epoch, not at its start.
        assert rates[4 * epoch] == pytest.approx(rate, rel=.15), epoch


@pytest.mark.parametrize('epochs', [2, 6])
def test_short_schedule_ends_with_the_run(epochs):
    cfg = Config.fromfile('configs/_base_/schedules/cifar100_short.py')
    cfg.train_cfg.max_epochs = epochs
    init_default_scope('mmkd_rl')
    rates = _rates(cfg, 100)
    assert rates[0] == pytest.approx(.01) and max(rates) > .08
    assert 0 <= rates[-1] < .001 and rates[-1] < rates[-50]


def _rates(cfg, length):
    """Learning rate at each iteration, as a runner sets it."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)],
                                lr=cfg.optim_wrapper.optimizer.lr)
    epochs = cfg.train_cfg.max_epochs
    schedulers = []
    given = cfg.param_scheduler
    for one in given if isinstance(given, list) else [given]:
        one = dict(one)
        one.setdefault('end', epochs if one['by_epoch'] else epochs * length)
        if one.pop('convert_to_iter_based', False):
            one['convert_to_iter_based'] = True
            one['epoch_length'] = length
        schedulers.append(
            PARAM_SCHEDULERS.build(
                one, default_args=dict(optimizer=optimizer)))
    rates = []
    for i in range(epochs * length):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            if not scheduler.by_epoch:
                scheduler.step()
            elif (i + 1) % length == 0:
                scheduler.step()
    return rates


# ---- training ------------------------------------------------------------


def smaller(model, side):
    """Build vision transformers with a fixed image size for another size."""
    if str(model.get('type', '')).endswith('TimmClassifier'):
        model['img_size'] = side
    elif str(model['backbone']['type']).endswith('VisionTransformer'):
        model['backbone']['img_size'] = side
    return model


@cache
def _teacher(config):
    return smaller(load_model_config(config, 'test')[0], 64)


@lru_cache(maxsize=2)
def _pool(build):
    """Build a set of teachers once for all configs that have it."""
    return build()


class _Key:
    """Argument of the cache: compared by ``key``, with the data to build the
    pool."""

    def __init__(self, key, build):
        self.key, self.build = key, build

    def __hash__(self):
        return hash(self.key)

    def __eq__(self, other):
        return self.key == other.key

    def __call__(self):
        return self.build()


@pytest.fixture
def shared_teachers(monkeypatch):
    def pool(teachers, task):
        key = _Key(repr(teachers), lambda: TeacherPool(teachers, task))
        found = _pool(key)
        found._finite = None
        return found

    def forward(teacher, batch):
        key = (batch.images.numpy().tobytes(),
               torch.is_autocast_enabled('cpu'),
               repr(dict(teacher.tapped.adapter.named_buffers())))
        seen = teacher.__dict__.setdefault('_seen', {})
        if key not in seen:
            seen[key] = look(teacher, batch)
        return seen[key]

    look = FrozenTeacher.forward
    monkeypatch.setattr(builder, 'TeacherPool', pool)
    monkeypatch.setattr(FrozenTeacher, 'forward', forward)


def prepare(cfg, imagenet):
    """Adapt a config for the tests; returns it and the side of its images."""
    init_default_scope(cfg.default_scope)
    if not imagenet:
        for teacher in cfg.model.get('teachers', []):
            teacher.checkpoint = 'untrained'
        return cfg, 32
    for teacher in cfg.model.get('teachers', []):
        teacher.config = copy.deepcopy(_teacher(teacher.config))
        teacher.checkpoint = 'untrained'
    smaller(cfg.model.get('student', cfg.model), 64)
    if 'student' in cfg.model:
        cfg.model.probe_size = 64
    return cfg, 64


@pytest.mark.parametrize('path', LEAVES + sorted(TRAINED, key=lambda n: (
    CELLS[n].pool, CELLS[n].student)))  # by their teachers
def test_it_trains(path, shared_teachers):
    cfg, side = prepare(commands.read(CELLS[path]) if path in CELLS
                        else read(path), 'imagenet' in path)
    torch.manual_seed(0)
    if 'student' in cfg.model:
        model = MODELS.build(
            dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    else:
        model = build_network(
            dict(cfg.model, data_preprocessor=cfg.data_preprocessor),
            'mmpretrain', path)
    if path.startswith('configs/imagenet/teachers'):
        # These teachers have published weights and are not trained here.
        with torch.no_grad():
            logits = model.eval()(torch.randn(1, 3, side, side))
        logits = logits[-1] if isinstance(logits, tuple) else logits
        assert logits.isfinite().all()
        return
    model.init_weights()
    model.train()
    distillation = distillation_of(model)
    for loss in distillation.terms if distillation else ():
        if isinstance(loss, NDLoss):
            loss.set_means(
                [torch.randn(1000, t) for t in (2048, ) * loss.num_teachers],
                torch.ones(1000))
    wrapper = Runner.build_optim_wrapper(
        _Holder(model), dict(cfg.optim_wrapper))
    before = [p.detach().clone() for p in model.parameters()]
    samples = [DataSample().set_gt_label(c) for c in (3, 77)]
    # Mixup draws from NumPy; all configs get the same mixture.
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    images = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
    losses = model.train_step(
        dict(inputs=images, data_samples=samples), wrapper)
    assert all(torch.isfinite(v).all() for v in losses.values())
    # Without gradient (before a gain or classifier of zero), matrices still
    # change by weight decay; vectors and DeiT's exempt parameters may not.
    assert not [
        name for p, (name, q) in zip(before, model.named_parameters())
        if q.requires_grad and q.ndim > 1 and torch.equal(p, q)
        and not name.endswith(('cls_token', 'pos_embed'))]
    if 'student' not in cfg.model:
        return
    expected = {'loss_student'}
    reads = {term.reads for term in distillation.terms}
    expected |= {f'loss_{kind.removesuffix("s")}' for kind in reads}
    assert expected <= set(losses)
    strategy, last = distillation.weighting, distillation.last_step
    if isinstance(strategy, MTKDRL):
        strategy.learner.remember(
            last.weights.record,
            distillation.forward_after_step(model, last.seen)
            if strategy.keeps_batch else None)
        scalars = strategy.learner.update()
        assert strategy.learner.updates == 1
        assert all(np.isfinite(v) for v in scalars.values())


class _Holder:
    """The attributes of a runner that ``build_optim_wrapper`` uses."""

    def __init__(self, model):
        self.model = model


# ---- data and a whole run ------------------------------------------------


@pytest.fixture
def folders(tmp_path):
    """Folders with five classes of eight noisy grey images each, as PNG."""
    rng = np.random.default_rng(0)
    for split in ('train', 'test'):
        for c in range(5):
            folder = tmp_path / split / f'class_{c}'
            folder.mkdir(parents=True)
            for i in range(8):
                image = rng.integers(0, 40, (32, 32, 3)) + 50 * c
                cv2.imwrite(str(folder / f'{i}.png'), image.astype(np.uint8))
    return tmp_path


def test_data_are_read_and_augmented(folders):
    cfg = Config.fromfile('configs/_base_/datasets/cifar100_folders.py')
    whole = cfg.train_dataloader.dataset
    whole.data_root = str(folders / 'train')
    fifth = Config.fromfile(
        'configs/_base_/datasets/cifar100_fifth.py').train_dataloader.dataset
    assert fifth.dataset.pipeline == whole.pipeline
    fifth.dataset.data_root = whole.data_root
    init_default_scope('mmkd_rl')
    dataset, part = DATASETS.build(whole), DATASETS.build(fifth)
    assert len(dataset) == 40 and len(part) == 8
    item = dataset[39]
    assert item['inputs'].shape == (3, 32, 32)
    assert item['inputs'].dtype == torch.uint8
    assert item['data_samples'].gt_label.item() == 4
    views = {dataset[39]['inputs'].numpy().tobytes() for _ in range(8)}
    assert len(views) > 1


@pytest.mark.parametrize('base', ['imagenet', 'imagenet_deit'])
def test_imagenet_is_read_and_augmented(base, folders):
    """Images are read from ImageNet's folders; DeiT's batches have mixed
    targets."""
    cfg = Config.fromfile(f'configs/_base_/datasets/{base}.py')
    init_default_scope('mmpretrain')
    wanted = cfg.train_dataloader.dataset
    wanted.update(data_root=str(folders), type='CustomDataset',
                  data_prefix='train')
    del wanted['split']
    dataset = DATASETS.build(wanted)
    items = [dataset[i] for i in (0, 39)]
    assert all(i['inputs'].shape == (3, 224, 224) for i in items)
    preprocessor = MODELS.build(cfg.data_preprocessor)
    batch = preprocessor(
        dict(inputs=[i['inputs'] for i in items],
             data_samples=[i['data_samples'] for i in items]), training=True)
    mixed = 'gt_score' in batch['data_samples'][0]
    assert mixed == (base == 'imagenet_deit')
    if mixed:
        score = batch['data_samples'][0].gt_score
        assert score.sum().item() == pytest.approx(1.)


def test_the_short_run_goes_through(folders, tmp_path):
    """Data, agent, evaluation and export, with forty images."""
    cfg, _ = prepare(recipes.distill(
        'mmkd_rl::cifar100/baseline/resnet8_1xb64-6e_cifar100-fifth.py',
        'mtkd_rl', pool='cifar100_short'), imagenet=False)
    cfg.work_dir = str(tmp_path / 'work')
    cfg.train_dataloader.dataset.dataset.data_root = str(folders / 'train')
    cfg.train_dataloader.batch_size = 4
    for name in ('val_dataloader', 'test_dataloader'):
        cfg[name].dataset.data_root = str(folders / 'test')
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[name].update(num_workers=0, persistent_workers=False)
    cfg.train_cfg.update(max_epochs=2, val_interval=2)
    (agent, ) = [h for h in cfg.custom_hooks if 'Alternation' in h.type]
    agent.update(warmup=1, interval=1, by_epoch=False)  # of four teachers
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.model.distillation.weighting.learner.updates == 4
    names = {p.name for p in (tmp_path / 'work').iterdir()}
    assert {'epoch_2.pth', 'student.pth'} <= names
