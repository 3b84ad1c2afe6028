"""The hook that records and draws the weights of Knowledge Flow."""

import json
from unittest import mock

import pytest
import torch
from mmengine.hooks import Hook

from mmkd_rl.engine.hooks import (
    FlowVisualizationHook,
)
from mmkd_rl.engine.hooks import (
    flow_visualization_hook as hook_module,
)
from mmkd_rl.engine.hooks.common import save_picture
from mmkd_rl.flow import flow_of
from mmkd_rl.visualization import FlowRecord
from tests.toy import CallHook, classifier, toy_runner

LAYERS = ('stem', 'conv')
CANDIDATES = (('student', 'a:x', 'a:y', 'b:x'), ('student', 'b:y'))


class Flow:
    """Attributes of a flow that the hook reads; the weights depend on the
    iteration."""

    layers = LAYERS
    candidates = CANDIDATES
    teacher_names = ('a', 'b')

    def __init__(self):
        self.active_teachers = ('a', 'b')
        self.done = 0

    def weights(self):
        return expected(self.done)


def expected(done):
    """p_w after ``done`` iterations."""
    p = torch.tensor(1 / (2 + done), requires_grad=True)
    return [torch.stack([1 - p, p / 2, p / 4, p / 4]),
            torch.stack([1 - p, p])]


class Train(Hook):
    """Hook that changes the weights and retires teachers before or after an
    iteration. Its priority is lower than the default, as a user's may be.
    """

    priority = 'BELOW_NORMAL'

    def __init__(self, flow, before=None, after=None):
        self.flow, self.before, self.after = flow, before or {}, after or {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.flow.active_teachers = self.before.get(
            runner.iter, self.flow.active_teachers)

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        self.flow.done = runner.iter + 1
        self.flow.active_teachers = self.after.get(
            runner.iter, self.flow.active_teachers)


@pytest.fixture
def flow(monkeypatch):
    flow = Flow()
    monkeypatch.setattr(hook_module, 'flow_of', lambda model: flow)
    return flow


@pytest.fixture(autouse=True)
def pictures(monkeypatch):
    """Turn off drawing, which is slow, except in tests that need it."""
    pictures = mock.Mock()
    monkeypatch.setattr(hook_module, 'save_picture', pictures)
    return pictures


def run(work_dir, flow, hook=dict(interval=3), before=None, after=None,
        **kwargs):
    runner = toy_runner(
        work_dir,
        classifier(),
        batch_size=4,
        hooks=[dict(type='FlowVisualizationHook', **hook)],
        # five iterations in an epoch, two epochs
        **{**dict(size=20), **kwargs})
    runner.register_hook(Train(flow, before, after))
    return runner


def check(folder, iterations, **kwargs):
    record = FlowRecord.load(str(folder / 'knowledge_flow.json'))
    assert record == FlowRecord(
        list(LAYERS), [list(c) for c in CANDIDATES], ['a', 'b'],
        list(iterations),
        [[row.tolist() for row in expected(n)] for n in iterations], **kwargs)


def test_it_notes_every_interval_and_both_ends(tmp_path, flow, pictures):
    pictures.side_effect = save_picture
    runner = run(tmp_path, flow)
    with mock.patch.object(runner.visualizer, 'add_image') as add:
        runner.train()
    check(tmp_path, [0, 3, 6, 9, 10])
    (name, image), kwargs = add.call_args
    assert name == 'knowledge_flow' and kwargs == dict(step=10)
    assert image.ndim == 3 and image.std() > 0
    assert (tmp_path / 'knowledge_flow.png').stat().st_size > 1000


def test_an_end_on_the_interval_is_noted_once(tmp_path, flow):
    run(tmp_path, flow, dict(interval=5)).train()
    check(tmp_path, [0, 5, 10])


def test_the_record_is_written_with_each_epoch(tmp_path, flow):
    seen = []

    def look(runner):
        seen.append(json.loads(
            (tmp_path / 'knowledge_flow.json').read_text())['iterations'])

    run(tmp_path, flow, call=(look, 5),
        default_hooks=dict(checkpoint=None)).train()
    assert seen == [[0, 3]]


@pytest.mark.parametrize('before, after, retired', [
    (None, None, {}),
    # known before iteration 4 (from 0), when 4 were done
    ({4: ('a', )}, None, dict(b=4)),
    ({4: ('a', ), 7: ()}, None, dict(a=7, b=4)),
    # retired after iteration 3: the same
    (None, {3: ('a', )}, dict(b=4)),
    (None, {9: ('b', )}, dict(a=10)),
    # back again
    ({2: ('a', ), 5: ('a', 'b')}, None, {}),
])
def test_when_teachers_are_retired(tmp_path, flow, before, after, retired):
    run(tmp_path, flow, dict(interval=100), before, after).train()
    check(tmp_path, [0, 10], retired=retired)


def by_iteration(length=10, every=4):
    return dict(
        # MMEngine sleeps when its endless loader starts again.
        size=4 * length,
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=length),
        default_hooks=dict(
            checkpoint=dict(
                type='CheckpointHook', by_epoch=False, interval=every)))


def test_loops_without_epochs(tmp_path, flow, pictures):
    """The file is written with the checkpoints."""
    seen = []

    def look(runner):
        seen.append(json.loads(
            (tmp_path / 'knowledge_flow.json').read_text())['iterations'])

    run(tmp_path, flow, dict(interval=2), call=(look, 5),
        **by_iteration()).train()
    assert seen == [[0, 2, 4]]
    check(tmp_path, [0, 2, 4, 6, 8, 10])
    pictures.assert_called_once()


class Killed(Exception):
    pass


def kill(runner):
    raise Killed


@pytest.mark.parametrize('loop', [dict(), by_iteration(10, every=5)],
                         ids=['epochs', 'iterations'])
def test_a_resumed_run_has_the_whole_record(tmp_path, flow, loop):
    retire = {2: ('a', )}
    with pytest.raises(Killed):
        run(tmp_path, flow, before=retire, call=(kill, 7), **loop).train()
    # a new process knows what is in the model's checkpoint
    run(tmp_path, flow, before=retire, resume=True, **loop).train()
    check(tmp_path, [0, 3, 6, 9, 10], retired=dict(b=2))


def test_loading_without_resuming_begins_anew(tmp_path, flow):
    run(tmp_path / 'a', flow).train()
    flow.done = 0
    run(tmp_path / 'b', flow, load_from=str(tmp_path / 'a' / 'epoch_2.pth')
        ).train()
    check(tmp_path / 'b', [0, 3, 6, 9, 10])


def test_a_record_of_other_links_is_dropped(tmp_path, flow):
    with pytest.raises(Killed):
        run(tmp_path, flow, call=(kill, 7)).train()
    flow.layers = ('stem', 'other')
    flow.done = 5
    run(tmp_path, flow, resume=True).train()
    record = FlowRecord.load(str(tmp_path / 'knowledge_flow.json'))
    assert record.layers == ['stem', 'other']
    assert record.iterations == [5, 6, 9, 10]


def test_other_processes_write_nothing(tmp_path, flow, pictures,
                                       monkeypatch):
    monkeypatch.setattr(hook_module, 'is_main_process', lambda: False)
    run(tmp_path, flow).train()
    pictures.assert_not_called()
    assert not list(tmp_path.glob('knowledge_flow*'))


@pytest.mark.parametrize('interval', [0, -5])
def test_a_bad_interval(interval):
    with pytest.raises(ValueError, match=f'interval.*>= 1, got {interval}'):
        FlowVisualizationHook(interval=interval)


def test_marking_a_teacher_that_is_not_there(tmp_path, flow):
    runner = run(tmp_path, flow, dict(mark=dict(z='x')))
    with pytest.raises(
            ValueError,
            match=r"FlowVisualizationHook.mark has \['z'\].*'a', 'b'"):
        runner.train()


def test_marks_reach_the_picture(tmp_path, flow, pictures):
    run(tmp_path, flow, dict(mark=dict(b='noise'))).train()
    figure = pictures.call_args.args[2]
    assert [t.get_text() for t in figure.subfigs[0].legends[0].get_texts()
            ] == ['student', 'a', 'b (noise)']


# ---- a real flow ---------------------------------------------------------


def knowledge_flow():
    """A toy classifier with Knowledge Flow of two toy teachers."""
    model = classifier(hidden=6)
    model['backbone'] = dict(
        type='mmkd_rl.KnowledgeFlowBackbone',
        student=model['backbone'],
        teachers=[
            dict(
                name=name,
                config=dict(type='mmkd_rl.ToyBackbone', hidden=4),
                checkpoint='untrained') for name in 'ab'
        ],
        links=[
            dict(student='hidden',
                 teachers=dict(a=['hidden', 'conv'], b='hidden')),
            dict(student='conv', teachers=dict(b='conv')),
        ],
        probe_size=4)
    return model


def train_flow(work_dir, **kwargs):
    """Train five iterations an epoch; teacher b is retired after seven."""

    def retire(runner):
        flow_of(runner.model).retire(['b'])

    runner = toy_runner(
        work_dir,
        knowledge_flow(),
        size=20,
        batch_size=4,
        epochs=3,
        hooks=[dict(type='FlowVisualizationHook', interval=5)],
        randomness=dict(seed=0),
        **kwargs)
    runner.register_hook(CallHook(retire, 7))
    flow_of(runner.model).strength = 1.
    return runner


def shares(path):
    """p_w of a checkpoint, from its logits."""
    state = torch.load(path, weights_only=False)['state_dict']
    logits = [state[f'backbone.knowledge_flow.fusions.{j}.logits']
              for j in range(2)]
    return [[float(v) for v in row.exp() / row.exp().sum()] for row in logits]


def test_a_real_flow_in_a_real_run(tmp_path):
    train_flow(tmp_path).train()
    record = FlowRecord.load(str(tmp_path / 'knowledge_flow.json'))
    assert record.layers == ['hidden', 'conv']
    assert record.candidates == [
        ['student', 'a:hidden', 'a:conv', 'b:hidden'], ['student', 'b:conv']]
    assert record.iterations == [0, 5, 10, 15]
    assert record.retired == dict(b=7)
    start, first, *later = record.weights
    assert start == [[.25] * 4, [.5] * 2]
    assert first[0] != start[0] and first[1] != start[1]
    for mine, theirs in zip(first, shares(tmp_path / 'epoch_1.pth')):
        assert mine == pytest.approx(theirs)
    for hidden, conv in later:
        assert hidden[3] == 0 and conv == [1, 0]
        assert sum(hidden) == pytest.approx(1) and 0 < hidden[0] < 1
    for row in zip(*record.mean().values()):
        assert sum(row) == pytest.approx(1)


def test_a_real_flow_resumed(tmp_path):
    train_flow(tmp_path / 'a').train()
    with pytest.raises(Killed):
        train_flow(tmp_path / 'b', call=(kill, 12)).train()
    train_flow(tmp_path / 'b', resume=True).train()
    whole, again = (FlowRecord.load(str(tmp_path / f / 'knowledge_flow.json'))
                    for f in 'ab')
    assert again.iterations == whole.iterations
    assert again.weights[:3] == whole.weights[:3]
    assert again.retired == whole.retired


@pytest.mark.parametrize('first', [True, False])
@pytest.mark.parametrize('end, retired', [(1., 15), (.4, 6)])
def test_the_record_ends_where_knowledge_flow_hook_ends(
        tmp_path, first, end, retired):
    """In any order of the hooks the last record has the student alone."""
    hooks = [dict(type='FlowVisualizationHook', interval=5),
             dict(type='KnowledgeFlowHook', withdraw_from=end,
                  independent_at=end, threshold=0., kl_weight=0.,
                  interval=1)]
    runner = toy_runner(tmp_path, knowledge_flow(), size=20, batch_size=4,
                        epochs=3, hooks=hooks if first else hooks[::-1])
    logged = {}

    def look(runner):
        logged.update({
            name: runner.message_hub.get_scalar(f'train/flow/{name}').current()
            for name in ('student', 'a', 'b')})

    runner.register_hook(CallHook(look, 5))
    runner.train()
    record = FlowRecord.load(str(tmp_path / 'knowledge_flow.json'))
    assert record.iterations == [0, 5, 10, 15]
    assert record.weights[-1] == [[1, 0, 0, 0], [1, 0]]
    assert record.retired == dict(a=retired, b=retired)
    assert logged == pytest.approx(
        {name: values[1] for name, values in record.mean().items()})


@pytest.mark.parametrize('mode', ['epochs', 'iterations'])
def test_a_model_without_a_flow_is_refused_before_training(tmp_path, mode):
    steps = []
    runner = toy_runner(
        tmp_path,
        classifier(),
        hooks=[dict(type='mmkd_rl.FlowVisualizationHook')],
        call=(steps.append, 0),
        **by_iteration() if mode == 'iterations' else {})
    with pytest.raises(
            ValueError,
            match='FlowVisualizationHook, which needs a model with one '
            'KnowledgeFlowBackbone: ImageClassifier has 0'):
        runner.train()
    assert not steps
