"""Class means are those of the training set, and their computation changes
nothing else."""

import copy

import pytest
import torch
from mmpretrain.structures import DataSample

from mmkd_rl.engine.hooks import ClassMeanHook
from mmkd_rl.records import Batch
from mmkd_rl.registry import DATASETS
from tests.toy import (
    WorldDataset,
    classifier,
    distiller,
    samples,
    toy_runner,
    toy_teachers,
)

ND = dict(type='NDLoss')
HOOK = dict(type='ClassMeanHook')


@DATASETS.register_module(force=True)
class SoftDataset(WorldDataset):
    """Data set whose labels are probabilities, with 0 for class 4."""

    def __getitem__(self, index):
        score = torch.zeros(5)
        score[index % 4] = .75
        score[(index + 1) % 4] += .25
        return dict(
            inputs=self.images[index],
            data_samples=DataSample().set_gt_score(score))


@pytest.fixture
def teachers(tmp_path):
    return toy_teachers(tmp_path)


def nd_loss(model):
    """The only feature term of the model."""
    term, = (t for t in model.distillation.terms if t.reads == 'features')
    return term


def means_of(model):
    """Copies of everything that the hook computes for two teachers."""
    return {n: nd_loss(model).get_buffer(n).clone()
            for n in ('counts', 'mean0', 'mean1')}


def reference(model, dataset, labels):
    """Compute class means of each teacher's pooled feature, image by image."""
    means = []
    for teacher in model.distillation.teachers:
        with torch.no_grad():
            f = torch.stack([
                teacher.model.backbone(x[None])[0].mean((2, 3))[0].double()
                for x in dataset.images
            ])
        y = labels.double()
        means.append((y.T @ f) / y.sum(0).clamp_min(1e-9)[:, None])
    return means


def first_batch(work_dir, model, **kwargs):
    """The model before its first training iteration."""
    found = []
    runner = toy_runner(
        work_dir,
        model,
        epochs=1,
        call=(lambda r: found.append(copy.deepcopy(r.model)), 0),
        **kwargs)
    runner.train()
    return found[0]


def test_means_of_the_training_set(tmp_path, teachers):
    """Each of 21 images in batches of 8 counts once; another data loader can
    be given."""
    for size, hook in ((21, HOOK), (13, dict(
            HOOK,
            dataloader=dict(
                dataset=dict(type='mmkd_rl.WorldDataset', size=13, seed=4))))):
        model = first_batch(
            tmp_path, distiller(teachers, feature_loss=ND), size=21,
            hooks=[hook])
        data = WorldDataset(size, seed=0 if size == 21 else 4)
        loss = nd_loss(model)
        labels = torch.nn.functional.one_hot(data.labels, 5)
        assert torch.equal(loss.counts, labels.sum(0).float())
        for m, mean in enumerate(reference(model, data, labels)):
            torch.testing.assert_close(
                loss.get_buffer(f'mean{m}').double(), mean, rtol=1e-4,
                atol=1e-6)


def test_soft_labels_and_a_class_without_images(tmp_path, teachers):
    loader = dict(
        batch_size=8,
        num_workers=0,
        dataset=dict(type='mmkd_rl.SoftDataset', size=16),
        sampler=dict(type='DefaultSampler', shuffle=True))
    model = first_batch(
        tmp_path,
        distiller(teachers, feature_loss=ND),
        train_dataloader=loader,
        hooks=[HOOK])
    data = SoftDataset(16)
    labels = torch.stack([d['data_samples'].gt_score for d in data])
    loss = nd_loss(model)
    torch.testing.assert_close(loss.counts, torch.tensor([4., 4, 4, 4, 0]))
    for m, mean in enumerate(reference(model, data, labels)):
        torch.testing.assert_close(
            loss.get_buffer(f'mean{m}').double(), mean, rtol=1e-4, atol=1e-6)
    value = model(data.images[:2], samples(torch.tensor([4, 4])), mode='loss')
    assert value['loss_feature'] == 0


def test_later_randomness_is_as_without_it(tmp_path, teachers):
    """Augmentations and the order of images do not change: with weight 0 for
    the feature loss the student is the same."""
    states = []
    for name, hooks, means in (('a', [HOOK], 'dataset'), ('b', [], 'running')):
        runner = toy_runner(
            tmp_path / name,
            distiller(
                teachers,
                feature_loss=dict(ND, loss_weight=0., means=means)),
            hooks=hooks,
            jitter=.3,
            randomness=dict(seed=5))
        runner.train()
        states.append({
            n: t for n, t in runner.model.state_dict().items()
            if not n.startswith('distillation.')})
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key


@pytest.mark.parametrize('resume', [True, False])
def test_a_resumed_run_makes_no_second_pass(tmp_path, teachers, resume,
                                            monkeypatch):
    model = distiller(teachers, feature_loss=ND)
    runner = toy_runner(tmp_path, model, epochs=1, hooks=[HOOK])
    runner.train()
    first = means_of(runner.model)
    passes = []
    sums = ClassMeanHook._sums

    def spy(self, *args):
        passes.append(self)
        return sums(self, *args)

    monkeypatch.setattr(ClassMeanHook, '_sums', spy)
    again = toy_runner(
        tmp_path / 'again', model, epochs=2, hooks=[HOOK], resume=resume,
        load_from=str(tmp_path / 'epoch_1.pth'))
    again.train()
    # with only the weights loaded, data and teachers may be others
    assert len(passes) == (0 if resume else 1)
    assert first['counts'].sum() == 32
    for key, value in means_of(again.model).items():
        assert torch.equal(value, first[key]), key


def test_every_term_that_takes_means_gets_them(tmp_path, teachers):
    model = first_batch(
        tmp_path,
        distiller(teachers, losses=[
            ND, dict(type='FitNetLoss'), dict(ND, means='running'), ND]),
        hooks=[HOOK])
    first, _, running, last = model.distillation.terms
    assert first.counts.sum() == 32 and running.counts.sum() == 0
    for name in ('counts', 'mean0', 'mean1'):
        assert torch.equal(first.get_buffer(name), last.get_buffer(name))
    assert last.mean1.any()


def test_with_an_agent_and_half_precision(tmp_path, teachers):
    runner = toy_runner(
        tmp_path,
        distiller(
            teachers,
            logit_loss=dict(type='DISTLoss'),
            feature_loss=ND,
            weighting=dict(type='MTKDRL')),
        hooks=[HOOK, dict(type='AgentAlternationHook'),
               dict(type='EMAHook')],
        optim_wrapper=dict(
            type='BFloat16OptimWrapper', precision='bfloat16',
            optimizer=dict(type='SGD', lr=.05)))
    said = []
    runner.logger.info = said.append
    runner.train()
    assert any('class means of 2 teachers over 32 images in ' in str(s)
               for s in said)
    for value in runner.model.state_dict().values():
        assert value.isfinite().all()


def test_processes_share_the_work(tmp_path, teachers, monkeypatch):
    """9 images, 5 for one process and 4 for the other. Both are simulated: the
    sums of the first are stored until the second adds them to its own."""
    kept, added = [], []

    def all_reduce(tensor, op='sum'):
        if op != 'sum':
            return  # whether all teachers are finite
        if rank == 0:
            kept.append(tensor.clone())
        else:
            tensor += kept[len(added)]
            added.append(tensor)

    monkeypatch.setattr('mmengine.dist.all_reduce', all_reduce)
    model = distiller(teachers, feature_loss=ND)
    runners = [toy_runner(tmp_path, model, size=9, batch_size=2)
               for _ in range(2)]
    for rank, runner in enumerate(runners):
        runner._train_loop = runner.build_train_loop(runner._train_loop)
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info',
                            lambda rank=rank: (rank, 2))
        ClassMeanHook().before_train(runner)
    assert kept[0].sum() == 5 and len(kept) == len(added) == 3
    data = WorldDataset(9)
    labels = torch.nn.functional.one_hot(data.labels, 5)
    loss = nd_loss(runners[1].model)
    assert torch.equal(loss.counts, labels.sum(0).float())
    for m, mean in enumerate(reference(runners[1].model, data, labels)):
        torch.testing.assert_close(
            loss.get_buffer(f'mean{m}').double(), mean, rtol=1e-4, atol=1e-6)


def test_a_process_without_images(tmp_path, teachers, monkeypatch):
    """One image for two processes: the other one makes the same calls, in
    the same order."""
    calls, kept = [], []

    def all_reduce(tensor, op='sum'):
        calls[-1].append((op, tuple(tensor.shape)))
        if op == 'sum' and rank == 0:
            kept.append(tensor.clone())
        elif op == 'sum':
            tensor += kept.pop(0)

    monkeypatch.setattr('mmengine.dist.all_reduce', all_reduce)
    model = distiller(teachers, feature_loss=ND)
    runners = [toy_runner(tmp_path, model, size=1, batch_size=2)
               for _ in range(2)]
    for rank, runner in enumerate(runners):
        calls.append([])
        runner._train_loop = runner.build_train_loop(runner._train_loop)
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info',
                            lambda rank=rank: (rank, 2))
        ClassMeanHook().before_train(runner)
        # and in training the first batch is not counted again
        runner.model.distillation.teachers(Batch(torch.zeros(1, 3, 4, 4)))
    assert calls[0] == calls[1] and calls[0][0][0] == 'min'
    first, second = (means_of(r.model) for r in runners)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert second['counts'].sum() == 1


@pytest.mark.parametrize('feature_loss, found', [
    (dict(type='FitNetLoss'), 'FitNetLoss'),
    (None, 'None'),
    (dict(type='NDLoss', means='running'), r"NDLoss\(means='running'\)"),
])
def test_a_loss_without_class_means(tmp_path, teachers, feature_loss, found):
    runner = toy_runner(
        tmp_path, distiller(teachers, feature_loss=feature_loss),
        hooks=[HOOK])
    with pytest.raises(TypeError, match=f'feature_loss is {found}, which'):
        runner.train()


def test_without_distiller(tmp_path):
    runner = toy_runner(
        tmp_path, classifier(), hooks=[dict(type='mmkd_rl.ClassMeanHook')],
        default_scope='mmpretrain')
    with pytest.raises(TypeError, match='ClassMeanHook, which needs a Multi'):
        runner.train()


@pytest.mark.parametrize('value', ['train', dict(batch_size=3)])
def test_bad_arguments(value):
    with pytest.raises(TypeError, match='ClassMeanHook.dataloader must be'):
        ClassMeanHook(value)
