"""A run that diverges stops with the part that is at fault; the agent is not
blamed for a student's learning rate."""

import pytest
import torch

from mmkd_rl.engine.hooks import LossCheckHook
from tests.toy import classifier, distiller, toy_runner, toy_teachers

AGENT = dict(type='AgentAlternationHook', warmup=1)
REFUSAL = (FloatingPointError, )


def train(tmp_path, model, lr=.05, hooks=(), interval=50, **kwargs):
    runner = toy_runner(
        tmp_path / 'run', model, hooks=hooks, epochs=3,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=lr)), **kwargs)
    runner.register_hook(LossCheckHook(interval))
    runner.train()


@pytest.mark.parametrize('weighting', ['AverageWeighting', 'MTKDRL'])
def test_a_students_learning_rate(weighting, tmp_path):
    hooks = [AGENT] if weighting == 'MTKDRL' else []
    with pytest.raises(REFUSAL, match='student itself diverged.*optimizer.lr'):
        train(tmp_path, distiller(toy_teachers(tmp_path),
                                  weighting=dict(type=weighting)),
              lr=1e12, hooks=hooks)
    assert not list((tmp_path / 'run').glob('*.pth'))


def test_a_terms_weight(tmp_path):
    with pytest.raises(REFUSAL, match='loss_feature of the distillation'):
        train(tmp_path, distiller(
            toy_teachers(tmp_path), weighting=dict(type='AverageWeighting'),
            feature_loss=dict(type='FitNetLoss', loss_weight=1e38)))


def test_a_plain_run(tmp_path):
    with pytest.raises(REFUSAL, match='^loss became NaN'):
        train(tmp_path, classifier(8, hidden=6), lr=1e12)


def test_a_run_without_faults(tmp_path):
    train(tmp_path, distiller(toy_teachers(tmp_path)), interval=1)


def test_the_first_is_named_and_what_recovers_does_not_count():
    hook = LossCheckHook(1)
    one, inf = torch.tensor(1.), torch.tensor(torch.inf)
    for i, (a, b) in enumerate([(one, inf), (one, one), (inf, one),
                                (inf, inf)]):
        hook._see(dict(loss=a + b, loss_a=a, loss_b=b), i + 1)
    assert hook._first.tolist() == [3, 3, 4]
    assert hook._before.tolist() == [2, 1, 1]
