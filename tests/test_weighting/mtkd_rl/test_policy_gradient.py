"""The policy gradient equals the gradient in its documentation."""

import numpy as np
import pytest
import torch

from mmkd_rl.records import Transition
from mmkd_rl.weighting.mtkd_rl import History, WeightPolicy
from mmkd_rl.weighting.mtkd_rl.learner import AgentLearner
from mmkd_rl.weighting.mtkd_rl.updaters import PolicyGradient


def transition(reward, size=8, state=None, seed=0):
    """A transition with random states; ``reward`` is [M] or [B, M]."""
    g = torch.Generator().manual_seed(seed)
    reward = torch.as_tensor(reward, dtype=torch.float32)
    if reward.ndim == 1:
        reward = reward.expand(size, -1)
    count = reward.shape[1]
    if state is None:
        state = torch.randn(size, 3 * count, generator=g)
    sources = torch.randn(size, 2, 2, count, generator=g).softmax(-1)
    return Transition(state, sources[:, 0], sources, reward.contiguous())


def policy(count=3, **kwargs):
    torch.manual_seed(0)
    net = WeightPolicy([3] * count, hidden=5, **{
        'standardize': False,
        'learnable_balance': False,
        **kwargs
    })
    for head in net.heads:
        torch.nn.init.normal_(head.weight, std=0.5)
    return net


def history(*transitions):
    h = History()
    for t in transitions:
        h.add(t)
    return h


@pytest.mark.parametrize('objective', ['probability', 'log'])
@pytest.mark.parametrize('normalization', ['minmax', 'standard'])
@pytest.mark.parametrize('value', [0., -3.7, 0.1])
def test_a_constant_reward_moves_no_policy(objective, normalization, value):
    net = policy()
    before = [p.clone() for p in net.parameters()]
    PolicyGradient(
        net,
        dict(type='SGD', lr=10.),
        objective=objective,
        normalization=normalization,
        entropy_weight=0.).update(history(transition([value] * 3)))
    for p, q in zip(before, net.parameters()):
        assert torch.equal(p, q)


def test_a_reward_per_sample_moves_no_policy_either():
    """A reward that is the same for all teachers of a sample has no effect."""
    net = policy()
    before = [p.clone() for p in net.parameters()]
    reward = torch.randn(8, 1).expand(-1, 3)
    PolicyGradient(
        net, dict(type='SGD', lr=10.), entropy_weight=0.,
        normalization='minmax').update(history(transition(reward)))
    assert all(
        torch.equal(p, q) for p, q in zip(before, net.parameters()))


@pytest.mark.parametrize('objective', ['probability', 'log'])
@pytest.mark.parametrize('normalization', ['minmax', 'standard', 'none'])
def test_the_better_teacher_gains(objective, normalization):
    net = policy()
    batch = transition([1., -1., 0.])
    before = net(batch.state).exp().mean((0, 1))
    PolicyGradient(
        net, dict(type='SGD', lr=0.1), objective=objective,
        normalization=normalization,
        entropy_weight=0.).update(history(batch))
    change = net(batch.state).exp().mean((0, 1)) - before
    assert change[0] > 0 > change[1]


def test_probability_gradient_is_that_of_the_expected_reward():
    """Compared with finite differences of sum_m w_m R_m, mean over samples and
    heads."""
    net = policy().double()
    reward = torch.randn(8, 3)
    batch = transition(reward)
    batch = Transition(batch.state.double(), batch.action, batch.sources,
                       batch.reward.double())

    def expected_reward():
        with torch.no_grad():
            w = net(batch.state).exp().numpy()
        total = 0.
        for i in range(8):
            for head in range(2):
                for m in range(3):
                    total += w[i, head, m] * float(reward[i, m])
        return total / 16

    loss, logged = PolicyGradient(
        net, normalization='none', entropy_weight=0.).loss(batch)
    assert float(logged['expected_reward']) == pytest.approx(expected_reward())
    loss.backward()
    step = 1e-5
    for parameter in net.parameters():
        flat = parameter.detach().view(-1)
        for j in range(0, len(flat), 7):
            value = float(flat[j])
            flat[j] = value + step
            up = expected_reward()
            flat[j] = value - step
            down = expected_reward()
            flat[j] = value
            slope = (up - down) / (2 * step)
            assert -parameter.grad.view(-1)[j] == pytest.approx(
                slope, rel=1e-4, abs=1e-8)


def test_log_gradient_at_the_scores_is_the_reward():
    """For any weights: d/dscore sum_m R_m log w_m = R, if R sums to zero."""
    scores = torch.randn(1, 2, 3, requires_grad=True)

    class Fixed(WeightPolicy):

        def forward(self, state):
            return scores.log_softmax(-1)

    updater = PolicyGradient(
        Fixed([3] * 3, learnable_balance=False),
        objective='log',
        normalization='none',
        entropy_weight=0.)
    updater.loss(transition([[0.5, -0.75, 0.25]]))[0].backward()
    torch.testing.assert_close(
        -2 * scores.grad[0], torch.tensor([[0.5, -0.75, 0.25]] * 2))


@pytest.mark.parametrize('weight', [0.3, 1.])
def test_with_entropy_it_rests_at_the_softmax_of_the_reward(weight):
    net = policy()
    reward = torch.tensor([0.5, -0.2, 0.1])
    batch = transition(reward, state=torch.randn(1, 9).expand(8, -1))
    PolicyGradient(
        net, dict(type='Adam', lr=0.02), normalization='none',
        entropy_weight=weight, epochs=400).update(history(batch))
    for head in net(batch.state)[0].exp():
        torch.testing.assert_close(
            head, (reward / weight).softmax(0), atol=1e-3, rtol=0)


def test_logged_entropy_is_in_nats():
    net = WeightPolicy([3] * 3, learnable_balance=False)
    scalars = PolicyGradient(net, dict(type='SGD', lr=0.)).update(
        history(transition([1., 0., 0.])))
    assert scalars['entropy'] == pytest.approx(np.log(3))
    assert scalars['expected_reward'] == pytest.approx(1 / 3)
    assert set(scalars) == {'loss', 'entropy', 'expected_reward'}


def test_learnable_balances_go_to_the_better_source():
    """Confidence prefers the right teacher, divergence a wrong one."""
    right, wrong = torch.tensor([.8, .1, .1]), torch.tensor([0., .5, .5])
    sources = torch.stack([right, wrong]).expand(8, 2, 2, 3).contiguous()
    plain = transition([1., 0., 0.])
    batch = Transition(plain.state, plain.action, sources, plain.reward)
    net = WeightPolicy([3] * 3, learnable_balance=True)
    torch.testing.assert_close(net.balances(), torch.full((2, 3), 1 / 3))
    PolicyGradient(
        net, dict(type='Adam', lr=0.01), epochs=20).update(history(batch))
    for _, confidence, divergence in net.balances().tolist():
        assert confidence > 1 / 3 + 0.02 and divergence < 1 / 3 - 0.02
    net = WeightPolicy([3] * 3, learnable_balance=True, balance=(1, 0, 1))
    PolicyGradient(
        net, dict(type='Adam', lr=0.01), epochs=20).update(history(batch))
    assert (net.balances()[:, 1] == 0).all()
    assert (net.balances()[:, 2] < 0.48).all()
    assert all(p.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize('objective', ['probability', 'log'])
def test_a_source_that_favours_a_wrong_teacher_fades_in_two_updates(
        objective):
    """Eq. (12) with a teacher that is wrong and far from the student. An
    update has about thirty batches, as with the default history and CIFAR
    teachers.
    """
    g = torch.Generator().manual_seed(0)
    far = torch.tensor([0.1, 0.1, 4.])  # D_m
    net = WeightPolicy([3] * 3, learnable_balance=True)
    updater = PolicyGradient(net, objective=objective)
    for _ in range(2):
        batches = []
        for seed in range(30):
            reward = torch.tensor([1., 1., -2.]) \
                + torch.randn(8, 3, generator=g)
            plain = transition(reward, seed=seed)
            conf = torch.tensor([.45, .45, .1]).expand(8, 2, 3)
            div = (far + torch.rand(8, 2, 3, generator=g)).softmax(-1)
            batches.append(
                Transition(plain.state, plain.action,
                           torch.stack([conf, div], 2), plain.reward))
        scalars = updater.update(history(*batches))
    for head in ('logit', 'feature'):
        assert scalars[f'balance_{head}/divergence'] < 0.15
    assert (net.balances()[:, 2] < 0.05).all()
    assert (net.balances()[:, :2] > 0.05).all()  # both others are right


def test_balances_do_not_change_what_the_agent_learns():
    nets = [policy(), policy(learnable_balance=True)]
    for net in nets:
        PolicyGradient(
            net, dict(type='SGD', lr=0.1), max_grad_norm=None).update(
                history(transition([1., 0., -1.])))
    for p, q in zip(nets[0].trunks.parameters(), nets[1].trunks.parameters()):
        torch.testing.assert_close(p, q)
    assert not torch.equal(nets[1].balance, torch.zeros(2, 3))


def test_balances_rest_at_the_softmax_of_what_their_sources_earn():
    net = policy(2, learnable_balance=True)
    plain = transition([.2, -.2], state=torch.zeros(8, 6))
    for head in net.heads:
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
        head.requires_grad_(False)  # w^gen stays 1/2 each and has the reward 0
    sources = torch.tensor([[.8, .2], [.1, .9]]).expand(8, 2, 2, 2)
    batch = Transition(plain.state, plain.action, sources, plain.reward)
    PolicyGradient(
        net, normalization='none', entropy_weight=0.2,
        epochs=400).update(history(batch))
    earned = torch.tensor([0., .6 * .2, -.8 * .2])
    for row in net.balances():
        torch.testing.assert_close(
            row, (earned / 0.2).softmax(0), atol=5e-3, rtol=0)


def test_states_are_standardized_by_what_the_history_holds():
    net = WeightPolicy([3] * 3)
    batches = [transition([1., 0., 0.], seed=s) for s in range(3)]
    batches = [
        Transition(1000 + 50 * b.state, b.action, b.sources, b.reward)
        for b in batches
    ]
    PolicyGradient(net).update(history(*batches))
    states = torch.cat([b.state for b in batches]).double().numpy()
    np.testing.assert_allclose(
        net.standardizer.mean, states.mean(0), rtol=1e-5)
    np.testing.assert_allclose(net.standardizer.var, states.var(0), rtol=1e-3)


def test_one_teacher_works():
    net = WeightPolicy([3])
    scalars = PolicyGradient(net).update(history(transition([-2.])))
    assert all(np.isfinite(v) for v in scalars.values())
    torch.testing.assert_close(
        net(torch.randn(4, 3)), torch.zeros(4, 2, 1))


def test_learner_forgets_and_counts():
    net = policy()
    learner = AgentLearner(net, PolicyGradient(net), History())
    assert learner.update() == {} and learner.updates == 0
    learner.history.add(transition([1., 0., 0.]))
    assert learner.update() and learner.updates == 1
    assert len(learner.history) == 0


def test_learner_goes_on_from_a_file_as_if_never_stopped(tmp_path):
    def learner():
        net = policy(standardize=True, learnable_balance=True)
        return AgentLearner(net, PolicyGradient(net), History())

    one = learner()
    for seed in range(3):
        one.history.add(transition([1., 0., -1.], seed=seed))
        one.update()
    one.history.add(transition([0., 1., 0.], seed=7))
    torch.save(one.state_dict(), tmp_path / 'agent.pth')
    two = learner()
    two.load_state_dict(torch.load(tmp_path / 'agent.pth', weights_only=True))
    assert two.updates == 3
    assert one.update() == two.update()
    for p, q in zip(one.policy.state_dict().values(),
                    two.policy.state_dict().values()):
        assert torch.equal(p, q)


def test_another_agents_state_is_refused():
    def learner(count):
        net = policy(count)
        return AgentLearner(net, PolicyGradient(net), History())

    with pytest.raises(ValueError, match='agent does not fit this config'):
        learner(3).load_state_dict(learner(2).state_dict())


@pytest.mark.parametrize('kwargs, message', [
    (dict(objective='entropy'), "objective.*'log'.*'entropy'"),
    (dict(normalization='zscore'), "normalization.*'zscore'"),
    (dict(entropy_weight=-1), 'entropy_weight must be >= 0, got -1'),
    (dict(epochs=0), 'epochs must be >= 1, got 0'),
])
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=f'PolicyGradient.{message}'):
        PolicyGradient(policy(), **kwargs)


def test_an_agent_that_diverges_says_so():
    policy = WeightPolicy((3, ))
    history = History()
    history.add(
        Transition(
            torch.full((4, 3), torch.nan), torch.ones(4, 2, 1),
            torch.ones(4, 2, 2, 1), torch.zeros(4, 1)))
    with pytest.raises(FloatingPointError, match='became nan: lower .*lr'):
        PolicyGradient(policy).update(history)
