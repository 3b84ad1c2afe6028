"""What a teacher knows is said before it teaches."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.logging.history_buffer import HistoryBuffer

from mmkd_rl.engine.hooks import PreflightHook
from mmkd_rl.engine.preflight import STUDENT, NetworkReport, Preflight
from mmkd_rl.export.description import trained_side
from mmkd_rl.teachers.facts import Facts
from tests.toy import (
    CLASSES,
    World,
    classifier,
    distiller,
    teacher_file,
    toy_runner,
    toy_teachers,
)

ROOT = Path(__file__).parents[2]


def train(folder, preflight, teachers, **kwargs):
    runner = toy_runner(folder, distiller(
        teachers, weighting=dict(type='AverageWeighting')), epochs=1,
        jitter=.1, randomness=dict(seed=3), **kwargs)
    hook = PreflightHook(images=24)
    if preflight:
        runner.register_hook(hook)
    said = []
    runner.logger.info = runner.logger.warning = lambda text, *a, **k: \
        said.append(str(text))
    runner.train()
    return runner, said


def test_the_training_does_not_change(tmp_path):
    teachers = toy_teachers(tmp_path)
    with_it, said = train(tmp_path / 'a', True, teachers)
    without, nothing = train(tmp_path / 'b', False, teachers)
    assert any('networks on the first 24' in line for line in said)
    assert not any('networks on the first' in line for line in nothing)
    own, other = with_it.model.state_dict(), without.model.state_dict()
    assert all(torch.equal(own[n], other[n]) for n in own)


def test_the_teacher_that_knows_nothing_is_named(tmp_path):
    _, said = train(tmp_path, True, with_wrong_one(tmp_path))
    warned = [line for line in said if line.startswith('teacher ')]
    assert len(warned) == 1
    assert "'t1' is no better than chance" in warned[0]
    assert 'normalisation' in warned[0]


def test_the_figures_are_those_of_the_images(tmp_path):
    """Against the right teacher's own scores, by hand."""
    _, said = train(tmp_path, True, toy_teachers(tmp_path, 1), size=24,
                    batch_size=24)
    table = next(line for line in said if 'networks on' in line)
    row = next(r for r in table.splitlines() if r.startswith('t0'))
    images, labels = World().batch(24)
    scores = 6. * images.flatten(1) @ World().prototypes.T
    loss = torch.nn.functional.cross_entropy(scores, labels)
    # The data set adds a tenth of the noise.
    assert math.isclose(float(row.split()[1]), loss, abs_tol=.1)
    assert f'{math.log(CLASSES):.3f}' in table


def with_wrong_one(tmp_path):
    """A teacher that is right, and one whose classes have another order."""
    good, bad = toy_teachers(tmp_path)
    teacher_file(bad['checkpoint'], World().prototypes.roll(1, 0),
                 6. * torch.eye(CLASSES))
    return [good, bad]


def report(loss, right, classes=10, student=(2.3, .1), figure=None,
           images=64):
    shapes = ((8, 1, 1), )
    return Preflight(images, classes, (
        NetworkReport(STUDENT, *student, None, .1, shapes),
        NetworkReport('t', loss, right, figure, .1, shapes))).warnings()


@pytest.mark.parametrize('case, text', [
    (dict(loss=.3, right=.9), ''),
    (dict(loss=5., right=.13), 'chance'),
    (dict(loss=2.3, right=.1), 'chance'),
    # Overconfident, but far from chance.
    (dict(loss=3., right=.6), ''),
    (dict(loss=1.5, right=.4, student=(1., .7)), 'than the student'),
    (dict(loss=1.5, right=.8, student=(1., .7)), ''),
    (dict(loss=1.5, right=.4, figure='accuracy/top1 90'), 'was on 90.0 %'),
    (dict(loss=.5, right=.8, figure='accuracy/top1 90'), ''),
    (dict(loss=.5, right=.8, figure='mIoU 90'), ''),
    (dict(loss=math.nan, right=math.nan), ''),
    # A sigmoid each: there is no chance.
    (dict(loss=9., right=math.nan, classes=0, student=(10., math.nan)), ''),
    (dict(loss=9., right=math.nan, classes=0, student=(8., math.nan)),
     'than the student'),
    # Better than guessing, but sure of what is wrong.
    (dict(loss=6., right=.2, classes=100), 'chance'),
    (dict(loss=4., right=.2, classes=100), ''),
    (dict(loss=6., right=.03, classes=100), 'chance')])
def test_warnings(case, text):
    found = report(**case)
    assert (text in found[0]) if text else not found


@pytest.mark.parametrize('sides, warns', [
    (None, False), ((224, 224), False), ((224, 192), False),
    ((224, 32), True), ((32, 224), True)])
def test_images_of_another_size(sides, warns):
    shapes = ((8, 1, 1), )
    found = Preflight(64, 10, (
        NetworkReport(STUDENT, 2.3, .1, None, .1, shapes),
        NetworkReport('t', .3, .9, None, .1, shapes, sides))).warnings()
    assert bool(found) == warns
    assert not warns or f'input_size={sides[0]}' in found[0]


@pytest.mark.parametrize('pipeline, side', [
    ("[dict(type='RandomResizedCrop', scale=224), dict(type='Pack')]", 224),
    ("[dict(type='Resize', scale=(256, 300)), dict(type='mmpretrain."
     "RandomCrop', crop_size=32, padding=4)]", 32),
    ("[dict(type='Resize', scale=(-1, 300))]", None), ('[]', None),
    ('None', None), ('[3]', None)])
def test_the_size_in_a_checkpoint(pipeline, side):
    cfg = f'train_dataloader = dict(dataset=dict(dataset=dict(pipeline=' \
        f'{pipeline})))'
    assert trained_side(dict(cfg=cfg)) == side
    assert trained_side({}) is None


def test_the_figure_in_a_checkpoint():
    def buffer(value):
        history = HistoryBuffer()
        history.update(value)
        return history

    scalars = {'train/loss': buffer(1.), 'val/time': buffer(3.),
               'val/coco/bbox_mAP_50': buffer(.5),
               'val/accuracy/top1': buffer(61.93)}
    content = dict(message_hub=dict(log_scalars=scalars))
    assert Facts.of(content).figure == 'accuracy/top1 61.93'
    for nothing in (dict(message_hub={}), torch.ones(3), dict(meta=3)):
        assert Facts.of(nothing) == Facts()


def test_the_tool(tmp_path):
    good, bad = with_wrong_one(tmp_path)
    (tmp_path / 'c.py').write_text(f"""
custom_imports = dict(imports=['tests.toy'])
default_scope = 'mmkd_rl'
model = {classifier(8, hidden=6)!r}
train_dataloader = dict(
    batch_size=8, num_workers=0, sampler=dict(type='DefaultSampler'),
    dataset=dict(type='WorldDataset', size=64))
train_cfg = dict(by_epoch=True, max_epochs=2)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=.1))
""")
    (tmp_path / 't.py').write_text(f'model = {classifier(CLASSES)!r}')
    done = subprocess.run(
        [sys.executable, str(ROOT / 'tools/preflight.py'),
         str(tmp_path / 'c.py'), '--distill', 'aver', *(
             f'--teacher={name}={tmp_path}/t.py:{teacher["checkpoint"]}'
             for name, teacher in (('good', good), ('bad', bad)))],
        capture_output=True, text=True, cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=str(ROOT)))
    assert done.returncode == 1, done.stderr
    for word in ('loss', 'right', 'chance', 'memory:', 'disk:', 'a step',
                 'good: features backbone; logits head',
                 "teacher 'bad' is no better than chance"):
        assert word in done.stdout
    assert "teacher 'good'" not in done.stdout
