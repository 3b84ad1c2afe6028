"""A strategy with networks of its own can be registered from one file outside
of the package, with its hook by name and without other changes."""

import pytest
import torch
from torch import nn

import mmkd_rl
from mmkd_rl.records import TeacherWeights
from mmkd_rl.registry import WEIGHTINGS
from mmkd_rl.utils.random_state import RandomNumbers
from mmkd_rl.weighting import Learner, WeightingStrategy
from tests.commands import config
from tests.test_engine.test_resume import Killed, kill, learner_of, same
from tests.toy import classifier, distiller, toy_runner, toy_teachers


class TableLearner(Learner):
    """Learner with one weight a teacher, trained to prefer small gaps."""

    noun = 'table'
    plural = False
    log_name = 'table'
    checkpoint_key = 'table'

    def __init__(self, count):
        super().__init__(nn.Linear(1, count, bias=False))
        nn.init.zeros_(self.networks.weight)
        self.optimizer = torch.optim.Adam(self.networks.parameters(), lr=.1)
        self.numbers = RandomNumbers()
        self.gaps = []

    @property
    def random(self):
        return self.numbers

    def parts(self):
        return dict(optimizer=self.optimizer)

    def observe(self, step, student):
        self.gaps.append(step.weights.record.detach().mean(0))
        assert student.model.training

    def update(self, student):
        loss = (self.weights() * torch.stack(self.gaps).mean(0)).sum()
        self.gaps.clear()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.updates += 1
        return dict(loss=loss.item())

    def weights(self):
        return self.networks.weight.flatten().softmax(0)


class Table(WeightingStrategy):
    """Strategy with weights from :class:`TableLearner`."""

    hooks = (dict(type='mmkd_rl.LearnerHook', warmup=2, interval=2,
                  by_epoch=False), )

    def __init__(self, context, scale='unit'):
        super().__init__(context, scale)
        self.learner = TableLearner(self.num_teachers)

    def forward(self, batch):
        self.learner.warn_without_hook(self)
        weights = self.learner.weights().detach().expand(
            len(batch.student.logits[0]), -1)
        return TeacherWeights(weights, weights, batch.gaps.logit)


@pytest.fixture(autouse=True)
def registered():
    WEIGHTINGS.register_module(module=Table)
    yield
    WEIGHTINGS.module_dict.pop('Table')


def run(folder, teachers, **kwargs):
    return toy_runner(
        folder, distiller(teachers, weighting=dict(type='Table')),
        hooks=Table.hooks, epochs=3, randomness=dict(seed=0), **kwargs)


def test_it_is_trained_logged_and_saved(tmp_path):
    """Twelve steps: an update after every second one."""
    runner = run(tmp_path, toy_teachers(tmp_path))
    runner.train()
    learner = learner_of(runner.model)
    assert learner.updates == 6 and not learner.gaps
    assert (learner.weights() - .5).abs().max() > .05
    log = next(tmp_path.glob('*/vis_data/scalars.json')).read_text()
    assert 'table/loss' in log
    saved = torch.load(tmp_path / 'epoch_3.pth', weights_only=False)['table']
    same(saved, learner.state_dict())
    assert set(saved) == {'networks', 'optimizer', 'updates', 'random'}


def test_killed_and_resumed_is_the_same(tmp_path):
    teachers = toy_teachers(tmp_path)
    whole = run(tmp_path / 'a', teachers)
    whole.train()
    broken = run(tmp_path / 'b', teachers, call=(kill, 6))
    with pytest.raises(Killed):
        broken.train()
    resumed = run(tmp_path / 'b', teachers, resume=True)
    resumed.train()
    same(whole.model.state_dict(), resumed.model.state_dict())
    same(learner_of(whole.model).state_dict(),
         learner_of(resumed.model).state_dict())


def test_another_number_of_teachers_does_not_fit(tmp_path):
    state = TableLearner(2).state_dict()
    with pytest.raises(ValueError, match="checkpoint's table does not fit"):
        TableLearner(3).load_state_dict(state)


def test_the_hook_without_a_learner(tmp_path):
    runner = toy_runner(tmp_path, distiller(toy_teachers(tmp_path)),
                        hooks=Table.hooks)
    with pytest.raises(TypeError, match='LearnerHook.*AverageWeighting, which '
                       'has no learner'):
        runner.train()


def test_by_one_call_its_hook_comes_along(tmp_path):
    plain = config(tmp_path, 'plain', classifier(8, hidden=6))
    cfg = mmkd_rl.distill(plain, 'Table', toy_teachers(tmp_path))
    assert any(hook['type'] == 'mmkd_rl.LearnerHook'
               for hook in cfg.custom_hooks)
