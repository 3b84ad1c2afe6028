"""The trial of a toolbox's configs: what works, what does not, and the file
of results.

The tool forks a process for each config. A process forked from one that has
trained a network waits forever in its first backward pass, so that these tests
need a process of their own: ``make test-coverage``.
"""

import importlib.util
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from mmpretrain.models.heads import LinearClsHead

from coverage_parts import child, selection, trial, verdicts
from coverage_parts.repeats import Repeats
from coverage_parts.small import (
    num_classes,
    random_batch,
    sizes,
    with_size,
)
from coverage_parts.verdicts import Verdict
from mmkd_rl.losses import FitNetLoss
from mmkd_rl.utils.configs import load_config

ROOT = Path(__file__).parents[2]
CIFAR = 'resnet/resnet18_8xb16_cifar10.py'
PSPNET = 'pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'
LIMITS = dict(timeout=60., memory=8.)


@pytest.fixture
def tool(monkeypatch, capfd):
    """Run the tool: exit code, and all that it printed."""
    path = ROOT / 'tools' / 'coverage.py'
    # Under another name: PyPI has a package of the tool's own name.
    spec = importlib.util.spec_from_file_location('_tool_coverage', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['coverage.py', *map(str, args)])
        try:
            code = module.main()
        except SystemExit as end:
            code = end.code
        return code, ''.join(capfd.readouterr())

    return run


def read(path):
    return {e['config']: e for e in json.loads(path.read_text())}


# ------------------------------------------------------------ whole configs


@pytest.mark.parametrize('toolbox, config, losses', [
    ('mmseg', PSPNET, 'loss_logit'),
    ('mmpretrain', CIFAR, 'loss_feature, loss_logit')])
def test_a_real_config_works(tool, tmp_path, toolbox, config, losses):
    file = tmp_path / 'out.json'
    code, text = tool('--toolbox', toolbox, '--filter', config, '--json',
                      file)
    assert code == 0 and '100.0% of the applicable ones' in text
    entry, = json.loads(file.read_text())
    assert entry['config'] == f'{toolbox}::{config}'
    assert entry['status'] == 'works'
    assert losses in entry['reason']


def test_a_fault_of_the_distillation(monkeypatch):
    """The plain config works, so it is not the toolbox's."""
    monkeypatch.setattr(FitNetLoss, 'compare', lambda *args: torch.full(
        (2, 2), torch.nan))
    status, reason = child.run(
        trial.examine, f'mmpretrain::{CIFAR}', 'aver', **LIMITS)
    assert status == 'fails'
    assert 'not finite' in reason and 'loss_feature' in reason
    assert 'without distillation' not in reason


def test_a_fault_of_the_toolbox(monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError('the head\nis broken')

    monkeypatch.setattr(LinearClsHead, 'loss', broken)
    status, reason = child.run(
        trial.examine, f'mmpretrain::{CIFAR}', 'mtkd_rl', **LIMITS)
    assert status == 'fails'
    assert reason.startswith('without distillation, too: RuntimeError: the '
                             'head is broken at mmpretrain/models/')


def test_no_config_breaks_the_run(monkeypatch, tool, tmp_path):
    """Neither one that cannot be read, nor the end of its process."""
    name = 'mmpretrain::replknet/replknet-31B_32xb64_in1k.py'
    status, reason = child.run(trial.examine, name, 'mtkd_rl', **LIMITS)
    assert status == 'fails' and 'inheritance chain' in reason
    assert reason.startswith('without distillation, too: ')
    monkeypatch.setattr(trial, 'step', lambda *_: os._exit(3))
    file = tmp_path / 'out.json'
    code, _ = tool('--toolbox', 'mmpretrain', '--filter', CIFAR, '--json',
                   file)
    entry, = json.loads(file.read_text())
    assert code == 0 and entry['status'] == 'fails'
    assert 'exit code 3' in entry['reason']


@pytest.mark.parametrize('config, reason', [
    ('mmpretrain::simclr/simclr_resnet50_16xb256-coslr-200e_in1k.py',
     'SimCLR: self-supervised'),
    ('mmpretrain::arcface/resnet50-arcface_8xb32_inshop.py',
     'ImageToImageRetriever: image retrieval'),
    ('mmseg::san/san-vit-b16_coco-stuff164k-640x640.py',
     'MultimodalEncoderDecoder: zero-shot'),
    ('mmdet::bytetrack/bytetrack_yolox_x_8xb4-80e_crowdhuman-mot17halftrain_'
     'test-mot17halfval.py', 'ByteTrack: tracks'),
    ('mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-'
     '0.1-coco.py', 'SoftTeacher: a teacher and a student already'),
    ('mmdet::ld/ld_r18-gflv1-r101_fpn_1x_coco.py',
     "KnowledgeDistillationSingleStageDetector: MMDetection's own")])
def test_what_is_not_applicable(config, reason):
    status, found = child.run(trial.examine, config, 'mtkd_rl', **LIMITS)
    assert status == 'not_applicable' and found.startswith(reason)


@pytest.mark.parametrize('installed', [True, False])
def test_what_deepspeed_trains(monkeypatch, installed):
    cfg = load_config('mmpretrain::mae/benchmarks/'
                      'vit-huge-p14_8xb128-ds-coslr-50e_in1k.py')
    monkeypatch.setattr(importlib.util, 'find_spec',
                        lambda name: name if installed else None)
    assert trial.why_not(cfg) == (
        '' if installed else "package 'deepspeed' is not installed")


def test_several_labels_are_distilled_by_features():
    config = 'mmpretrain::csra/resnet101-csra_1xb16_voc07-448px.py'
    status, reason = child.run(trial.examine, config, 'aver', **LIMITS)
    assert (status, reason) == ('works', '64 x 64 pixels; loss_feature')


@pytest.mark.parametrize('config, losses', [
    ('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py',
     'loss_feature, loss_logit'),
    # Masks, a label map at an eighth of the size, and several heads.
    ('mmdet::htc/htc_r50_fpn_1x_coco.py', 'loss_feature')])
def test_detectors(config, losses):
    status, reason = child.run(trial.examine, config, 'mtkd_rl',
                               timeout=300., memory=8.)
    assert (status, reason) == ('works', f'128 x 128 pixels; {losses}')


def test_both_methods_at_once():
    config = 'mmseg::pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py'
    status, reason = child.run(trial.examine, config,
                               'mtkd_rl+knowledge_flow', **LIMITS)
    assert (status, reason) == ('works', '64 x 64 pixels; loss_logit')


# ------------------------------------------------------------------- parts


def test_a_batch_is_as_the_loader_gives_it():
    """Also what a step of the pipeline makes of the labels."""
    cfg = load_config(
        'mmseg::pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py')
    assert sizes(cfg) == [(64, 64), (128, 128), (1024, 1024)]
    small = with_size(cfg, (64, 48))
    trial.init_default_scope('mmseg')
    batch = random_batch(small, (64, 48))
    sample = batch['data_samples'][0]
    labels = sample.gt_sem_seg.data
    assert batch['inputs'][0].shape == (3, 64, 48)
    assert labels.shape == sample.gt_edge_map.data.shape == (1, 64, 48)
    assert labels[labels != 255].max() < 19 and (labels == 255).any()
    assert sample.img_shape == (64, 48)
    assert small.data_preprocessor.size == (64, 48)
    assert 'init_cfg' not in small.model.backbone
    assert cfg.model.backbone.init_cfg.type == 'Pretrained'


def test_sizes_keep_their_order():
    cfg = load_config(f'mmseg::{PSPNET}')
    assert sizes(cfg)[-1] == (512, 1024)


def test_a_backbone_is_told_the_size_of_images():
    cfg = load_config('mmseg::beit/beit-base_upernet_8xb2-160k_ade20k-'
                      '640x640.py')
    assert sizes(cfg) == [(128, 128), (640, 640)]
    assert with_size(cfg, (128, 128)).model.backbone.img_size == (128, 128)


def test_the_number_of_classes_of_heads_inside_a_head():
    assert num_classes(load_config(
        'mmseg::knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py'
    )) == 150


@pytest.mark.parametrize('limits, words', [
    (dict(timeout=.3, memory=8.), 'stopped after 0.3 s'),
    (dict(timeout=60., memory=.01), 'more than 0.01 GiB')])
def test_limits_of_a_process(limits, words):
    with pytest.raises(child.ChildLost, match=words):
        child.run(time.sleep, 30, **limits)


def test_a_killed_process():
    with pytest.raises(child.ChildLost, match='killed by signal 9; '):
        child.run(lambda: os.kill(os.getpid(), signal.SIGKILL), **LIMITS)


def test_plain_sgd_where_the_optimiser_does_not_fit(tool, tmp_path,
                                                    monkeypatch):
    def lost_once(function, config, strategy, lean, **kwargs):
        if not lean:
            raise child.OutOfMemory('stopped')
        return 'works', 'small'

    monkeypatch.setattr(child, 'run', lost_once)
    file = tmp_path / 'out.json'
    assert tool('--toolbox', 'mmpretrain', '--filter', CIFAR, '--json',
                file)[0] == 0
    entry, = json.loads(file.read_text())
    assert entry['status'] == 'works' and 'plain SGD' in entry['reason']
    cfg = load_config('mmpretrain::convnext/convnext-tiny_32xb128_in1k.py')
    wrapper = with_size(cfg, (64, 64), lean=True).optim_wrapper
    assert wrapper.optimizer.type == 'SGD'
    assert wrapper.clip_grad == cfg.optim_wrapper.clip_grad


def test_samples_can_be_repeated():
    names = [f'mmseg::{folder}/{i}.py' for folder in 'ab' for i in range(9)]
    first = selection.sampled(names, 6, 1)
    assert first == selection.sampled(names[::-1], 6, 1)
    assert first != selection.sampled(names, 6, 2)
    assert len(set(first)) == 6 and set(first) <= set(names)
    assert selection.sampled(names, 99, 1) == names
    assert selection.diverse_first(names)[:4] == [
        'mmseg::a/0.py', 'mmseg::b/0.py', 'mmseg::a/1.py', 'mmseg::b/1.py']


def test_incomplete_configs_are_left_out(tool):
    """Chinese CLIP's configs only test."""
    code, text = tool('--toolbox', 'mmpretrain', '--list', '--filter',
                      'chinese_clip/*')
    assert code == 2 and 'none has all of model, train_dataloader' in text
    code, text = tool('--toolbox', 'mmpretrain', '--list', '--filter',
                      'resnet/resnet18')
    assert code == 0
    assert text.split() == [f'mmpretrain::{CIFAR}',
                            'mmpretrain::resnet/resnet18_8xb32_in1k.py']


def test_reasons_are_counted():
    found = [Verdict('a', 'works', ''),
             Verdict('b', 'fails', 'shape 3 at x.py:7'),
             Verdict('c', 'fails', 'shape 14 at x.py:7'),
             Verdict('d', 'fails', 'shape 3 at x.py:8'),
             Verdict('e', 'not_applicable', 'no classes')]
    text = verdicts.summary(found, reasons=1)
    assert '25.0% of the applicable ones' in text
    assert '    2  shape 3 at x.py:7\n       such as b' in text
    assert '    1  for 1 other reasons' in text


R18 = 'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-{}.py'
R50 = 'mmseg::pspnet/pspnet_r50-d8_4xb2-{}_cityscapes-512x1024.py'


def test_a_trial_that_would_be_the_same():
    """Not where an architecture differs (769: corners are aligned), and only
    for what works, at a size that is tried for both."""
    known = Repeats([Verdict(R50.format('40k'), 'works',
                             '64 x 64 pixels; loss_logit'),
                     Verdict(R18.format('512x1024'), 'fails', 'why')])
    found = known.find(R50.format('80k'))
    assert found.status == 'works'
    assert found.reason == \
        f'64 x 64 pixels; loss_logit; as {R50.format("40k")}'
    assert known.find(R18.format('512x1024')) is None
    assert known.find(R18.format('769x769')) is None
    known.add(found)
    assert known.find(R50.format('80k')).reason == found.reason
    # Cannot be read.
    broken = 'mmpretrain::replknet/replknet-31B_32xb64_in1k.py'
    known.add(Verdict(broken, 'works', '64 x 64 pixels'))
    assert known.find(broken) is None
    own = Repeats([Verdict(R50.format('40k'), 'works',
                           '512 x 512 pixels; loss_logit')])
    assert own.find(R50.format('80k')) is None


def test_a_trial_is_not_repeated(tool, tmp_path, monkeypatch):
    tried = []

    def fake(function, config, *args, **kwargs):
        tried.append(config)
        return 'works', '64 x 64 pixels; loss_logit'

    monkeypatch.setattr(child, 'run', fake)
    file = tmp_path / 'out.json'
    tool('--toolbox', 'mmseg', '--filter', 'pspnet/pspnet_r50-d8_4xb2-[48]0k_'
         'cityscapes-512x1024.py', '--json', file)
    assert tried == [R50.format('40k')]
    assert [e['status'] for e in read(file).values()] == ['works', 'works']


# ------------------------------------------------------------ the results


def test_a_run_goes_on(tool, tmp_path, monkeypatch):
    """Configs in the file are skipped, unless their status is named."""
    first, second = 'resnet18_8xb16_cifar10', 'resnet18_8xb32_in1k'
    names = [f'mmpretrain::resnet/{name}.py' for name in (first, second)]
    file = tmp_path / 'out.json'
    verdicts.write_verdicts(file, [
        Verdict('mmseg::of/another.py', 'works', 'kept'),
        Verdict(names[0], 'fails', 'earlier')])
    tried = []

    def fake(function, config, *args, **kwargs):
        tried.append(config)
        return 'works', 'now'

    monkeypatch.setattr(child, 'run', fake)
    command = ('--toolbox', 'mmpretrain', '--filter', 'resnet18_', '--json',
               file)
    code, text = tool(*command)
    assert code == 0 and tried == names[1:]
    assert '2 configs, 1 of them tried now' in text
    assert read(file)[names[0]]['reason'] == 'earlier'
    tool(*command, '--again', 'fails')
    assert tried == [names[1], names[0]]
    assert [e['reason'] for e in read(file).values()] == ['kept', 'now',
                                                          'now']
    assert [p.name for p in tmp_path.iterdir()] == ['out.json']


@pytest.mark.parametrize('args, words', [
    (('--toolbox', 'mmyolo'), ("invalid choice: 'mmyolo'", 'mmseg')),
    (('--toolbox', 'mmseg', '--sample', '0'), ('--sample', '>= 1', '0')),
    (('--toolbox', 'mmseg', '--timeout', '-1'), ('--timeout', '> 0', '-1')),
    (('--toolbox', 'mmseg', '--filter', 'pspnte'),
     ("--filter 'pspnte' matches none of", 'pspnet')),
    (('--toolbox', 'mmseg', '--strategy', 'mtkdrl'),
     ("strategy 'mtkdrl' is unknown", 'mtkd_rl')),
    (('--toolbox', 'mmseg', '--strategy', 'knowledge_flow'),
     ('weighs no teachers', 'mtkd_rl+knowledge_flow'))])
def test_bad_arguments(tool, tmp_path, args, words):
    code, text = tool(*args, '--json', tmp_path / 'out.json')
    assert code == 2 and all(word in text for word in words)
    assert not list(tmp_path.iterdir())


def test_a_place_for_the_results_is_needed(tool, tmp_path):
    code, text = tool('--toolbox', 'mmseg')
    assert code == 2 and '--json FILE is needed' in text
    file = tmp_path / 'out.json'
    file.write_text('[{"a": 1}]')
    code, text = tool('--toolbox', 'mmpretrain', '--filter', CIFAR,
                      '--json', file)
    assert code == 2 and 'is not a result of this tool' in text
    assert file.read_text() == '[{"a": 1}]'


def test_it_is_not_taken_for_the_package_of_that_name():
    """Libraries that look for the package find it missing."""
    import subprocess
    found = subprocess.run(
        [sys.executable, '-c', 'import coverage'], cwd=ROOT / 'tools',
        capture_output=True, text=True)
    assert 'is a program' in found.stderr.splitlines()[-1]
