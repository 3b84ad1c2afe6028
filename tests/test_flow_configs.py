"""Every config under configs/knowledge_flow is a lab note of a network without
teachers; for each cell of Knowledge Flow's tables the teachers' configs exist,
and the model can be built and trains a step.

Classifiers are as small as with ``tools/reproduce.py --scale tiny``, and train
on two images of noise. Detectors and segmentors, which would take minutes, are
only read, and a model of each kind from the demo is trained for a step.
Teachers are untrained.
"""

import argparse
import copy
import re
import shlex
from pathlib import Path
from string import Template

import mmengine.hub
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.runner import Runner
from mmpretrain.structures import DataSample

from mmkd_rl import recipes
from mmkd_rl.engine.hooks import KnowledgeFlowHook
from mmkd_rl.flow import FlowSchedule, flow_of
from mmkd_rl.registry import HOOKS, MODELS
from mmkd_rl.utils.configs import complete_loaders
from paper_tables import commands, images, scales, sources
from paper_tables.flow_tables import FLOW_TABLES
from paper_tables.tables import TABLES

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / 'configs' / 'knowledge_flow'
NETWORKS = sorted(str(p.relative_to(ROOT)) for p in FOLDER.rglob('*.py'))
CELLS = {f'{table.name}-{cell.student}-{cell.method}': cell
         for table in FLOW_TABLES for cell in table.cells}
#: Cells with distillation or fine-tuning, by a name for the test.
CHANGED = [n for n, c in CELLS.items() if c.strategy or c.changes]
FLOWS = [n for n, c in CELLS.items() if 'knowledge_flow' in c.strategy]


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    yield
    DefaultScope._instance_dict.clear()


def read(name):
    """Config of a cell or file."""
    return commands.read(CELLS[name]) if name in CELLS else commands.load(
        name.removeprefix('configs/'))


# ---- names and notes -----------------------------------------------------


@pytest.mark.parametrize('path', NETWORKS)
def test_network_is_a_lab_note(path):
    note, body = Path(path).read_text().split('"""')[1:3]
    assert re.search(rf'^    {re.escape(path)}$', note, re.M)
    assert 'Differences:' in note
    assert 'Paper:' in note or 'Not an experiment of the paper' in note
    assert any(words in note for words in (
        'Not yet reproduced.', 'Run, see '))
    assert len(body.splitlines()) < 45
    # The folder of a checkpoint names its config and the number of epochs.
    (epochs, ) = re.findall(r'_(\d+)e_', path)
    assert read(path).train_cfg.max_epochs == int(epochs)


def test_every_network_is_in_a_table_or_teaches_in_one():
    used = set()
    for name, cell in CELLS.items():
        used.add(f'configs/{cell.config}')
        for source in sources.find(read(name).model):
            used.add(sources.origin(source)[1].replace('mmkd_rl::',
                                                       'configs/'))
    assert set(NETWORKS) <= used


def test_tables_have_the_papers_errors():
    """The paper's text has relative gains on CIFAR-10 of 13 % and 4 %."""
    cells = {(c.student, c.method): 100 - c.mean
             for c in TABLES['kf-table3'].cells}
    base = cells['cifar10', 'baseline']
    assert 1 - cells['cifar10', 'kf'] / base == pytest.approx(.13, abs=.005)
    assert 1 - cells['cifar10', 'finetune-cifar100'] / base == \
        pytest.approx(.04, abs=.005)


# ---- comparability -------------------------------------------------------


@pytest.mark.parametrize('name', CHANGED)
def test_only_the_model_differs_from_the_lone_student(name):
    cfg, other = read(name), commands.load(CELLS[name].config)
    complete_loaders(cfg), complete_loaders(other)
    for key in ('train_dataloader', 'val_dataloader', 'optim_wrapper',
                'param_scheduler', 'train_cfg', 'data_preprocessor',
                'randomness'):
        assert cfg[key] == other[key], key
    model = cfg.model.get('student', cfg.model)
    backbone = copy.deepcopy(model.backbone)
    if 'finetune' in name:
        assert backbone.pop('init_cfg').prefix == 'backbone.'
    elif name in FLOWS:
        backbone = backbone.student
    assert backbone == other.model.backbone
    assert model.head == other.model.head


@pytest.mark.parametrize('name', CHANGED)
def test_sources_are_what_they_are_called(name):
    """Each file is the last checkpoint of an existing config, and fine-tuned
    students have the backbone of their source."""
    cfg = read(name)
    found = sources.find(cfg.model)
    assert len(found) == 1 + (',' in CELLS[name].pool
                                or name.endswith('other-teachers'))
    for source in found:
        if source.checkpoint in ('untrained', 'checkpoints/resnet50.pth'):
            continue
        _, config = sources.origin(source)
        teacher = commands.load_named(config)
        stem = Path(config.partition('::')[2]).stem
        assert source.checkpoint == \
            f'work_dirs/{stem}/epoch_{teacher.train_cfg.max_epochs}.pth'
        if 'finetune' in name:
            student = {k: v for k, v in cfg.model.backbone.items()
                       if k != 'init_cfg'}
            assert student == teacher.model.backbone


@pytest.mark.parametrize('name', FLOWS)
def test_flows_have_their_hooks(name):
    cfg = read(name)
    hooks = {h.type.rpartition('.')[2]: h for h in cfg.custom_hooks}
    assert {'KnowledgeFlowHook', 'FlowVisualizationHook',
            'StudentExportHook'} <= set(hooks)
    init_default_scope(cfg.default_scope)
    for hook in cfg.custom_hooks:
        HOOKS.build(hook)
    flow = hooks['KnowledgeFlowHook']
    assert (flow.kl_weight == 0) == name.endswith('no-kl')
    assert (flow.get('old') == 'average') == name.endswith('average-old')
    ours = re.match('kf-(halves|digits)', name) and not name.endswith('paper')
    assert ('handover_weight' not in flow) == bool(ours)
    teachers = cfg.model.backbone.get('teachers', []) if \
        'backbone' in cfg.model else cfg.model.teachers
    assert all((t.checkpoint == 'untrained') == name.endswith('untrained')
               for t in teachers)


# ---- training ------------------------------------------------------------

def untrained(model):
    """Make a model small, with untrained teachers and no checkpoints."""
    for source in sources.find(model):
        if 'name' in source:
            cfg = commands.load_named(source.config)
            scales.fit(cfg, scales.AS_IS['tiny'])
            source.update(config=cfg.to_dict(), checkpoint='untrained')
        else:
            source.clear()
            source.update(type='Kaiming', layer='Conv2d')
    return model


def step(cfg, batch):
    """Train a step; returns the model and its losses."""
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
    """The attributes of a runner that ``build_optim_wrapper`` uses."""

    def __init__(self, model):
        self.model = model


@pytest.mark.parametrize('name', NETWORKS + CHANGED)
def test_it_trains(name):
    cfg = read(name)
    scales.fit(cfg, scales.AS_IS['tiny'])
    untrained(cfg.model)
    init_default_scope(cfg.default_scope)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    model, losses = step(cfg, dict(
        inputs=images,
        data_samples=[DataSample().set_gt_label(c) for c in (3, 7)]))
    assert all(torch.isfinite(v).all() for v in losses.values())
    expected = {'loss'}
    if name in FLOWS:
        expected |= {'loss_dependency'}
        assert flow_of(model).candidates
        if not name.endswith('no-kl'):
            expected |= {'loss_kl'}
    if name in CELLS and 'aver_kd' in CELLS[name].strategy:
        expected |= {'loss_logit'}
    assert expected <= set(losses), losses


# ---- detectors and segmentors --------------------------------------------


def readme_commands():
    """Commands that distil detectors and segmentors, with their variables."""
    text = (FOLDER / 'README.md').read_text().split('## Detectors')[1]
    lines = text.replace('\\\n', '').split('\n')
    values = dict(re.findall(r'^    ([A-Z_]+)=(.*)$', text, re.M))
    return [shlex.split(Template(line).substitute(values))
            for line in lines if line.startswith('    bash ')]


@pytest.mark.parametrize('words', readme_commands(), ids=lambda w: w[2])
def test_a_dense_command_wraps_the_packages_backbone(words):
    assert words[:2] == ['bash', 'tools/dist_train.sh'] and words[3] == '8'
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    recipes.add_arguments(parser)
    cfg = recipes.read_config(parser.parse_args([words[2], *words[4:]]))
    whole = mmengine.hub.get_config(words[2])
    assert cfg.model.backbone.student == whole.model.backbone
    for key in whole.model:
        if key != 'backbone':
            assert cfg.model[key] == whole.model[key]
    (teacher, ) = cfg.model.backbone.teachers
    assert commands.load_named(teacher.config).model.backbone
    assert teacher.checkpoint.startswith('https://')
    assert 'mmkd_rl' in cfg.custom_imports.imports
    hooks = [h.type.rpartition('.')[2] for h in cfg.custom_hooks]
    assert hooks == ['KnowledgeFlowHook', 'FlowVisualizationHook',
                     'StudentExportHook', 'RandomStateHook']


def test_data_of_the_halves_do_not_meet(tmp_path):
    """Teachers and student have different classes; the student has a fifth of
    its images."""
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
        cfg = read(f'knowledge_flow/{path}.py')
        images.move(cfg, str(tmp_path))
        dataset = cfg.train_dataloader.dataset
        for one in images.datasets(dataset):
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
    """All weights of the backbone are loaded, those of the head are not."""
    cfg = read('knowledge_flow/mlp-800_12e_digits.py')
    cfg.model.backbone.hidden = (5, 4)
    cfg.model.head.in_channels = 4
    init_default_scope('mmkd_rl')
    teacher = MODELS.build(cfg.model)
    torch.save(dict(state_dict=teacher.state_dict()), tmp_path / 'a.pth')
    tuned = read('kf-table5-emnist-finetune-digits')
    cfg.model.backbone.init_cfg = tuned.model.backbone.init_cfg
    (source, ) = sources.find(cfg.model)
    sources.fill(source, '', str(tmp_path / 'a.pth'))
    student = MODELS.build(cfg.model)
    student.init_weights()
    for name, weight in teacher.state_dict().items():
        same = torch.equal(weight, student.state_dict()[name])
        assert same == name.startswith('backbone.') or not weight.any(), name
