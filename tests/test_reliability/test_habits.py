"""Common slips of users: each ends in a message or a warning, and loses
neither files nor results."""

import argparse
import importlib.util
import types

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmkd_rl.engine.data_checks import check_folders, check_length
from mmkd_rl.engine.hooks import LoadReportHook
from mmkd_rl.engine.resuming import check_optimizer
from mmkd_rl.options import ConfigError
from mmkd_rl.recipes import add_arguments
from mmkd_rl.recipes.reading import parse_teacher
from mmkd_rl.registry import MODELS
from mmkd_rl.teachers import read_checkpoint
from mmkd_rl.utils import checkpoint_io, cli
from mmkd_rl.utils.configs import merge_options
from tests.test_reliability.test_shell import TOOLS
from tests.toy import (
    classifier,
    distiller,
    toy_runner,
    toy_teachers,
)

AVER = dict(type='AverageWeighting')


def tool(name):
    spec = importlib.util.spec_from_file_location(f'{name}_tool',
                                                  TOOLS / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- nothing is overwritten ----------------------------------------------


@pytest.mark.parametrize('name, work_dir, refused', [
    ('epoch_2.pth', 'run', True), ('student.pth', 'run', True),
    ('best_accuracy_top1_epoch_2.pth', 'run', True),
    ('epoch_2.pth', 'other', False), ('resnet.pth', 'run', False)])
def test_a_teacher_in_the_work_directory(name, work_dir, refused, tmp_path):
    (tmp_path / 'run').mkdir()
    model = dict(teachers=[dict(checkpoint='untrained'), dict(
        checkpoint=str(tmp_path / 'run' / '..' / 'run' / name))])
    check = tool('train').check_teachers_folders
    if refused:
        with pytest.raises(ValueError, match='would overwrite it'):
            check(dict(model, student={}), str(tmp_path / work_dir))
    else:
        check(model, str(tmp_path / work_dir))


def test_where_weights_are_written(tmp_path):
    torch.save(dict(state_dict={'a.b': torch.ones(1)}), tmp_path / 'old.pth')
    torch.save(dict(state_dict={}, optimizer={}), tmp_path / 'epoch_1.pth')
    (tmp_path / 'notes.pth').write_text('text')
    for name in ('new.pth', 'old.pth', 'new.pt'):
        checkpoint_io.check_out(str(tmp_path / name))
    for name, text in (('', 'is a folder'), ('a.safetensors', '.pth'),
                       ('a.onnx', '.pth'), ('config.py', '.pth'),
                       ('epoch_1.pth', 'could not be resumed'),
                       ('notes.pth', 'is no checkpoint')):
        with pytest.raises(ValueError, match=text):
            checkpoint_io.check_out(str(tmp_path / name))


def test_a_disk_that_is_full_for_torch(tmp_path, monkeypatch):
    def save(obj, path):
        raise RuntimeError('[enforce fail at inline_container.cc] . '
                           'unexpected pos 166656 vs 166550')

    monkeypatch.setattr(torch, 'save', save)
    with pytest.raises(OSError, match='No space left.*a.pth'):
        checkpoint_io.save({}, str(tmp_path / 'a.pth'))


def test_ctrl_c_that_another_error_hides(capsys):
    """As in MMEngine, which formats a config while it saves."""
    with pytest.raises(SystemExit) as end, cli.clear_errors():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise SyntaxError('Failed to format') from None
    assert end.value.code == cli.EXIT_INTERRUPTED
    assert 'stopped' in capsys.readouterr().err


# ---- a resumed run is the same run ---------------------------------------


def optimizer(kind, lr=.1, **kwargs):
    return getattr(torch.optim, kind)(nn.Linear(1, 1).parameters(), lr=lr,
                                      **kwargs)


@pytest.mark.parametrize('saved, own, message', [
    (optimizer('AdamW'), optimizer('SGD'), 'betas.*lacks.*momentum'),
    (optimizer('SGD', momentum=.9), optimizer('Adam'), 'another optimizer'),
    (optimizer('SGD', momentum=.9), optimizer('SGD'), ''),
    (optimizer('SGD', foreach=True), optimizer('SGD'), '')])
def test_resuming_with_another_optimizer(saved, own, message):
    if message:
        with pytest.raises(ValueError, match=message):
            check_optimizer(saved.state_dict(), own)
    else:
        check_optimizer(saved.state_dict(), own)


@pytest.mark.parametrize('lr, warns', [(.1, False), (.2, True)])
def test_resuming_with_another_learning_rate(lr, warns, monkeypatch):
    said = []
    monkeypatch.setattr('mmkd_rl.engine.resuming.print_log',
                        lambda text, *args: said.append(text))
    scheduled = optimizer('SGD')
    torch.optim.lr_scheduler.StepLR(scheduled, 1, .1)
    scheduled.param_groups[0]['lr'] = .01
    check_optimizer(scheduled.state_dict(), optimizer('SGD', lr))
    assert any('0.2 has no effect' in line for line in said) == warns


def resumed(tmp_path, teachers):
    runner = toy_runner(
        tmp_path / 'run', distiller(teachers, weighting=AVER), epochs=2,
        hooks=[dict(type='TeacherCheckHook')], resume=True,
        load_from=str(tmp_path / 'run/epoch_1.pth'))
    runner.register_hook(LoadReportHook('--resume'))
    runner.train()


def test_resuming_with_swapped_files_of_teachers(tmp_path):
    teachers = toy_teachers(tmp_path)
    toy_runner(tmp_path / 'run', distiller(teachers, weighting=AVER),
               epochs=1, hooks=[dict(type='TeacherCheckHook')]).train()
    resumed(tmp_path, teachers)
    first, second = (t['checkpoint'] for t in teachers)
    swapped = [dict(teachers[0], checkpoint=second),
               dict(teachers[1], checkpoint=first)]
    with pytest.raises(ValueError, match="teacher 't0' has other weights"):
        resumed(tmp_path, swapped)


# ---- slips ---------------------------------------------------------------


def test_a_key_that_is_misspelt():
    cfg = Config(dict(optim_wrapper=dict(a=1), model=dict(type='X')))
    for key, near in (('optim_wraper.a', 'optim_wrapper'),
                      ('default_hook.x', 'default_hooks')):
        with pytest.raises(ValueError, match=f"did you mean '{near}'"):
            merge_options(cfg, {key: 1})
    merge_options(cfg, {'optim_wrapper.a': 2, 'own_setting': 3,
                        'load_from': 'a.pth'})
    assert cfg.own_setting == 3


@pytest.mark.parametrize('option', ['--distill', '--pool', '--task'])
def test_an_option_that_is_given_twice(option, capsys):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert parser.parse_args([option, 'a'])
    with pytest.raises(SystemExit):
        parser.parse_args([option, 'a', option, 'b'])
    assert 'given twice: a and b' in capsys.readouterr().err


def loop_of(tmp_path, by_epoch=True, **train_cfg):
    runner = toy_runner(tmp_path, classifier(), train_cfg=dict(
        by_epoch=by_epoch, **train_cfg))
    return runner.build_train_loop(runner._train_loop)


def test_the_length_of_a_training(tmp_path):
    check_length(loop_of(tmp_path, max_epochs=1))
    with pytest.raises(ConfigError, match='val_interval.*at least 1'):
        check_length(loop_of(tmp_path, max_epochs=1, val_interval=0))
    endless = dict(
        batch_size=8, num_workers=0, sampler=dict(type='InfiniteSampler'),
        dataset=dict(type='mmkd_rl.WorldDataset', size=32))
    for by_epoch, length in ((True, 'max_epochs'), (False, 'max_iters')):
        runner = toy_runner(tmp_path, classifier(), train_dataloader=endless,
                            train_cfg={'by_epoch': by_epoch, length: 2})
        loop = runner.build_train_loop(runner._train_loop)
        if by_epoch:
            with pytest.raises(ConfigError, match='InfiniteSampler has no'):
                check_length(loop)
        else:
            check_length(loop)


def test_a_setting_that_a_loop_does_not_have(tmp_path, capsys):
    with pytest.raises(SystemExit) as end, cli.clear_errors():
        loop_of(tmp_path, max_epoch=1)
    assert end.value.code == cli.EXIT_BAD_INPUT
    assert 'max_epoch' in capsys.readouterr().err


def test_more_classes_in_the_data_than_in_the_student(tmp_path):
    runner = toy_runner(tmp_path, distiller(toy_teachers(tmp_path)),
                        hooks=[dict(type='TeacherCheckHook')])
    runner.train_dataloader.dataset.metainfo = dict(
        classes=['.hidden', *'abcde'])
    # MMEngine raises a TypeError in place of one in a hook.
    with pytest.raises((ConfigError, TypeError),
                       match="6 classes .'.hidden'.*student 5"):
        runner.train()


@pytest.mark.parametrize('change, text', [
    (lambda t: (100 * t).to(torch.int8), 'whole numbers.*quantised'),
    (lambda t: t.to_sparse(), 'sparse'),
    (lambda t: t * torch.nan, 'NaN')])
def test_weights_that_are_no_weights(change, text, tmp_path):
    state = MODELS.build(classifier()).state_dict()
    state['head.fc.weight'] = change(state['head.fc.weight'])
    torch.save(state, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=f'{text}.*'):
        read_checkpoint(str(tmp_path / 'a.pth'), 'key')


def test_a_folder_for_results(tmp_path):
    (tmp_path / 'a.json').mkdir()
    with pytest.raises(ValueError, match='is a folder'):
        tool('test').check_out(str(tmp_path / 'a.json'))


@pytest.mark.parametrize('below', ['', '/deeper'])
def test_a_work_directory_below_a_file(below, tmp_path):
    (tmp_path / 'file').write_text('')
    args = types.SimpleNamespace(
        cfg_options=None, launcher='none', config='a.py', local_rank=0,
        work_dir=f'{tmp_path}/file{below}')
    with pytest.raises(ValueError, match="file' is a file; give a folder"):
        cli.apply_common_arguments(Config(dict(model={})), args)


def test_dicts_on_the_command_line(capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=cli.Options)
    given = parser.parse_args([
        '--cfg-options', "a={'type': 'SGD', 'lr': .1}", 'b.c=2',
        "d=[{'e': [1, 2]}]", 'f="{}"', 'g=[1,2]']).cfg_options
    assert given['a'] == dict(type='SGD', lr=.1)
    assert given['d'] == [dict(e=[1, 2])]
    assert (given['b.c'], given['g']) == (2, [1, 2])
    for wrong in ("a={'type': SGD}", 'a={', 'a=[{1: 2}'):
        with pytest.raises(SystemExit):
            parser.parse_args(['--cfg-options', wrong])
        assert 'cannot be read' in capsys.readouterr().err


def test_colons_in_the_path_of_a_teacher(tmp_path):
    folder = tmp_path / 'at 10:30'
    folder.mkdir()
    (folder / 'a.py').write_text('model = dict(type="X")')
    teacher = parse_teacher(f'r={folder}/a.py:{folder}/b.pth')
    assert teacher['config'] == f'{folder}/a.py'
    assert teacher['checkpoint'] == f'{folder}/b.pth'
    # What is not there yet is divided at the first colon.
    assert parse_teacher('r=mmdet::x/y.py:https://h/z.pth')['config'] == \
        'mmdet::x/y.py'
    assert parse_teacher('r=c.py:d:e.pth')['checkpoint'] == 'd:e.pth'


def said_in(monkeypatch):
    said = []
    monkeypatch.setattr(
        'mmengine.logging.MMLogger.warning',
        lambda self, text, *args, **kwargs: said.append(str(text)))
    return said


def test_settings_without_an_effect(tmp_path, monkeypatch):
    said = said_in(monkeypatch)
    teachers = toy_teachers(tmp_path)
    twins = [teachers[0], dict(teachers[0], name='twin')]
    runner = toy_runner(
        tmp_path, distiller(twins, weighting=AVER, feature_loss=None,
                            logit_loss=dict(type='KDLoss', loss_weight=0)),
        hooks=[dict(type='TeacherCheckHook'), dict(type='DataCheckHook')],
        epochs=1, optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.)))
    runner.train()
    for text in ('all loss weights are 0', "'t0' and 'twin' have the same",
                 'learning rate is 0'):
        assert any(text in line for line in said), (text, said)


def test_settings_with_an_effect(tmp_path, monkeypatch):
    said = said_in(monkeypatch)
    toy_runner(tmp_path, distiller(toy_teachers(tmp_path), weighting=AVER),
               hooks=[dict(type='TeacherCheckHook'),
                      dict(type='DataCheckHook')], epochs=1).train()
    assert not any('effect' in line or 'are 0' in line or 'same weights'
                   in line or 'rate is 0' in line for line in said), said


@pytest.mark.parametrize('best, wrong', [
    ('auto', False), ('accuracy/top1', False), ('accuracy', True),
    (['accuracy/top1', 'mIoU'], True)])
def test_the_figure_of_the_best_checkpoint(best, wrong, tmp_path):
    runner = toy_runner(
        tmp_path, classifier(), epochs=1, validate=True,
        hooks=[dict(type='DataCheckHook')], default_hooks=dict(
            logger=dict(type='LoggerHook', interval=2),
            checkpoint=dict(type='CheckpointHook', save_best=best,
                            rule='greater')))
    if wrong:
        with pytest.raises((ConfigError, TypeError),
                           match="no figure.*'accuracy/top1'"):
            runner.train()
        assert (tmp_path / 'epoch_1.pth').is_file()  # nothing is lost
    else:
        runner.train()


@pytest.mark.parametrize('name', ['.ipynb_checkpoints', '__MACOSX'])
def test_a_hidden_folder_is_no_class(name):
    check_folders(['cat', 'dog'])
    check_folders(None)
    with pytest.raises(ConfigError, match=f"'{name}' counts as a class"):
        check_folders([name, 'cat', 'dog'])
