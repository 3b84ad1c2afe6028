"""Names of classes and the normalisation that a checkpoint knows are compared
with the config, used where it says nothing, and kept by the export."""

import numpy as np
import pytest
import torch

from mmkd_rl.export import export_student
from mmkd_rl.export.student import check_whole
from mmkd_rl.registry import MODELS
from mmkd_rl.teachers import building
from tests.toy import classifier, distiller, toy_runner, toy_teachers

CFG = """
model = dict(type='ImageClassifier')
data_preprocessor = dict(mean=[1., 2., 3.], std=[4., 5., 6.], to_rgb=True)
"""


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(building, 'print_log',
                        lambda text, *args, **kwargs: lines.append(text))
    return lines


def teacher(tmp_path, config=None, cfg=CFG, **changes):
    known, = toy_teachers(tmp_path, 1)
    content = torch.load(known['checkpoint'])
    torch.save(dict(content, meta=dict(cfg=cfg)), known['checkpoint'])
    model = MODELS.build(distiller(
        [{**known, **(dict(config=config) if config else {}), **changes}],
        data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor')))
    return model.distillation.teachers[0].normalization


def test_the_checkpoints_normalisation_is_used(tmp_path, said):
    found = teacher(tmp_path)
    assert (found.mean, found.std, found.to_rgb) == (
        (1., 2., 3.), (4., 5., 6.), True)
    assert "checkpoint's training" in said[0]


@pytest.mark.parametrize('mean, warns', [([1., 2., 3.], False),
                                         ([100., 2., 3.], True)])
def test_the_config_is_compared_with_it(mean, warns, tmp_path, said):
    found = teacher(tmp_path, classifier(5, data_preprocessor=dict(
        type='mmpretrain.ClsDataPreprocessor', mean=mean, std=[4., 5., 6.],
        to_rgb=True)))
    assert found.mean == tuple(mean)
    assert any('mean=[1.0, 2.0, 3.0]' in line for line in said) == warns


def test_the_users_own_comes_first(tmp_path, said):
    found = teacher(tmp_path, normalization=dict(mean=[7.], std=[8.]))
    assert found.mean == (7., )
    assert not said


@pytest.mark.parametrize('slowdown, warns', [(7., True), (.5, False)])
def test_a_precision_that_is_emulated(slowdown, warns, tmp_path, said,
                                      monkeypatch):
    monkeypatch.setattr(building, 'bfloat16_slowdown', lambda d: slowdown)
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    teacher(tmp_path, precision='bfloat16')
    assert any('7.0 times' in line for line in said) == warns


@pytest.mark.parametrize('cfg', ['', 'import os', None, 'model = 3',
                                 'data_preprocessor = dict(mean=[1.])',
                                 'data_preprocessor = dict(mean=1, std=0)'])
def test_a_checkpoint_that_says_nothing(cfg, tmp_path, said):
    assert teacher(tmp_path, cfg=cfg) is None


@pytest.mark.parametrize('meta, known', [
    (dict(dataset_meta=dict(classes=('a', 'b'), palette=[(1, 2, 3)], x=object
                            )), dict(classes=['a', 'b'], palette=[[1, 2, 3]])),
    (dict(dataset_meta=dict(classes=np.array(['a', 'b']))),
     dict(classes=['a', 'b'])),
    (dict(dataset_meta=None), None), ({}, None)])
def test_an_export_keeps_the_names_of_the_classes(meta, known, tmp_path):
    state = MODELS.build(classifier()).state_dict()
    torch.save(export_student(dict(state_dict=state, meta=meta)),
               tmp_path / 's.pth')
    content = torch.load(tmp_path / 's.pth', weights_only=True)
    assert content['meta'].get('dataset_meta') == known


def test_the_export_of_a_run_keeps_them(tmp_path):
    runner = toy_runner(tmp_path, distiller(toy_teachers(tmp_path)),
                        hooks=[dict(type='StudentExportHook')])
    runner.train_dataloader.dataset.metainfo = dict(classes=list('abcde'))
    runner.train()
    content = torch.load(tmp_path / 'student.pth', weights_only=True)
    assert content['meta']['dataset_meta']['classes'] == list('abcde')


# ---- checkpoints that are not whole --------------------------------------


def lora():
    vit = dict(type='mmpretrain.VisionTransformer', img_size=16, patch_size=8,
               arch=dict(embed_dims=8, num_layers=1, num_heads=2,
                         feedforward_channels=8))
    return MODELS.build(dict(
        type='mmpretrain.LoRAModel', module=vit, rank=2,
        targets=[dict(type='qkv')]))


def test_the_export_of_a_lora_student_is_refused_before_training():
    with pytest.raises(ValueError, match='leave out .* of its weights'):
        check_whole(lora())
    check_whole(MODELS.build(classifier()))


def test_a_file_of_lora_matrices_is_refused():
    state = {f'backbone.{n}': t for n, t in lora().state_dict().items()}
    assert state
    with pytest.raises(ValueError, match='matrices of LoRA'):
        export_student(dict(state_dict=state, meta=dict(epoch=1)))
