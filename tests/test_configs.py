"""Every config under configs/cifar100 parses, builds and trains."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope, init_default_scope
from mmengine.runner import Runner
from mmpretrain.structures import DataSample

from mmkd_rl.registry import MODELS

ROOT = Path(__file__).parents[1]
LEAVES = sorted(
    str(p.relative_to(ROOT))
    for p in (ROOT / 'configs' / 'cifar100').rglob('*.py'))
BASES = sorted(
    str(p.relative_to(ROOT)) for p in (ROOT / 'configs' / '_base_').rglob(
        '*.py') if 'demo' not in p.name)


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    """Teachers' configs are named from the repository's root."""
    monkeypatch.chdir(ROOT)
    yield
    DefaultScope._instance_dict.clear()


def load(path):
    cfg = Config.fromfile(path)
    init_default_scope(cfg.get('default_scope', 'mmkd_rl'))
    for teacher in cfg.model.get('teachers', []):
        teacher.checkpoint = 'untrained'
    return cfg


def test_there_are_leaves():
    families = {Path(p).parent.name for p in LEAVES}
    assert families == {'teachers', 'baseline', 'aver', 'mtkd_rl'}


@pytest.mark.parametrize('path', BASES)
def test_base_parses(path):
    assert Config.fromfile(path)


@pytest.mark.parametrize('path', LEAVES)
def test_leaf_is_a_lab_note(path):
    """Its docstring says what to type, what to expect and what differs."""
    text = Path(path).read_text()
    note = text.split('"""')[1]
    assert f'{path}\n' in note
    assert 'Differences:' in note or 'Not an experiment of the paper' in note
    assert any(words in note for words in ('Expected:', 'Not yet reproduced.',
                                           'Not yet run.'))
    assert '@' not in note


@pytest.mark.parametrize('path', LEAVES)
def test_distilled_and_alone_differ_in_the_model_only(path):
    """What a student is compared on is the same, by construction."""
    cfg = Config.fromfile(path)
    if 'student' not in cfg.model:
        return
    scale = '1xb64-240e_cifar100.py' if '240e' in path else \
        '1xb64-6e_cifar100-fifth.py'
    name = Path(path).stem.split('_')[1]
    alone = Config.fromfile(f'configs/cifar100/baseline/{name}_{scale}')
    for key in ('train_dataloader', 'val_dataloader', 'optim_wrapper',
                'param_scheduler', 'train_cfg', 'data_preprocessor',
                'randomness'):
        assert cfg[key] == alone[key], key
    assert cfg.model.student == alone.model


@pytest.mark.parametrize('path', LEAVES)
def test_leaf_trains(path):
    cfg = load(path)
    torch.manual_seed(0)
    model = MODELS.build(
        dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    model.init_weights()
    model.train()
    runner_cfg = dict(cfg.optim_wrapper)
    wrapper = Runner.build_optim_wrapper(
        _Holder(model), runner_cfg)  # needs nothing else of a runner
    before = [p.clone() for p in model.parameters()]
    samples = [DataSample().set_gt_label(c) for c in (3, 77)]
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    losses = model.train_step(
        dict(inputs=images, data_samples=samples), wrapper)
    assert all(torch.isfinite(v).all() for v in losses.values())
    if 'student' in cfg.model:
        assert {'loss_student', 'loss_logit', 'loss_feature'} <= set(losses)
    assert all(not torch.equal(p, q)
               for p, q in zip(before, model.parameters())
               if p.requires_grad)


class _Holder:
    """As much of a runner as ``build_optim_wrapper`` looks at."""

    def __init__(self, model):
        self.model = model


@pytest.fixture
def folders(tmp_path):
    """Five classes of four noisy grey levels each, as PNG."""
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


def test_the_short_run_goes_through(folders, tmp_path):
    """All of it once, on forty images: data, agent, evaluation, export."""
    cfg = load(
        'configs/cifar100/mtkd_rl/mtkd-rl_resnet8_6e_cifar100-fifth.py')
    cfg.work_dir = str(tmp_path / 'work')
    cfg.train_dataloader.dataset.dataset.data_root = str(folders / 'train')
    cfg.train_dataloader.batch_size = 4
    for name in ('val_dataloader', 'test_dataloader'):
        cfg[name].dataset.data_root = str(folders / 'test')
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[name].update(num_workers=0, persistent_workers=False)
    cfg.train_cfg.update(max_epochs=2, val_interval=2)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.model.weighting.learner.updates == 2
    names = {p.name for p in (tmp_path / 'work').iterdir()}
    assert {'epoch_2.pth', 'student.pth'} <= names
