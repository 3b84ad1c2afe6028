"""Stored outputs of teachers: rows against the exact values, stores against
kills, full disks and other processes, and trainings against live teachers."""

import json
import signal
import subprocess
import sys
import textwrap
import time
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.hooks import Hook
from mmpretrain.structures import DataSample
from torch import nn

from mmkd_rl.datasets import RepeatableViews
from mmkd_rl.options import ConfigError
from mmkd_rl.records import Batch, Output, ViewKey
from mmkd_rl.registry import HOOKS
from mmkd_rl.teachers import InputAdapter, StoredExecutor, StoredViews
from mmkd_rl.teachers.stored.identity import digest, identity_of
from mmkd_rl.teachers.stored.rows import RowFormat
from mmkd_rl.teachers.stored.store import Store
from mmkd_rl.teachers.tapped import TappedNetwork
from mmkd_rl.utils.pooling import mean_over_space
from tests.toy import distiller, toy_runner, toy_teachers

# MMEngine raises a TypeError in place of one in a hook.
REFUSAL = (ConfigError, TypeError)


def output(size=6, classes=100, side=4, seed=0, spread=3.):
    torch.manual_seed(seed)
    return Output((torch.randn(size, 8, side, side).relu(), ),
                  (spread * torch.randn(size, classes), ))


def round_trip(out, kind='float16', scores='uint8', top_k=None, labels=None):
    form = RowFormat.of(out, kind, scores, top_k)
    rows = form.encode(out, labels)
    assert rows.dtype == form.dtype
    return form.decode(rows, torch.device('cpu')), form


# ---- rows ------------------------------------------------------------------


def kd_gradient(z, student, temperature):
    """Of T^2 KL(p_z || p_student) with respect to the student's scores."""
    return temperature * ((student / temperature).softmax(1)
                          - (z / temperature).softmax(1))


def error_of(z, y, student, temperature):
    exact, own = (kd_gradient(v, student, temperature) for v in (z, y))
    return float((own - exact).norm(dim=1).mean() /
                 exact.norm(dim=1).mean())


@pytest.mark.parametrize('top_k', [None, 10])
def test_the_cross_entropy_is_exact(top_k):
    """The label's score is kept, whatever its rank, and so is the sum."""
    out = output()
    labels = out.logits[0].argsort(1)[:, 3]  # unlikely ones
    back, form = round_trip(out, labels=labels, top_k=top_k)
    z, y = out.logits[0], back.logits[0]
    assert form.top_k == top_k
    for kept in (labels, z.argmax(1)):
        torch.testing.assert_close(
            y.gather(1, kept[:, None]), z.gather(1, kept[:, None]), rtol=0,
            atol=.01)
    torch.testing.assert_close(
        F.cross_entropy(y, labels, reduction='none'),
        F.cross_entropy(z, labels, reduction='none'), rtol=2e-3, atol=0)


@pytest.mark.parametrize('temperature', [1., 4.])
def test_codes_are_as_good_as_exact_for_kd(temperature):
    """Half a step of a range of about 20 is 0.04; against it, the ten
    likeliest classes alone."""
    z = output(256).logits[0]
    student = z + 2 * torch.randn_like(z)
    y = round_trip(Output((), (z, )))[0].logits[0]
    assert error_of(z, y, student, temperature) < .03
    few = round_trip(Output((), (z, )), top_k=10)[0].logits[0]
    assert error_of(z, few, student, temperature) > 3 * error_of(
        z, y, student, temperature)


def test_the_top_k_and_two_sums_are_exact():
    """Against a slow search of the two levels."""
    z = output(8).logits[0].double()
    labels = z.argmax(1)
    y = round_trip(Output((), (z.float(), )), labels=labels,
                   top_k=10)[0].logits[0].double()
    top = z.topk(11)[1]
    torch.testing.assert_close(y.gather(1, top), z.gather(1, top), rtol=0,
                               atol=.01)
    for t in (1., 4.):
        torch.testing.assert_close((y / t).logsumexp(1), (z / t).logsumexp(1),
                                   rtol=0, atol=.004)
    others = y.scatter(1, top, torch.nan)
    assert all(len(row[row.isfinite()].unique()) == 2 for row in others)
    # One level that is right at T = 1 is wrong at T = 4.
    rest = z.scatter(1, top, -torch.inf).logsumexp(1, keepdim=True)
    flat = (rest - np.log(89)).expand(-1, 100).scatter(
        1, top, z.gather(1, top))
    assert ((flat / 4).logsumexp(1) - (z / 4).logsumexp(1)).mean() > .1


def test_a_confident_teacher():
    """Probabilities near 1 keep their distance from it: log p in half
    precision has the digits there, a score would not."""
    z = torch.zeros(1, 100)
    z[0, 7] = 15.
    for top_k in (None, 10):
        y = round_trip(Output((), (z, )), labels=torch.tensor([7]),
                       top_k=top_k)[0].logits[0]
        exact, own = (-v.double().log_softmax(1)[0, 7] for v in (z, y))
        torch.testing.assert_close(own, exact, rtol=.02, atol=0)


@pytest.mark.parametrize('labels', [None, torch.full((6, ), -1)])
@pytest.mark.parametrize('top_k', [None, 10])
def test_without_labels(labels, top_k):
    z = output().logits[0]
    y = round_trip(output(), labels=labels, top_k=top_k)[0].logits[0]
    value, index = z.topk(10)
    torch.testing.assert_close(y.gather(1, index), value, rtol=0, atol=.05)


@pytest.mark.parametrize('classes, kept', [(10, False), (22, False),
                                           (30, False), (100, True)])
def test_the_top_k_are_stored_where_they_are_smaller(classes, kept):
    assert (round_trip(output(classes=classes), top_k=10)[1].top_k
            is not None) == kept


@pytest.mark.parametrize('classes', [1, 2, 300])
def test_numbers_of_classes(classes):
    out = output(classes=classes)
    back, _ = round_trip(out, labels=torch.full((6, ), classes - 1))
    torch.testing.assert_close(back.logits[0], out.logits[0], rtol=0,
                               atol=.06)
    assert torch.equal(back.logits[0].argmax(1), out.logits[0].argmax(1))


def test_scores_in_half_precision_and_of_pixels():
    out = output()
    for scores, atol in (('float16', .01), ('float32', 0.)):
        torch.testing.assert_close(
            round_trip(out, scores=scores)[0].logits[0], out.logits[0],
            rtol=0, atol=atol)
    dense = Output((), (torch.randn(2, 5, 3, 3), ))
    back, form = round_trip(dense, top_k=10)
    assert (form.scores, form.top_k) == ('float16', None)
    torch.testing.assert_close(back.logits[0], dense.logits[0], rtol=0,
                               atol=.01)


@pytest.mark.parametrize('kind, atol', [
    ('float32', 0.), ('float16', 2e-3), ('uint8', .01)])
def test_feature_maps(kind, atol):
    out = output()
    back, _ = round_trip(out, kind)
    torch.testing.assert_close(back.features[0], out.features[0], rtol=0,
                               atol=atol)
    constant = Output((torch.full((2, 3, 2, 2), 5.), ), out.logits)
    same, _ = round_trip(
        Output(constant.features, (out.logits[0][:2], )), kind)
    torch.testing.assert_close(same.features[0], constant.features[0])


def test_averages_of_features():
    out = output()
    back, form = round_trip(out, 'pooled')
    assert back.features[0].shape == (6, 8, 1, 1)
    torch.testing.assert_close(
        mean_over_space(back.features[0]), mean_over_space(out.features[0]),
        rtol=1e-3, atol=1e-4)
    vector = Output((torch.randn(6, 8), ), out.logits)
    assert round_trip(vector, 'pooled')[0].features[0].shape == (6, 8)


def test_bytes_of_a_view():
    """Of CIFAR-100, logits and the averages of 64 channels."""
    out = Output((torch.randn(2, 64, 8, 8), ), (torch.randn(2, 100), ))
    alone = Output((), out.logits)
    assert [RowFormat.of(*args).dtype.itemsize for args in (  # per view
        (alone, 'pooled', 'uint8', 10), (alone, 'pooled'),
        (out, 'pooled'))] == [51, 115, 115 + 128]


def test_another_size_is_refused():
    form = RowFormat.of(output(), 'float16')
    with pytest.raises(ValueError, match='all images must have one size'):
        form.encode(output(side=5), None)


# ---- the folder ------------------------------------------------------------

DTYPE = np.dtype([('a', 'f4', 3)])


def rows_of(numbers):
    rows = np.zeros(len(numbers), DTYPE)
    rows['a'] = np.asarray(numbers)[:, None]
    return rows


def fill(store, numbers):
    numbers = np.asarray(numbers)
    store.write(numbers, rows_of(numbers), numbers.astype('u4') + 1)


def test_rows_come_back(tmp_path):
    store = Store(str(tmp_path / 's'), {'of': 1}, DTYPE, 5, 2)
    assert not store.known(np.arange(10)).any()
    fill(store, [1, 7])
    for again in (store, Store(str(tmp_path / 's'), {'of': 1}, DTYPE, 5, 2)):
        assert again.known(np.array([0, 1, 7])).tolist() == [0, 2, 8]
        assert np.array_equal(again.read(np.array([7, 1])), rows_of([7, 1]))
        assert again.absent(10).tolist() == [0, 2, 3, 4, 5, 6, 8, 9]
        store.flush()


def test_more_views_and_fewer(tmp_path):
    folder = str(tmp_path / 's')
    fill(Store(folder, {}, DTYPE, 5, 1), [4])
    Store(folder, {}, DTYPE, 5, 1).flush()
    # the rows of the first store are flushed at the end of the process
    first = Store(folder, {}, DTYPE, 5, 1)
    fill(first, [4])
    first.flush()
    more = Store(folder, {}, DTYPE, 5, 3)
    assert len(more) == 15
    assert more.known(np.array([4, 9])).tolist() == [5, 0]
    assert len(Store(folder, {}, DTYPE, 5, 2)) == 15


def test_a_store_of_something_else(tmp_path):
    folder = str(tmp_path / 's')
    Store(folder, dict(weights='a', seed=0), DTYPE, 5, 1)
    with pytest.raises(ConfigError, match="weights 'a', and now 'b'.*Remove"):
        Store(folder, dict(weights='b', seed=0), DTYPE, 5, 1)
    (tmp_path / 's/meta.json').write_text('{')
    with pytest.raises(ConfigError, match='cannot be read'):
        Store(folder, dict(weights='a', seed=0), DTYPE, 5, 1)


def test_rows_of_what_is_not_known_are_forgotten(tmp_path):
    store = Store(str(tmp_path), {}, DTYPE, 5, 1)
    fill(store, [1])
    store.flush()
    (tmp_path / 'meta.json').unlink()
    assert Store(str(tmp_path), {}, DTYPE, 5, 1).count() == 0


def test_a_budget(tmp_path):
    assert Store(str(tmp_path / 'a'), {}, DTYPE, 10, 1, budget=160)
    with pytest.raises(ConfigError, match='budget.*159.*10 images with 1 view'
                                          '.*160'):
        Store(str(tmp_path / 'b'), {}, DTYPE, 10, 1, budget=159)
    assert not (tmp_path / 'b').exists()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(ConfigError, match='cannot be written'):
        Store(str(tmp_path / 'file' / 's'), {}, DTYPE, 5, 1)


def child(code, **kwargs):
    return subprocess.Popen(
        [sys.executable, '-c', textwrap.dedent(code)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)


STORE = 'from tests.test_teachers.test_stored import DTYPE, Store, fill'


def test_a_file_system_without_space(tmp_path):
    """In a process that may write no file larger than 1 MB, which is noticed
    when the store is made, before anything is trained."""
    run = child(f"""
        import resource
        {STORE}
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
        try:
            Store({str(tmp_path / 's')!r}, {{}}, DTYPE, 10**6, 1)
        except Exception as error:
            print(type(error).__name__, error)
    """)
    out, err = run.communicate(timeout=120)
    assert 'ConfigError folder: the store' in out, err
    assert 'needs 16.0MB' in out and run.returncode == 0


def test_a_process_that_is_killed(tmp_path):
    """Whatever is there afterwards is right."""
    folder = str(tmp_path / 's')
    run = child(f"""
        {STORE}
        store = Store({folder!r}, {{}}, DTYPE, 20000, 1)
        for first in range(0, 20000, 10):
            fill(store, range(first, first + 10))
            print(first, flush=True)
        import time; time.sleep(60)
    """)
    for line in run.stdout:
        if line.strip().isdigit() and int(line) > 12000:
            break
    run.send_signal(signal.SIGKILL)
    run.wait()
    store = Store(folder, {}, DTYPE, 20000, 1)
    known = np.flatnonzero(store.known(np.arange(20000)))
    assert 8000 < len(known) < 20000
    assert np.array_equal(store.read(known), rows_of(known))
    fill(store, store.absent(20000))
    assert store.count() == 20000
    assert np.array_equal(store.read(np.arange(20000)),
                          rows_of(np.arange(20000)))


def test_two_processes_fill_one_store(tmp_path):
    """They make it at once, and write some of the same rows."""
    folder = str(tmp_path / 's')
    begin = time.time() + 12
    runs = [child(f"""
        import time
        {STORE}
        time.sleep(max(0, {begin} - time.time()))
        store = Store({folder!r}, {{}}, DTYPE, 30000, 1)
        for first in range({start}, {start} + 20000, 100):
            fill(store, range(first, first + 100))
    """) for start in (0, 10000)]
    for run in runs:
        assert run.wait(120) == 0, run.stderr.read()
    store = Store(folder, {}, DTYPE, 30000, 1)
    assert store.count() == 30000
    assert np.array_equal(store.read(np.arange(30000)),
                          rows_of(np.arange(30000)))


# ---- what stored outputs are of --------------------------------------------


def test_the_digest_sees_each_weight():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 300), nn.BatchNorm1d(300))
    before = digest(net)
    assert before == digest(net)
    for change in (lambda: net[0].weight.data[-1, -1].add_(1e-3),
                   lambda: net[1].running_var[-1].add_(1e-3),
                   lambda: net.append(nn.ReLU())):
        change()
        assert digest(net) != before
        before = digest(net)


def test_where_the_images_are_is_no_part_of_the_identity(tmp_path):
    """Nor the package from which a config was read, but the names are."""
    made = []
    for folder, name, scope in (('a', '1', {}), ('b', '1', {}),
                                ('a', '1', dict(_scope_='mmpretrain')),
                                ('c', '2', {})):
        path = tmp_path / folder / 'cat' / f'{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'')
        data = RepeatableViews(dict(
            type='mmpretrain.CustomDataset',
            data_root=str(tmp_path / folder), pipeline=[], **scope))
        made.append(StoredViews.of(data).identity)
    assert made[0] == made[1] == made[2] != made[3]
    assert made[0]['data'] == made[3]['data']


# ---- trainings -------------------------------------------------------------


def run(tmp_path, name, executor, views=2, epochs=4, jitter=.5, hooks=(),
        sampler=None, workers=0, config=None, **options):
    """A training of which teachers' calls are counted."""
    teachers = [dict(t, **({'executor': executor} if executor else {}))
                for t in toy_teachers(tmp_path)]
    data = dict(type='mmkd_rl.WorldDataset', size=32, jitter=jitter)
    runner = toy_runner(
        tmp_path / name, distiller(teachers, **options), epochs=epochs,
        hooks=[dict(type='StoredOutputsHook'), *hooks],
        randomness=dict(seed=0),
        **(config or {}),
        train_dataloader=dict(
            batch_size=8, num_workers=workers,
            sampler=sampler or dict(type='mmkd_rl.ViewSampler'),
            dataset=dict(type='mmkd_rl.RepeatableViews', views=views,
                         dataset=data)))
    runner.train()
    return runner


def stored(tmp_path, **options):
    return dict(type='stored', folder=str(tmp_path / 'store'), **options)


def counts(runner):
    return [(e.read_count, e.run_count)
            for e in runner.model.distillation.teachers.stored]


def test_a_full_store_gives_the_same_run(tmp_path):
    """Bit for bit, whether it was filled before, in other epochs, or in the
    same run; and teachers are not run again."""
    first = run(tmp_path, 'a', stored(tmp_path))
    again = run(tmp_path, 'b', stored(tmp_path))
    assert counts(first) == [(64, 64)] * 2  # two views, four epochs
    assert counts(again) == [(128, 0)] * 2
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


@pytest.mark.parametrize('workers', [0, 2])
def test_live_and_stored_teachers_agree(tmp_path, workers):
    """Stored in full precision; to rounding in half precision and codes."""
    live = run(tmp_path, 'a', None, workers=workers)
    own = run(tmp_path, 'b', stored(tmp_path, features='float32',
                                    scores='float32'), workers=workers)
    for name, value in live.model.state_dict().items():
        torch.testing.assert_close(value, own.model.state_dict()[name],
                                   rtol=1e-5, atol=1e-6)
    few = run(tmp_path, 'c', dict(type='stored', folder=str(
        tmp_path / 'few')), workers=workers)
    for name, value in live.model.state_dict().items():
        torch.testing.assert_close(value, few.model.state_dict()[name],
                                   rtol=.02, atol=3e-3)


def test_a_resumed_run_goes_on_with_its_views(tmp_path):
    hooks = [dict(type='RandomStateHook')]
    straight = run(tmp_path, 'a', stored(tmp_path), views=3, hooks=hooks)
    run(tmp_path, 'b', stored(tmp_path), views=3, epochs=2, hooks=hooks)
    resumed = run(tmp_path, 'b', stored(tmp_path), views=3, hooks=hooks,
                  config=dict(resume=True, load_from=str(
                      tmp_path / 'b/epoch_2.pth')))
    assert resumed.epoch == 4
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_training_that_counts_iterations(tmp_path):
    runner = run(tmp_path, 'a', stored(tmp_path), config=dict(
        train_cfg=dict(by_epoch=False, max_iters=12),
        default_hooks=dict(checkpoint=dict(
            type='CheckpointHook', by_epoch=False, interval=12))),
        sampler=dict(type='mmkd_rl.ViewSampler', sampler=dict(
            type='InfiniteSampler', shuffle=True)))
    assert counts(runner) == [(32, 64)] * 2


@pytest.mark.parametrize('strategy', ['MTKDRL', 'CAMKD', 'AEKD', 'MMKD'])
def test_strategies(tmp_path, strategy):
    hooks = [dict(type='LearnerHook')] if strategy in ('MTKDRL', 'MMKD') \
        else []
    runner = run(tmp_path, 'a', stored(tmp_path), hooks=hooks,
                 weighting=dict(type=strategy))
    assert counts(runner) == [(64, 64)] * 2


def test_logits_alone_need_no_maps(tmp_path):
    runner = run(tmp_path, 'a', stored(tmp_path), feature_loss=None)
    meta = json.loads((tmp_path / 'store/t0/meta.json').read_text())
    assert meta['features'] == 'pooled'
    with pytest.raises(REFUSAL, match="features.*'pooled', and a term"):
        run(tmp_path, 'b', stored(tmp_path, features='pooled'))
    # By itself it takes a store of maps, which is no other teacher's.
    with pytest.raises(ConfigError, match="'pooled', and now 'float16'"):
        run(tmp_path, 'b', stored(tmp_path))
    assert counts(runner) == [(64, 64)] * 2


def test_maps_serve_logits_alone(tmp_path):
    run(tmp_path, 'a', stored(tmp_path))
    assert counts(run(tmp_path, 'b', stored(tmp_path), feature_loss=None)) \
        == [(128, 0)] * 2


def test_one_store_for_students_of_any_precision(tmp_path):
    """Teachers run in float32, whatever the student's precision."""
    run(tmp_path, 'a', stored(tmp_path))
    low = run(tmp_path, 'b', stored(tmp_path), config=dict(
        optim_wrapper=dict(type='BFloat16OptimWrapper', precision='bfloat16',
                           optimizer=dict(type='SGD', lr=.05))))
    assert counts(low) == [(128, 0)] * 2


def test_a_class_map(tmp_path):
    """The label's score is that of the teacher's own class."""
    teachers = [dict(t, class_map=[1, 2, 3, 4, 0], executor=stored(tmp_path))
                for t in toy_teachers(tmp_path)]
    runner = toy_runner(tmp_path / 'run', distiller(teachers))
    pool = runner.model.distillation.teachers
    pool.begin(StoredViews(4, 1, {}))
    executor, = pool.stored[:1]
    samples = [DataSample().set_gt_label(i) for i in (0, 4)]
    batch = type('B', (), dict(samples=samples, images=torch.zeros(2)))
    assert executor._labels(batch).tolist() == [1, 0]


# ---- what must not be mixed up ---------------------------------------------


def executor_of(tmp_path, network=None):
    """A stored executor of four images, and a teacher whose outputs are the
    means of its images; -1 gives NaN."""
    def read(images):
        mean = images.mean((1, 2, 3))[:, None]
        mean = torch.where(mean < 0, torch.nan, mean)
        return Output((mean.expand(-1, 3), ), (mean.expand(-1, 5), )), ()

    torch.manual_seed(0)  # one store for all weights that are the same
    network = TappedNetwork(nn.Linear(1, 1), print, InputAdapter(None, None))
    executor = StoredExecutor('a', network, read, folder=str(tmp_path))
    executor.run = lambda batch: read(batch.images)
    executor.begin(StoredViews(4, 1, {}), maps=False)
    return executor


def batch_of(*values):
    images = torch.tensor(values)[:, None, None, None].expand(-1, 3, 2, 2)
    return Batch(images, [DataSample()] * len(values), [
        ViewKey(i, 0, i + 1) for i in range(len(values))])


def test_nan_in_a_part_of_a_batch_is_not_read_as_zero(tmp_path):
    executor = executor_of(tmp_path)
    output, _ = executor(batch_of(1., 2.))
    assert output.features[0][:, 0].tolist() == [1., 2.]
    with pytest.raises(FloatingPointError, match="'a' gave NaN"):
        executor(batch_of(1., 2., -1.))
    assert executor.absent() == [2, 3]
    output, _ = executor(batch_of(1., 2., 3.))
    assert output.features[0][:, 0].tolist() == [1., 2., 3.]


def test_rows_that_are_there_are_not_written_again(tmp_path):
    first = executor_of(tmp_path)
    first(batch_of(1., 2.))
    first.flush()
    again = executor_of(tmp_path)
    output, _ = again(batch_of(9., 9., 3.))  # as if computed otherwise
    assert output.features[0][:, 0].tolist() == [1., 2., 3.]
    assert (again.read_count, again.run_count) == (2, 1)


def test_keys_without_the_hook(tmp_path):
    executor = executor_of(tmp_path)
    executor._views = None
    with pytest.raises(ConfigError, match='no StoredOutputsHook'):
        executor(batch_of(1.))


@pytest.mark.parametrize('change', [
    dict(taps=(types.SimpleNamespace(path='a', source='output', index=0,
                                     call=None), )),
    dict(window='(64, 64)'), dict(precision='bfloat16')])
def test_other_taps_and_windows_are_other_outputs(change):
    plain = dict(
        network=nn.Linear(1, 1), precision=None, window=None,
        adapter=types.SimpleNamespace(description=''),
        taps=(types.SimpleNamespace(path='a', source='output', index=-1,
                                    call=None), ))
    form = RowFormat.of(output(), 'pooled')
    torch.manual_seed(0)
    one, other = (identity_of(types.SimpleNamespace(**n), form,
                              StoredViews(4, 1, {}), {})
                  for n in (plain, {**plain, **change}))
    assert one != other
    assert one == identity_of(types.SimpleNamespace(**plain), form,
                              StoredViews(4, 1, {}), {})


def test_other_labels_are_other_outputs(tmp_path):
    """The score of the label is stored more exactly than others."""
    path = tmp_path / 'a.png'
    path.write_bytes(b'')
    (tmp_path / 'one.txt').write_text('a.png 0')
    (tmp_path / 'other.txt').write_text('a.png 1')
    one, other = (StoredViews.of(RepeatableViews(dict(
        type='mmpretrain.CustomDataset', data_prefix=str(tmp_path),
        ann_file=str(tmp_path / f'{name}.txt'), pipeline=[]))).identity
        for name in ('one', 'other'))
    assert one != other


class MixLater(Hook):
    """Switches mixup on in the second epoch, as SwitchRecipeHook does."""

    def before_train_epoch(self, runner):
        if runner.epoch == 1:
            runner.model.data_preprocessor.batch_augments = lambda *a: a


def test_mixing_that_a_hook_switches_on(tmp_path):
    HOOKS.register_module(name='MixLater', module=MixLater, force=True)
    with pytest.raises(REFUSAL, match='batch_augments.*mixup'):
        run(tmp_path, 'a', stored(tmp_path), hooks=[dict(type='MixLater')])
    with pytest.raises(REFUSAL, match='PipelineSwitchHook switches'):
        run(tmp_path, 'b', stored(tmp_path), hooks=[dict(
            type='mmdet.PipelineSwitchHook', switch_epoch=3,
            switch_pipeline=[])])


# ---- refusals --------------------------------------------------------------


def test_data_without_views(tmp_path):
    teachers = [dict(t, executor=stored(tmp_path))
                for t in toy_teachers(tmp_path)]
    runner = toy_runner(tmp_path / 'r', distiller(teachers),
                        hooks=[dict(type='StoredOutputsHook')])
    with pytest.raises(REFUSAL, match='RepeatableViews.*--stored'):
        runner.train()


def test_a_sampler_of_the_first_view(tmp_path):
    with pytest.raises(REFUSAL, match='takes the first of 2 views'):
        run(tmp_path, 'a', stored(tmp_path),
            sampler=dict(type='DefaultSampler', shuffle=True))


def test_images_that_are_mixed(tmp_path):
    teachers = [dict(t, executor=stored(tmp_path))
                for t in toy_teachers(tmp_path)]
    runner = toy_runner(
        tmp_path / 'r', distiller(teachers),
        hooks=[dict(type='StoredOutputsHook')],
        data_preprocessor=dict(
            type='mmpretrain.ClsDataPreprocessor', num_classes=5,
            batch_augments=dict(augments=dict(type='Mixup', alpha=.2))),
        train_dataloader=dict(
            batch_size=8, num_workers=0,
            sampler=dict(type='mmkd_rl.ViewSampler'),
            dataset=dict(type='mmkd_rl.RepeatableViews',
                         dataset=dict(type='mmkd_rl.WorldDataset'))))
    with pytest.raises(REFUSAL, match='batch_augments.*mixup'):
        runner.train()


def test_other_images_are_noticed(tmp_path):
    """The same names and pipeline, other pixels."""
    run(tmp_path, 'a', stored(tmp_path), epochs=1)
    meta = tmp_path / 'store/t0/meta.json'
    before = meta.read_text()
    with pytest.raises(ConfigError, match='store.*is of something else: data'):
        run(tmp_path, 'b', stored(tmp_path), jitter=.4, epochs=1)
    # As if files had been changed in place: the identity is that of before.
    other = json.loads(before)
    teachers = tmp_path / 'other'
    run(tmp_path, 'c', dict(type='stored', folder=str(teachers)), jitter=.4,
        epochs=1)
    new = json.loads((teachers / 't0/meta.json').read_text())
    for name in ('t0', 't1'):
        own = json.loads((tmp_path / f'store/{name}/meta.json').read_text())
        own['data'] = new['data']
        (tmp_path / f'store/{name}/meta.json').write_text(json.dumps(own))
    assert other['data'] != new['data']
    with pytest.raises(ConfigError, match='is not the one whose output'):
        run(tmp_path, 'd', stored(tmp_path), jitter=.4, epochs=1)


class OwnGenerator:
    """Images with noise from a generator of the data set's own."""

    metainfo: dict = {}

    def __init__(self):
        self.generator = np.random.default_rng()

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return dict(inputs=torch.from_numpy(self.generator.random((3, 4, 4))),
                    data_samples=DataSample())


def test_views_that_do_not_come_again():
    data = RepeatableViews(OwnGenerator())
    with pytest.raises(ConfigError, match='not the same when it is read'):
        StoredViews.of(data).check(data)


def test_features_that_are_too_large(tmp_path):
    out = Output((torch.full((1, 2, 2, 2), 1e6), ), (torch.zeros(1, 5), ))
    for kind, finite in (('float16', False), ('float32', True),
                         ('uint8', True)):
        back, _ = round_trip(out, kind)
        assert bool(back.features[0].isfinite().all()) == finite


def test_keys_of_samples():
    named = DataSample(metainfo=dict(view_key=ViewKey(3, 1, 9)))
    assert ViewKey.of([named, named]) == (ViewKey(3, 1, 9), ) * 2
    assert ViewKey.of([named, DataSample()]) is None
    assert ViewKey.of([]) is None
