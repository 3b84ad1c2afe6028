"""DPG, DDPG, PPO and BCE compared with slow references of their formulas."""

import numpy as np
import pytest
import torch
from scipy.stats import dirichlet

from mmkd_rl.records import Transition
from mmkd_rl.weighting.mtkd_rl import History, WeightPolicy
from mmkd_rl.weighting.mtkd_rl.learner import AgentLearner
from mmkd_rl.weighting.mtkd_rl.replay import Replay
from mmkd_rl.weighting.mtkd_rl.updaters import (
    DDPG,
    DPG,
    PPO,
    BCEUpdater,
    PolicyGradient,
)
from mmkd_rl.weighting.mtkd_rl.updaters.ppo import dirichlet_log_prob
from tests.test_weighting.mtkd_rl.test_policy_gradient import (
    history,
    policy,
    transition,
)

ALL = [PolicyGradient, DPG, DDPG, PPO]
EXPLORING = [DPG, DDPG, PPO]


def acted(updater, reward, size=16, seed=0, count=3):
    """A transition with an action of the agent."""
    batch = transition(reward, size, seed=seed)
    with torch.no_grad():
        action = updater.explore(updater.policy(batch.state))
    return Transition(batch.state, action, batch.sources, batch.reward)


@pytest.mark.parametrize('kind', EXPLORING)
@pytest.mark.parametrize('count', [1, 3])
def test_what_it_tries_is_on_the_simplex_and_around_the_policy(kind, count):
    updater = kind(policy(count))
    log_w = updater.policy(torch.randn(1, 3 * count)).expand(4000, -1, -1)
    with torch.no_grad():
        tried = updater.explore(log_w)
    torch.testing.assert_close(tried.sum(-1), torch.ones(4000, 2))
    assert (tried >= 0).all()
    if count > 1:
        assert tried.std(0).min() > 0.05
        order = log_w[0].argmax(-1)
        assert torch.equal(tried.mean(0).argmax(-1), order)
    assert torch.equal(
        PolicyGradient(policy(count)).explore(log_w), log_w.exp())


@pytest.mark.parametrize('kind', ALL)
def test_the_better_teacher_gains(kind):
    torch.manual_seed(0)
    updater = kind(policy(), entropy_weight=0.)
    before = updater.policy(transition([0.] * 3).state).exp().mean((0, 1))
    for i in range(4):
        scalars = updater.update(
            history(*(acted(updater, [1., 0., -1.], seed=8 * i + j)
                      for j in range(8))))
        assert all(np.isfinite(v) for v in scalars.values())
    change = updater.policy(
        transition([0.] * 3).state).exp().mean((0, 1)) - before
    assert change[0] > 0.02 and change[2] < -0.02


@pytest.mark.parametrize('kind', ALL)
def test_heads_learn_from_rewards_of_their_own(kind):
    torch.manual_seed(0)
    updater = kind(policy(2), entropy_weight=0.)
    reward = torch.tensor([[1., -1.], [-1., 1.]]).expand(16, -1, -1)
    state = transition([0., 0.]).state
    before = updater.policy(state).exp().mean(0)[:, 0]
    for i in range(4):
        batches = []
        for j in range(8):
            plain = acted(updater, [0., 0.], seed=8 * i + j)
            batches.append(
                Transition(plain.state, plain.action, plain.sources, reward))
        updater.update(history(*batches))
    change = updater.policy(state).exp().mean(0)[:, 0] - before
    assert change[0] > 0.02 and change[1] < -0.02


@pytest.mark.parametrize('kind', [*ALL, BCEUpdater])
@pytest.mark.parametrize('count, size', [(1, 6), (3, 1), (1, 1)])
def test_one_teacher_and_one_sample(kind, count, size):
    net = WeightPolicy([3] * count)
    updater = kind(net)
    for seed in range(2):
        scalars = updater.update(
            history(acted(updater, [0.5] * count, size, seed)))
    assert all(np.isfinite(v) for v in scalars.values())
    assert all(p.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize('kind', [*ALL, BCEUpdater])
@pytest.mark.parametrize('agent', [
    dict(per_teacher=True), dict(learnable_balance=True),
    dict(balance=(0, 1, 1)), dict(standardize=False)])
def test_every_updater_fits_every_policy(kind, agent):
    net = WeightPolicy([3] * 3, **agent)
    updater = kind(net)
    scalars = updater.update(history(acted(updater, [1., 0., .5])))
    assert all(np.isfinite(v) for v in scalars.values())
    if net.balance is not None:
        assert not torch.equal(net.balance, torch.zeros(2, 3))


@pytest.mark.parametrize('kind', [DDPG, DPG, PPO])
def test_goes_on_from_a_file_as_if_never_stopped(tmp_path, kind):
    def learner():
        net = policy(standardize=True, learnable_balance=True)
        return AgentLearner(net, kind(net), History())

    def turn(agent, seed):
        for j in range(3):
            agent.history.add(
                acted(agent.updater, [1., 0., -1.], seed=seed + j))
        return agent.update()

    one = learner()
    for seed in range(3):
        turn(one, 10 * seed)
    one.history.add(transition([0., 1., 0.], seed=7))
    torch.save(one.state_dict(), tmp_path / 'agent.pth')
    two = learner()
    two.load_state_dict(torch.load(tmp_path / 'agent.pth', weights_only=True))
    assert turn(one, 90) == turn(two, 90)
    for net in ('policy', 'extra'):
        a, b = (x.policy if net == 'policy' else x.updater.extra
                for x in (one, two))
        for p, q in zip(a.state_dict().values(), b.state_dict().values()):
            assert torch.equal(p, q)


@pytest.mark.parametrize('kind, other', [
    (DPG, PolicyGradient), (DDPG, DPG), (PPO, DPG)])
def test_another_updaters_state_is_refused(kind, other):
    with pytest.raises(ValueError, match='weighting.updater is not the '
                       f"config's {kind.__name__}"):
        kind(policy()).load_state_dict(other(policy()).state_dict())


def test_dpg_is_the_gradient_of_the_critics_opinion():
    """Compared with finite differences: of the mean Q(s, pi(s)) for the
    policy's parameters, and of the squared error for the critic's."""
    net = policy().double()
    updater = DPG(net, normalization='none', entropy_weight=0.)
    critic = updater.critic.double()
    for p in critic.parameters():
        torch.nn.init.normal_(p, std=0.3)
    batch = acted(updater, torch.randn(8, 3), 8)
    batch = Transition(*(getattr(batch, f).double()
                         for f in ('state', 'action', 'sources', 'reward')))

    def q(i, head, w):
        hidden = (critic.trunk.weight @ batch.state[i] +
                  critic.trunk.bias).clamp_min(0)
        out = critic.head.weight @ hidden + critic.head.bias
        out = out[head * 4:head * 4 + 4]
        return float(out[3] + out[:3] @ w)

    @torch.no_grad()
    def opinion():
        w = net(batch.state).exp()
        return np.mean([q(i, h, w[i, h]) for i in range(8) for h in (0, 1)])

    @torch.no_grad()
    def error():
        total = 0.
        for i in range(8):
            for h in (0, 1):
                earned = sum(float(batch.action[i, h, m] * batch.reward[i, m])
                             for m in range(3))
                total += (q(i, h, batch.action[i, h]) - earned)**2
        return total / 16

    loss, logged = updater.loss(batch)
    assert float(logged['value']) == pytest.approx(opinion())
    assert float(logged['critic_loss']) == pytest.approx(error())
    loss.backward()
    for module, value, sign, every in ((net, opinion, -1, 9),
                                       (critic, error, 1, 211)):
        for p in module.parameters():
            flat, grad = p.detach().view(-1), p.grad.view(-1)
            for j in range(0, len(flat), every):
                x = float(flat[j])
                flat[j] = x + 1e-5
                up = value()
                flat[j] = x - 1e-5
                slope = (up - value()) / 2e-5
                flat[j] = x
                assert float(grad[j]) == pytest.approx(
                    sign * slope, rel=1e-4, abs=1e-7)


def test_the_compatible_critic_finds_the_reward_exactly():
    """Its form includes sum_m w_m R_m, for any actions that were tried."""
    torch.manual_seed(0)
    updater = DPG(policy(), optimizer=dict(type='Adam', lr=0.),
                  critic_lr=0.02, normalization='none', epochs=60)
    updater.update(history(*(acted(updater, [.7, -.2, .1], seed=s)
                             for s in range(10))))
    batch = acted(updater, [.7, -.2, .1], seed=99)
    value = updater.critic(batch.state, batch.action)
    earned = (batch.action * batch.reward[:, None]).sum(-1)
    assert (value - earned).abs().mean() < 0.2 * earned.std()


def test_ddpgs_targets_follow_and_bootstrap():
    torch.manual_seed(0)
    updater = DDPG(policy(), tau=0.3, discount=0.6, normalization='none',
                   optimizer=dict(type='Adam', lr=0.01))
    old = [p.clone() for p in updater.target_critic.parameters()]
    first, second = (acted(updater, torch.randn(8, 3), 8, s) for s in (0, 1))
    earned = (first.reward[:, None] * first.action).sum(-1)
    updater._next = second
    with torch.no_grad():
        w = updater.target_policy(second.state).exp()
        expected = earned + 0.6 * updater.target_critic(second.state, w)
    torch.testing.assert_close(updater._target(first, earned), expected)
    loss, _ = updater.loss((first, second))
    loss.backward()
    assert all(p.grad is None for p in updater.target_critic.parameters())
    updater._step()
    updater.after_step()
    for before, now, online in zip(old, updater.target_critic.parameters(),
                                   updater.critic.parameters()):
        torch.testing.assert_close(now, .7 * before + .3 * online)
    # another size of the next batch, as at the end of an epoch
    updater.loss((first, acted(updater, torch.randn(3, 3), 3)))


def test_replay_keeps_the_newest_within_its_bytes():
    one = transition([0.] * 3)
    size = sum(getattr(one, f).numel() * 4
               for f in ('state', 'action', 'sources', 'reward'))
    replay = Replay(3 * size)
    for i in range(10):
        replay.add(transition([float(i)] * 3))
        assert replay.nbytes <= 3 * size
    assert [float(t.reward[0, 0]) for t in replay] == [7., 8., 9.]
    generator = torch.Generator().manual_seed(0)
    drawn = [tuple(float(t.reward[0, 0]) for t in replay.draw(generator))
             for _ in range(50)]
    assert set(drawn) == {(7., 8.), (8., 9.), (9., 9.)}
    with pytest.raises(ValueError, match='replay_bytes: 10 is too small'):
        Replay(10).add(one)


@pytest.mark.parametrize('kind', [*ALL, BCEUpdater])
def test_the_global_generator_is_left_alone(kind):
    """Random numbers of the student do not depend on the agent."""
    updater = kind(policy())
    before = torch.get_rng_state()
    for seed in range(2):
        updater.update(history(*(acted(updater, [1., 0., .5], seed=seed + j)
                                 for j in range(3))))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize('kind', EXPLORING)
def test_exploration_is_the_updaters_own(kind):
    """The same seed gives the same numbers, whatever others draw."""
    updater = kind(policy())
    log_w = updater.policy(torch.randn(4, 9)).detach()
    updater.random.seed(7)
    first, second = updater.explore(log_w), updater.explore(log_w)
    assert not torch.equal(first, second)
    updater.random.seed(7)
    torch.manual_seed(99)
    assert torch.equal(updater.explore(log_w), first)


def test_dirichlet_against_scipy():
    g = torch.Generator().manual_seed(0)
    w = torch.randn(5, 2, 4, generator=g).double().softmax(-1)
    alpha = 1 + 9 * torch.rand(5, 2, 4, generator=g).double()
    got = dirichlet_log_prob(alpha, w)
    for i in range(5):
        for head in range(2):
            assert float(got[i, head]) == pytest.approx(
                dirichlet.logpdf(w[i, head].numpy(), alpha[i, head].numpy()))
    assert (dirichlet_log_prob(alpha[..., :1], torch.ones(5, 2, 1)) == 0).all()


def test_ppo_draws_from_its_dirichlet():
    updater = PPO(policy(), concentration=5.)
    log_w = torch.tensor([.7, .2, .1]).log().expand(20000, 2, 3)
    torch.manual_seed(0)
    with torch.no_grad():
        drawn = updater.explore(log_w)
    alpha = np.array([4.5, 2., 1.5])
    np.testing.assert_allclose(drawn.mean((0, 1)), dirichlet.mean(alpha),
                               atol=5e-3)
    np.testing.assert_allclose(drawn.flatten(0, 1).var(0),
                               dirichlet.var(alpha), rtol=0.05)


def test_ppos_loss_in_loops():
    torch.manual_seed(0)
    updater = PPO(policy(), normalization='none', entropy_weight=0.3,
                  clip=0.1, concentration=3., value_weight=0.7)
    batch = acted(updater, torch.randn(6, 3), 6)
    updater.prepare([batch])
    with torch.no_grad():  # the policy changes after it has drawn the action
        old = updater.policy(batch.state).exp().double().numpy()
        for head in updater.policy.heads:
            head.weight.add_(0.5 * torch.randn_like(head.weight))
        updater.extra.head.weight.normal_(std=0.1)
        new = updater.policy(batch.state).exp().double().numpy()
        value = updater.extra(batch.state).double().numpy()
    w = batch.action.double().numpy()
    w = w / w.sum(-1, keepdims=True)
    reward = batch.reward.double().numpy()
    error = np.array([[sum(w[i, h] * reward[i]) - value[i, h]
                       for h in (0, 1)] for i in range(6)])
    gain = entropy = 0.
    clipped = 0
    for h in (0, 1):
        scale = np.sqrt(np.mean(error[:, h]**2))
        for i in range(6):
            ratio = np.exp(
                dirichlet.logpdf(w[i, h], 1 + 3 * new[i, h]) -
                dirichlet.logpdf(w[i, h], 1 + 3 * old[i, h]))
            a = error[i, h] / scale
            gain += min(ratio * a, np.clip(ratio, .9, 1.1) * a) / 12
            entropy -= sum(new[i, h] * np.log(new[i, h])) / 12
            clipped += abs(ratio - 1) > 0.1
    loss, logged = updater.loss(next(iter(updater.minibatches([batch]))))
    assert 0 < clipped < 12
    assert float(logged['clipped_share']) == pytest.approx(clipped / 12)
    assert float(loss.detach()) == pytest.approx(
        .7 * np.mean(error**2) - gain - .3 * entropy, rel=1e-4)


def test_bce_is_the_weighted_cross_entropy_against_ones():
    net = policy()
    batch = transition(torch.rand(8, 1).expand(-1, 3))
    loss, _ = BCEUpdater(net).loss(batch)
    w = net(batch.state).exp()
    reward = batch.reward[:, None].expand(-1, 2, -1)
    torch.testing.assert_close(loss, torch.nn.functional.binary_cross_entropy(
        w, torch.ones_like(w), weight=reward))


def test_bce_ends_at_uniform_weights_whatever_teachers_are_worth():
    """A documented limitation of the published loss."""
    net = policy(4)
    for head in net.heads:
        torch.nn.init.normal_(head.bias, std=2.)
    state = torch.randn(1, 12).expand(8, -1)
    reward = torch.rand(8, 1).expand(-1, 4)
    updater = BCEUpdater(net, dict(type='Adam', lr=0.02), epochs=400)
    assert (updater.policy(state).exp() - .25).abs().max() > 0.3
    updater.update(history(transition(reward, state=state)))
    torch.testing.assert_close(
        net(state).exp(), torch.full((8, 2, 4), .25), atol=0.02, rtol=0)


def test_bce_stays_finite_where_a_weight_is_zero():
    net = policy(standardize=False)
    torch.nn.init.constant_(net.heads[0].bias, 0.)
    with torch.no_grad():
        net.heads[0].bias[0] = 500.
    batch = transition(torch.ones(8, 3))
    scalars = BCEUpdater(net, epochs=20).update(history(batch))
    assert all(np.isfinite(v) for v in scalars.values())
    assert all(p.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize('kind, kwargs, message', [
    (DPG, dict(critic_lr=0), 'critic_lr must be > 0, got 0'),
    (DPG, dict(critic_hidden=0), 'critic_hidden must be >= 1'),
    (DPG, dict(noise=-1), 'noise must be >= 0, got -1'),
    (DDPG, dict(discount=1), r'discount must be in \[0, 1\), got 1'),
    (DDPG, dict(tau=0), r'tau must be in \(0, 1\], got 0'),
    (DDPG, dict(replay_bytes=0), 'replay_bytes must be >= 1, got 0'),
    (PPO, dict(clip=0), 'clip must be > 0'),
    (PPO, dict(concentration=0), 'concentration must be > 0'),
    (PPO, dict(value_lr=0), 'value_lr must be > 0'),
    (PPO, dict(value_weight=0), 'value_weight must be > 0'),
    (PPO, dict(value_hidden=0), 'value_hidden must be >= 1'),
    (BCEUpdater, dict(epochs=0), 'epochs must be >= 1'),
])
def test_bad_arguments(kind, kwargs, message):
    with pytest.raises(ValueError, match=f'{kind.__name__}.{message}'):
        kind(policy(), **kwargs)
