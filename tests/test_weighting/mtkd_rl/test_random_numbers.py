"""Learners have their own generators: the student's numbers do not change."""

import pytest
import torch

from mmkd_rl.utils.random_state import RandomNumbers
from mmkd_rl.weighting.mtkd_rl import History
from mmkd_rl.weighting.mtkd_rl.learner import AgentLearner
from mmkd_rl.weighting.mtkd_rl.updaters import PPO
from tests.test_weighting.mtkd_rl.test_policy_gradient import policy


def drawn(numbers):
    return torch.randn(5, generator=numbers.on('cpu'))


def test_the_same_seed_gives_the_same_numbers():
    one, two = RandomNumbers(), RandomNumbers()
    assert not torch.equal(drawn(one), drawn(two))
    one.seed(3)
    first, second = drawn(one), drawn(one)
    assert not torch.equal(first, second)
    two.seed(3)
    assert torch.equal(drawn(two), first)
    one.seed(3)  # starts again
    assert torch.equal(drawn(one), first)
    one.seed(4)
    assert not torch.equal(drawn(one), first)


def test_it_is_seeded_by_the_run():
    torch.manual_seed(5)
    one = RandomNumbers()
    torch.manual_seed(5)
    assert torch.equal(drawn(one), drawn(RandomNumbers()))
    torch.manual_seed(6)
    assert not torch.equal(drawn(one), drawn(RandomNumbers()))


def test_the_global_generator_is_left_alone():
    numbers = RandomNumbers()
    before = torch.get_rng_state()
    drawn(numbers)
    numbers.seed(1)
    drawn(numbers)
    numbers.load_state_dict(numbers.state_dict())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize('used', [False, True])
def test_goes_on_from_a_file(tmp_path, used):
    one, two = RandomNumbers(), RandomNumbers()
    if used:
        drawn(one)
    drawn(two)
    torch.save(one.state_dict(), tmp_path / 'random.pth')
    two.load_state_dict(
        torch.load(tmp_path / 'random.pth', weights_only=True))
    for _ in range(2):
        assert torch.equal(drawn(one), drawn(two))


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is one')
def test_a_device_that_is_not_there_is_passed_over():
    one, two = RandomNumbers(), RandomNumbers()
    drawn(one)
    state = one.state_dict()
    state['generators']['cuda:0'] = torch.zeros(16, dtype=torch.uint8)
    two.load_state_dict(state)
    assert torch.equal(drawn(one), drawn(two))


def test_a_learner_keeps_them():
    def learner():
        net = policy()
        return AgentLearner(net, PPO(net), History())

    one, two = learner(), learner()
    one.random.seed(1)
    two.random.seed(2)
    log_w = torch.zeros(4, 2, 3).log_softmax(-1)
    one.updater.explore(log_w)
    state = one.state_dict()
    two.load_state_dict(state)
    assert torch.equal(one.updater.explore(log_w), two.updater.explore(log_w))
    # a checkpoint of the first layout has none: they stay as they are
    del state['random']
    two.load_state_dict(state)
    assert torch.equal(one.updater.explore(log_w), two.updater.explore(log_w))
