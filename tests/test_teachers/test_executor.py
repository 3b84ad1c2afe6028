"""Compiled and stored teachers work with the executor's interface without
changes elsewhere, and give the outputs of the eager one (proof of concept)."""

import pytest
import torch

from mmkd_rl.records import Batch, Output
from mmkd_rl.registry import EXECUTORS, MODELS
from mmkd_rl.taps import Tap
from mmkd_rl.teachers import Executor
from tests.toy import World, classifier, distiller, samples, toy_teachers


class Compiled(Executor):
    """Executor with one graph from the student's images to the tapped tensors,
    in which batch norm is folded."""

    def __init__(self, backend='inductor', **kwargs):
        super().__init__(**kwargs)
        options = dict(freezing=True) if backend == 'inductor' else None
        self.compiled = torch.compile(self.network, backend=backend,
                                      fullgraph=True, options=options)
        self.calls = 0

    def __call__(self, batch):
        self.calls += 1
        return self.read(self.compiled(batch.images))


class InMemory(Executor):
    """Executor with outputs from a dictionary in memory, by (index, view)."""

    gives_inner_layers = False
    store: dict = {}

    def __call__(self, batch):
        if batch.keys is None:  # the probe with a grey image, for the sizes
            return self.run(batch)
        rows = [self.store[self.name, key] for key in batch.keys]
        return Output((torch.stack([f for f, _ in rows]), ),
                      (torch.stack([z for _, z in rows]), )), ()


@pytest.fixture(autouse=True)
def registered():
    EXECUTORS.register_module(name='compiled', module=Compiled)
    EXECUTORS.register_module(name='memory', module=InMemory)
    yield
    for name in ('compiled', 'memory'):
        EXECUTORS.module_dict.pop(name)


def pool(folder, executor):
    teachers = [dict(t, executor=executor) for t in toy_teachers(folder)]
    torch.manual_seed(0)
    return MODELS.build(distiller(teachers)).distillation.teachers


def same(a, b):
    assert len(a) == len(b) == 2
    for x, y in zip(a, b):
        for s, t in zip(x.tensors(), y.tensors()):
            torch.testing.assert_close(s, t, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('backend', ['aot_eager', 'inductor'])
def test_compiled(tmp_path, backend):
    """Dynamo's graph as it is; compiled by inductor, weights frozen."""
    images, labels = World().batch(4)
    batch = Batch(images, samples(labels))
    eager = pool(tmp_path, 'eager')(batch)
    compiled = pool(tmp_path, dict(type='compiled', backend=backend))
    same(compiled(batch), eager)
    assert [t.executor.calls for t in compiled] == [2, 2]  # probe and call


def test_compiled_with_inner_layers(tmp_path):
    """The taps of inner layers are known only after the probe."""
    images, labels = World().batch(4)
    steps = []
    for executor in ('eager', dict(type='compiled', backend='aot_eager')):
        teachers = pool(tmp_path, executor)
        teachers.listen([[Tap(t.root, 'conv', 'input'), Tap(t.root, 'conv')]
                         for t in teachers])
        steps.append(teachers.run(Batch(images, samples(labels))))
    same(steps[0].outputs, steps[1].outputs)
    for a, b in zip(steps[0].inner, steps[1].inner):
        assert [t.shape[1] for t in a] == [3, a[1].shape[1]]
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_stored(tmp_path):
    images, labels = World().batch(4)
    batch = Batch(images, samples(labels), [(i, 0) for i in range(4)])
    eager = pool(tmp_path, 'eager')
    outputs = eager(batch)
    stored = pool(tmp_path, 'memory')
    InMemory.store = {
        (teacher.name, key): (output.features[0][i], output.logits[0][i])
        for teacher, output in zip(eager, outputs)
        for i, key in enumerate(batch.keys)}
    same(stored(Batch(torch.zeros_like(images), batch.samples, batch.keys)),
         outputs)
    turned = stored(Batch(images, batch.samples, batch.keys[::-1]))
    assert torch.equal(turned[0].logits[0], outputs[0].logits[0].flip(0))


def test_what_gives_no_inner_layers(tmp_path):
    teacher, _ = pool(tmp_path, 'memory')
    with pytest.raises(ValueError, match="'t0': InMemory cannot give the "
                                         "inner layers.*executor='eager'"):
        teacher.listen(())


@pytest.mark.parametrize('executor, message', [
    ('fast', r"^model\.teachers\.0\.executor\.type: 'fast' is not a "
     'registered executor.*eager'),
    (dict(type='eager', speed=2), "has no option 'speed'"),
    (3, 'must be a dict')])
def test_wrong_executors(tmp_path, executor, message):
    with pytest.raises((ValueError, TypeError), match=message):
        pool(tmp_path, executor)


def test_the_default_is_eager(tmp_path):
    teachers = toy_teachers(tmp_path)
    assert 'executor' not in teachers[0]
    model = MODELS.build(distiller(teachers, student=classifier(8, hidden=6)))
    assert all(type(t.executor).__name__ == 'EagerExecutor'
               for t in model.distillation.teachers)
