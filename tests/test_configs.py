"""Every config under configs/cifar100 and configs/imagenet is a lab note, is
found by its name, builds, and trains: one step, and one of its agent's.

Replaced, to be done in a minute on one core: images are two of noise (32x32,
ImageNet's 64x64, so vision transformers that accept one size only are built
for 64); teachers are untrained; leaves with the same teachers share one set of
them, which looks at the two images once; class means of ``NDLoss`` are noise.
Everything else is the leaf's own: student, losses, strategy, reward, updater,
optimiser, hooks.
"""

import copy
import re
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

from mmkd_rl.distillers import builder, distillation_of
from mmkd_rl.losses import NDLoss
from mmkd_rl.registry import HOOKS, MODELS
from mmkd_rl.teachers import TeacherPool
from mmkd_rl.teachers.loading import build_network, load_model_config
from mmkd_rl.teachers.runtime import FrozenTeacher
from mmkd_rl.weighting import MTKDRL

ROOT = Path(__file__).parents[1]


def _leaves(folder):
    return sorted(
        str(p.relative_to(ROOT))
        for p in (ROOT / 'configs' / folder).rglob('*.py'))


CIFAR, IMAGENET = _leaves('cifar100'), _leaves('imagenet')
LEAVES = CIFAR + sorted(
    IMAGENET, key=lambda p: '300e' in p)  # by their teachers
BASES = sorted(
    str(p.relative_to(ROOT)) for p in (ROOT / 'configs' / '_base_').rglob(
        '*.py') if 'demo' not in p.name)
DISTILLED = [
    p for p in LEAVES if not {'teachers', 'baseline'} & set(Path(p).parts)]

# The paper's tables, as a user would look for their cells.
METHODS = {
    'baseline': '', 'aver_kd': 'aver-kd_', 'aver': 'aver_',
    'eb_kd': 'eb-kd_', 'ae_kd': 'ae-kd_', 'amtml_kd': 'amtml-kd_',
    'ca_mkd': 'ca-mkd_', 'mmkd': 'mmkd_', 'mtkd_rl': 'mtkd-rl_'}
STUDENTS = {
    'cifar100': ['regnetx-200mf_240e', 'mobilenetv2-x1.0_240e',
                 'shufflenetv2-x1.0_240e', 'resnet56_240e'],
    'imagenet': ['resnet18_100e', 'resnet34_100e', 'deit-tiny_300e',
                 'cait-xxs24_300e']}
VARIANTS = ['paper-rule', 'official', 'paper-schedule']
ABLATIONS = [
    *(f'updater-{u}' for u in ('pg', 'dpg', 'ddpg', 'ppo')),
    *(f'state-{s}' for s in ('performance', 'gaps', 'all')),
    *(f'teachers-{m}' for m in range(1, 5)),
    'alpha-1', 'beta-5', 'logit-only', 'feature-only', 'balance-constant',
    'balance-learnable']


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    """Teachers' configs are named from the repository's root."""
    monkeypatch.chdir(ROOT)
    yield
    DefaultScope._instance_dict.clear()


@cache
def _read(path):
    return Config.fromfile(path)


def read(path):
    """A config; parsed once, a copy each."""
    return copy.deepcopy(_read(path))


def alone(path):
    """The config of the same student without teachers."""
    data, name = Path(path).parts[1], Path(path).stem.split('_', 1)[1]
    name = re.sub(r'_[a-z]+-rule|_official', '', name)
    if 'ablations' in path or data == 'imagenet':
        name = re.match(rf'.*?_{data}', name).group()
    found = [p for p in (f'configs/{data}/baseline/{name}.py',
                         f'configs/{data}/baseline/{name}.py'.replace(
                             '_6e', '_1xb64-6e')) if Path(p).exists()]
    return found[0]


# ---- names and notes -----------------------------------------------------


@pytest.mark.parametrize('path', BASES)
def test_base_parses(path):
    assert Config.fromfile(path)


@pytest.mark.parametrize('data', STUDENTS)
def test_every_cell_has_its_file(data):
    """Tables 1, 2 and 3: any student, any method."""
    for student in STUDENTS[data]:
        for folder, prefix in METHODS.items():
            path = f'configs/{data}/{folder}/{prefix}{student}_{data}.py'
            assert Path(path).is_file(), path


def test_every_ablation_has_its_file():
    """Tables 6 and 7, Fig. 2 and the variants of MTKD-RL."""
    folder = Path('configs/cifar100/mtkd_rl')
    for student in STUDENTS['cifar100']:
        for variant in VARIANTS:
            assert (folder /
                    f'mtkd-rl_{student}_cifar100_{variant}.py').is_file()
    for what in ABLATIONS:
        assert (folder / 'ablations' / 'mtkd-rl_shufflenetv2-x1.0_240e_'
                f'cifar100_{what}.py').is_file(), what
    for what in ('dist', 'nd'):
        assert Path('configs/imagenet/mtkd_rl/mtkd-rl_resnet18_100e_imagenet_'
                    f'{what}.py').is_file()


@pytest.mark.parametrize('path', LEAVES)
def test_name_follows_the_pattern(path):
    """PREFIX STUDENT _ EPOCHS _ DATA [_ WHAT IT CHANGES]."""
    data, folder = Path(path).parts[1:3]
    if folder == 'teachers':
        pattern = r'[a-z0-9.-]+_(\dxb\d+-\d+e_)?' + data + '(_permuted)?'
    else:
        pattern = METHODS[folder] + r'[a-z0-9.-]+_(1xb64-)?\d+e_' + data + \
            r'(-fifth)?(_[a-z0-9.-]+)?'
    assert re.fullmatch(pattern, Path(path).stem)
    epochs = re.search(r'(\d+)e_', Path(path).stem)
    if epochs:
        assert read(path).train_cfg.max_epochs == int(epochs.group(1))


@pytest.mark.parametrize('path', LEAVES)
def test_leaf_is_a_lab_note(path):
    """Its docstring says what to type, what to expect and what differs."""
    text = Path(path).read_text()
    note, body = text.split('"""')[1:3]
    assert re.search(rf'^    {re.escape(path)}( 8| checkpoints/\S+)?$', note,
                     re.M)
    assert 'Differences:' in note or 'Not an experiment of the paper' in note
    assert any(words in note for words in (
        'Expected:', 'Not yet reproduced.', 'Not yet run.', 'permuted'))
    assert 'Paper:' in note or 'Not an experiment of the paper' in note
    assert '@' not in note
    assert len(body.splitlines()) < 45


@pytest.mark.parametrize('data', STUDENTS)
def test_leaves_are_listed(data):
    """The folder's README leads to each, and to nothing that is gone."""
    text = Path(f'configs/{data}/README.md').read_text()
    linked = {
        f'configs/{data}/{p}'
        for p in re.findall(r'\]\(([^)]+\.py)\)', text)}
    assert linked == set(_leaves(data))


# ---- comparability -------------------------------------------------------


@pytest.mark.parametrize('path', DISTILLED)
def test_distilled_and_alone_differ_in_the_model_only(path):
    """What a student is compared on is the same, by construction."""
    cfg, other = read(path), read(alone(path))
    for key in ('train_dataloader', 'val_dataloader', 'optim_wrapper',
                'param_scheduler', 'train_cfg', 'data_preprocessor',
                'randomness'):
        assert cfg[key] == other[key], key
    assert cfg.model.student == other.model


@pytest.mark.parametrize('path', [
    p for p in DISTILLED
    if 'ablations' not in p and not p.endswith(('_dist.py', '_nd.py'))])
def test_methods_differ_in_the_weights_only(path):
    """Teachers, losses and their strength are AVER's."""
    aver = alone(path).replace('/baseline/', '/aver/aver_').replace(
        '1xb64-', '').replace('_paper-schedule', '')
    model, other = read(path).model, read(aver).model
    assert model.logit_loss == other.logit_loss
    if '/aver_kd/' not in path:
        assert model.feature_loss == other.feature_loss
    assert model.teachers == other.teachers
    differs = {k for k in {*model, *other} if model.get(k) != other.get(k)}
    assert differs <= {'weighting'} | (
        {'feature_loss'} if '/aver_kd/' in path else set()) | (
        {'projector'} if path.endswith('_official.py') else set())


@pytest.mark.parametrize('path', DISTILLED)
def test_parts_have_their_hooks(path):
    """Who needs a hook has it, and nobody has another's."""
    cfg = read(path)
    hooks = {h.type.rpartition('.')[2] for h in cfg.custom_hooks}
    feature_loss = cfg.model.feature_loss or {'type': None}
    assert ('AgentAlternationHook' in hooks) == (
        cfg.model.weighting.type == 'MTKDRL')
    assert ('MetaWeightingHook' in hooks) == (
        cfg.model.weighting.type == 'MMKD')
    assert ('ClassMeanHook' in hooks) == (
        str(feature_loss['type']).endswith('NDLoss'))
    assert {'TeacherCheckHook', 'StudentExportHook'} <= hooks
    init_default_scope(cfg.default_scope)
    for hook in cfg.custom_hooks:
        HOOKS.build(hook)


@pytest.mark.parametrize('base, lr, epochs', [
    ('cifar100_240e', {0: .05, 149: .05, 150: .005, 180: 5e-4, 239: 5e-5},
     240),
    ('cifar100_240e_paper', {0: .05, 99: .05, 100: .005, 150: 5e-4}, 240),
    ('imagenet_100e', {0: .1, 29: .1, 30: .01, 60: 1e-3, 90: 1e-4}, 100),
    ('imagenet_300e_deit', {0: 1e-6, 5: 1e-3, 299: 1e-5}, 300),
])
def test_learning_rates(base, lr, epochs):
    """Four iterations an epoch, on one weight."""
    cfg = Config.fromfile(f'configs/_base_/schedules/{base}.py')
    init_default_scope('mmkd_rl')
    rates = _rates(cfg, 4)
    assert len(rates) == 4 * epochs
    for epoch, rate in lr.items():
        # DeiT's cosine ends within the last epoch, not at its beginning.
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
    """The learning rate at each iteration, as the runner would set it."""
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
    """Vision transformers of one image size, built for another."""
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
    """One set of teachers for all leaves that have it."""
    return build()


class _Key:
    """Compares by ``key``; carries what builds the pool."""

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
    def pool(teachers, task, normalization):
        key = _Key(repr(teachers) + repr(vars(normalization)),
                   lambda: TeacherPool(teachers, task, normalization))
        found = _pool(key)
        found._finite = None
        return found

    def forward(teacher, batch):
        key = (batch.images.numpy().tobytes(),
               torch.is_autocast_enabled('cpu'))
        seen = teacher.__dict__.setdefault('_seen', {})
        if key not in seen:
            seen[key] = look(teacher, batch)
        return seen[key]

    look = FrozenTeacher.forward
    monkeypatch.setattr(builder, 'TeacherPool', pool)
    monkeypatch.setattr(FrozenTeacher, 'forward', forward)


def prepare(path):
    """The leaf as it is trained here, and the side of its images."""
    cfg = read(path)
    init_default_scope(cfg.default_scope)
    if 'imagenet' not in path:
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


@pytest.mark.parametrize('path', LEAVES)
def test_leaf_trains(path, shared_teachers):
    cfg, side = prepare(path)
    torch.manual_seed(0)
    if 'student' in cfg.model:
        model = MODELS.build(
            dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    else:
        model = build_network(
            dict(cfg.model, data_preprocessor=cfg.data_preprocessor),
            'mmpretrain', path)
    if path.startswith('configs/imagenet/teachers'):
        # Never trained here: their weights are public.
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
    # Mixup draws from NumPy; the same mixture for all leaves.
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    images = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
    losses = model.train_step(
        dict(inputs=images, data_samples=samples), wrapper)
    assert all(torch.isfinite(v).all() for v in losses.values())
    # Without a gradient, as before a gain or a classifier of zero, matrices
    # decay still; vectors and what DeiT exempts may rest.
    assert not [
        name for p, (name, q) in zip(before, model.named_parameters())
        if q.requires_grad and q.ndim > 1 and torch.equal(p, q)
        and not name.endswith(('cls_token', 'pos_embed'))]
    if 'student' not in cfg.model:
        return
    expected = {'loss_student'}
    if cfg.model.logit_loss is not None:
        expected.add('loss_logit')
    if cfg.model.feature_loss is not None:
        expected.add('loss_feature')
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
    """As much of a runner as ``build_optim_wrapper`` looks at."""

    def __init__(self, model):
        self.model = model


# ---- data and a whole run ------------------------------------------------


@pytest.fixture
def folders(tmp_path):
    """Five classes of eight noisy grey levels each, as PNG."""
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
    """Folders as ImageNet's; DeiT's batches have mixed targets."""
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
    """All of it once, on forty images: data, agent, evaluation, export."""
    cfg, _ = prepare(
        'configs/cifar100/mtkd_rl/mtkd-rl_resnet8_6e_cifar100-fifth.py')
    cfg.work_dir = str(tmp_path / 'work')
    cfg.train_dataloader.dataset.dataset.data_root = str(folders / 'train')
    cfg.train_dataloader.batch_size = 4
    for name in ('val_dataloader', 'test_dataloader'):
        cfg[name].dataset.data_root = str(folders / 'test')
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[name].update(num_workers=0, persistent_workers=False)
    cfg.train_cfg.update(max_epochs=2, val_interval=2)
    (agent, ) = [h for h in cfg.custom_hooks if 'Alternation' in h.type]
    agent.update(warmup=1, interval=1)  # iteration, of four
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.model.distillation.weighting.learner.updates == 4
    names = {p.name for p in (tmp_path / 'work').iterdir()}
    assert {'epoch_2.pth', 'student.pth'} <= names
