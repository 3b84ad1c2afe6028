"""Stored teachers by the command line: filled ahead, read by trainings, and
measured."""

from functools import partial

import pytest
from mmengine.config import Config

from mmkd_rl.recipes import distill
from mmkd_rl.recipes.reading import parse_teacher
from tests.commands import config, in_process
from tests.toy import classifier, toy_teachers

OPTIONS = ('--stored', 'store', 'views=2')


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    """Of a distillation with two teachers, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    made = []
    for teacher in toy_teachers(tmp_path):
        path = config(tmp_path, teacher['name'], teacher['config'])
        made += ['--teacher', f"{teacher['name']}={path}:"
                 f"{teacher['checkpoint']}"]
    plain = config(tmp_path, 'plain', classifier(8, hidden=6),
                   optim_wrapper=dict(optimizer=dict(type='SGD', lr=.05)))
    return [str(plain), '--distill', 'aver', *made]


@pytest.fixture
def tool(monkeypatch, capfd):
    return partial(in_process, monkeypatch, capfd)


def test_filled_and_read(arguments, tool):
    for views, absent in ((2, 128), (2, 0), (3, 64)):
        code, said = tool('cache_teachers.py', *arguments, '--stored',
                          'store', f'views={views}')
        assert code == 0, said
        assert f'{absent} of them were computed' in said
        size = 64 * views
        assert f"teacher 't1': {size} of {size} views in store/t1" in said
    code, said = tool('train.py', *arguments, '--stored', 'store', 'views=3',
                      '--work-dir', 'run')
    assert code == 0 and 'and of 0 computed' in said, said
    code, said = tool('benchmark.py', *arguments, *OPTIONS, '--iters', '1',
                      '--warmup', '1')
    assert code == 0, said
    assert 'student alone' in said and '2 stored teachers' in said


@pytest.mark.parametrize('given, message', [
    ((), 'give --stored FOLDER'),
    (('--stored', 'store', 'views=0'), 'stored.views must be >= 1'),
    (('--stored', 'store', 'top_k=0'), 'top_k must be >= 1'),
    (('--stored', 'store', 'viewz=3'), "no option 'viewz'"),
    (('--stored', 'store', 'budget=1KB'), 'budget: is 1.0KB, and 64 images')])
def test_wrong_arguments(given, message, arguments, tool):
    code, said = tool('cache_teachers.py', *arguments, *given)
    assert code == 2 and message in said, said


def test_benchmark_of_stores_that_are_not_full(arguments, tool):
    code, said = tool('benchmark.py', *arguments, *OPTIONS, '--iters', '1',
                      '--warmup', '1')
    assert code == 2 and 'tools/cache_teachers.py' in said, said


def test_stored_needs_a_distillation(arguments, tool):
    code, said = tool('train.py', arguments[0], *OPTIONS)
    assert code == 2
    assert '--stored has an effect only together with --distill' in said


def test_the_config(arguments):
    plain = Config.fromfile(arguments[0])
    teachers = [dict(parse_teacher(t)) for t in arguments[4::2]]
    teachers[1]['executor'] = 'eager'
    cfg = distill(plain, 'aver', teachers, stored=dict(
        folder='store', views=4, repeats=2, features='uint8'))
    assert cfg.model.teachers[0].executor == dict(
        type='stored', folder='store', features='uint8')
    assert cfg.model.teachers[1].executor == 'eager'
    loader = cfg.train_dataloader
    assert (loader.dataset.views, loader.sampler.repeats) == (4, 2)
    assert loader.dataset.dataset == plain.train_dataloader.dataset
    assert loader.sampler.sampler == plain.train_dataloader.sampler
    kinds = [hook['type'] for hook in cfg.custom_hooks]
    assert kinds.count('mmkd_rl.StoredOutputsHook') == 1
    by_path = distill(plain, 'aver', teachers, stored='store')
    assert by_path.train_dataloader.dataset.views == 8
