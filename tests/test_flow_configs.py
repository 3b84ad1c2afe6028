"""Every config under configs/knowledge_flow is a lab note, leads to its
teachers, builds, and takes one step of training.

Classifiers are made as small as ``tools/reproduce.py --scale tiny`` makes
them and see two images of noise; detectors and segmentors, of minutes each,
are only read, and one sibling of each kind from the demo is trained for a
step. Teachers are untrained.
"""

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.runner import Runner
from mmpretrain.structures import DataSample

from mmkd_rl.engine.hooks import KnowledgeFlowHook
from mmkd_rl.flow import FlowSchedule, flow_of
from mmkd_rl.registry import HOOKS, MODELS
from paper_tables import TABLES, scales
from paper_tables.flow_tables import FLOW_TABLES

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / 'configs' / 'knowledge_flow'
ALL = sorted(str(p.relative_to(ROOT)) for p in FOLDER.rglob('*.py'))
DENSE = [p for p in ALL if '/dense/' in p]
LEAVES = [p for p in ALL if p not in DENSE]
FLOWS = [p for p in LEAVES if re.match('kf', Path(p).stem)]


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    yield
    DefaultScope._instance_dict.clear()


def read(path):
    return scales.load(path.removeprefix('configs/'))


# ---- names and notes -----------------------------------------------------


@pytest.mark.parametrize('path', ALL)
def test_leaf_is_a_lab_note(path):
    note, body = Path(path).read_text().split('"""')[1:3]
    assert re.search(rf'^    {re.escape(path)}( 8)?$', note, re.M)
    assert 'Differences:' in note
    assert 'Paper:' in note or 'Not an experiment of the paper' in note
    assert any(words in note for words in (
        'Expected:', 'Not yet reproduced.', 'Not yet run.', 'Run, see '))
    assert len(body.splitlines()) < 45


def test_names_are_unique_and_say_the_epochs():
    """A checkpoint's folder tells whose it is."""
    stems = [Path(p).stem for p in ALL]
    assert len(set(stems)) == len(stems)
    for path in LEAVES:
        (epochs, ) = re.findall(r'_(\d+)e_', path)
        assert read(path).train_cfg.max_epochs == int(epochs), path


def test_leaves_are_listed():
    text = (FOLDER / 'README.md').read_text()
    linked = {f'configs/knowledge_flow/{p}'
              for p in re.findall(r'\]\(([^)]+\.py)\)', text)}
    assert {p for p in linked if '..' not in p} == set(ALL)


def test_every_leaf_is_in_a_table_or_teaches_in_one():
    used = set()
    for table in FLOW_TABLES:
        for cell in table.cells:
            leaf = scales.load(cell.config)
            used.add(f'configs/{cell.config}')
            for source in scales.sources(leaf.model):
                used.add(scales.origin(source)[1].replace(
                    'mmkd_rl::', 'configs/'))
    assert set(LEAVES) <= used


def test_tables_have_the_papers_errors():
    """Its text: 13 % and 4 % better than the baseline on CIFAR-10."""
    cells = {(c.student, c.method): 100 - c.mean
             for c in TABLES['kf-table3'].cells}
    base = cells['cifar10', 'baseline']
    assert 1 - cells['cifar10', 'kf'] / base == pytest.approx(.13, abs=.005)
    assert 1 - cells['cifar10', 'finetune-cifar100'] / base == \
        pytest.approx(.04, abs=.005)


# ---- comparability -------------------------------------------------------


@pytest.mark.parametrize(
    'path', [p for p in LEAVES if re.match('kf_|kd_|kfkd_|finetune_',
                                           Path(p).stem)])
def test_only_the_model_differs_from_the_lone_student(path):
    name = re.sub(r'^(kf|kd|kfkd|finetune)_', '', Path(path).stem)
    name = re.sub(r'_(from-[a-z0-9-]+|untrained|no-kl|paper|average-old|'
                  'other-teachers|good-and-poor)$', '', name)
    (alone, ) = [p for p in (*FOLDER.rglob(f'{name}.py'),
                             *(ROOT / 'configs/imagenet').rglob(f'{name}.py'))]
    cfg, other = read(path), Config.fromfile(alone)
    for key in ('train_dataloader', 'val_dataloader', 'optim_wrapper',
                'param_scheduler', 'train_cfg', 'data_preprocessor'):
        assert cfg[key] == other[key], key
    model = cfg.model.get('student', cfg.model)
    backbone = model.backbone
    backbone = copy.deepcopy(backbone.get('student', backbone))
    if name != Path(path).stem and backbone.get('init_cfg'):
        assert backbone.pop('init_cfg').prefix == 'backbone.'
    assert backbone == other.model.backbone
    assert model.head == other.model.head


@pytest.mark.parametrize('path', LEAVES)
def test_sources_are_what_they_are_called(path):
    """Each file is the last checkpoint of the config that makes it; who a
    student is fine-tuned from has its backbone."""
    cfg = read(path)
    for source in scales.sources(cfg.model):
        if source.checkpoint == 'untrained':
            continue
        if source.checkpoint.startswith('checkpoints/'):
            continue
        name, config = scales.origin(source)
        teacher = scales.load_named(config)
        stem = Path(config.partition('::')[2]).stem
        assert source.checkpoint == \
            f'work_dirs/{stem}/epoch_{teacher.train_cfg.max_epochs}.pth'
        if 'name' not in source:
            student = {k: v for k, v in cfg.model.backbone.items()
                       if k != 'init_cfg'}
            assert student == teacher.model.backbone


@pytest.mark.parametrize('path', FLOWS)
def test_flows_have_their_hooks(path):
    cfg = read(path)
    hooks = {h.type.rpartition('.')[2]: h for h in cfg.custom_hooks}
    assert {'KnowledgeFlowHook', 'FlowVisualizationHook',
            'StudentExportHook'} <= set(hooks)
    init_default_scope(cfg.default_scope)
    for hook in cfg.custom_hooks:
        HOOKS.build(hook)
    flow = hooks['KnowledgeFlowHook']
    assert (flow.kl_weight == 0) == path.endswith('no-kl.py')
    assert (flow.get('old') == 'average') == path.endswith('average-old.py')


# ---- training ------------------------------------------------------------


def untrained(model):
    """Without files: teachers as they are born, made small."""
    for source in scales.sources(model):
        if 'name' in source:
            cfg = scales.load_named(source.config)
            scales.fit(cfg, scales.AS_IS['tiny'])
            source.update(config=cfg.to_dict(), checkpoint='untrained')
        else:
            source.clear()
            source.update(type='Kaiming', layer='Conv2d')
    return model


def step(cfg, batch):
    """One step of training; the model and its losses."""
    torch.manual_seed(0)
    model = MODELS.build(
        dict(cfg.model, data_preprocessor=cfg.data_preprocessor)
        if 'data_preprocessor' in cfg else cfg.model)
    model.init_weights()
    model.train()
    flows = [h for h in cfg.get('custom_hooks', [])
             if h.type.endswith('KnowledgeFlowHook')]
    if flows:
        options = {k: v for k, v in flows[0].items() if k != 'type'}
        KnowledgeFlowHook(**options).attach(
            model, FlowSchedule(4, 8, dependency_weight=.1))
    wrapper = Runner.build_optim_wrapper(_Holder(model),
                                         dict(cfg.optim_wrapper))
    return model, model.train_step(batch, wrapper)


class _Holder:
    """As much of a runner as ``build_optim_wrapper`` looks at."""

    def __init__(self, model):
        self.model = model


@pytest.mark.parametrize('path', LEAVES)
def test_leaf_trains(path):
    cfg = read(path)
    scales.fit(cfg, scales.AS_IS['tiny'])
    untrained(cfg.model)
    init_default_scope(cfg.default_scope)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    model, losses = step(cfg, dict(
        inputs=images,
        data_samples=[DataSample().set_gt_label(c) for c in (3, 7)]))
    assert all(torch.isfinite(v).all() for v in losses.values())
    expected = {'loss'}
    if path in FLOWS:
        expected |= {'loss_dependency'}
        assert flow_of(model).candidates
        if not path.endswith('no-kl.py'):
            expected |= {'loss_kl'}
    if re.match('kd|kfkd', Path(path).stem):
        expected |= {'loss_logit'}
    assert expected <= set(losses), losses


@pytest.mark.parametrize('path', DENSE)
def test_dense_config_is_the_packages_with_a_wrapper(path):
    cfg = Config.fromfile(path)
    base = Path(path).read_text().split("_base_ = [\n    '")[1].split("'")[0]
    import mmengine.hub
    whole = mmengine.hub.get_config(base)
    assert cfg.model.backbone.student == whole.model.backbone
    for key in whole.model:
        if key != 'backbone':
            assert cfg.model[key] == whole.model[key]
    assert len(Path(path).read_text().split('"""')[2].splitlines()) < 30
    (teacher, ) = cfg.model.backbone.teachers
    assert scales.load_named(teacher.config).model.backbone
    assert 'mmkd_rl' in cfg.custom_imports.imports


def test_data_of_the_halves_do_not_meet(tmp_path):
    """Teachers and student see other classes; the student a fifth."""
    import cv2
    from mmengine.registry import DATASETS
    for c in range(10):
        folder = tmp_path / f'class_{c}'
        folder.mkdir()
        for i in range(5):
            cv2.imwrite(str(folder / f'{i}.png'),
                        np.full((32, 32, 3), 10 * c + i, np.uint8))
    init_default_scope('mmkd_rl')
    seen = {}
    for path in ('resnet14_5e_first-half', 'resnet14_12e_second-half',
                 'resnet14_5e_first-half_noise',
                 'resnet14_5e_first-half_rotations'):
        cfg = read(f'configs/knowledge_flow/cifar100_halves/{path}.py')
        scales.move_data(cfg, str(tmp_path))
        dataset = cfg.train_dataloader.dataset
        for one in scales._datasets(dataset):
            if 'data_root' in one:
                one.data_root = str(tmp_path)
        dataset = DATASETS.build(dataset)
        items = [dataset[i] for i in range(len(dataset))]
        seen[path] = {
            (Path(i['data_samples'].img_path).parent.name,
             i['data_samples'].gt_label.item()) for i in items}
        assert len(items) == (5 if 'second' in path else 25)
    first = {(f'class_{c}', c) for c in range(5)}
    assert seen['resnet14_5e_first-half'] == first
    assert seen['resnet14_12e_second-half'] <= {
        (f'class_{c + 5}', c) for c in range(5)}
    assert {c for c, _ in seen['resnet14_5e_first-half_noise']} == \
        {c for c, _ in first}
    assert {k for _, k in seen['resnet14_5e_first-half_rotations']} <= \
        set(range(4))
    assert len(seen['resnet14_5e_first-half_noise'] - first) > 5


def test_what_a_network_begins_from_is_read(tmp_path):
    """All of the backbone, to the bit; not the head."""
    cfg = read('configs/knowledge_flow/digits/mlp-800_12e_digits.py')
    cfg.model.backbone.hidden = (5, 4)
    cfg.model.head.in_channels = 4
    init_default_scope('mmkd_rl')
    teacher = MODELS.build(cfg.model)
    torch.save(dict(state_dict=teacher.state_dict()), tmp_path / 'a.pth')
    tuned = read('configs/knowledge_flow/table5/'
                 'finetune_mlp-256_40e_emnist-letters_from-digits.py')
    cfg.model.backbone.init_cfg = tuned.model.backbone.init_cfg
    (source, ) = scales.sources(cfg.model)
    scales.fill(source, '', str(tmp_path / 'a.pth'))
    student = MODELS.build(cfg.model)
    student.init_weights()
    for name, weight in teacher.state_dict().items():
        same = torch.equal(weight, student.state_dict()[name])
        assert same == name.startswith('backbone.') or not weight.any(), name
