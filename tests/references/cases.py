"""Cases of the reference losses: every strategy, every loss, Knowledge Flow,
and both methods together."""

from __future__ import annotations

from copy import deepcopy

_AGENT = dict(
    type='AgentAlternationHook', warmup=4, interval=4, by_epoch=False)
_META = dict(type='MetaWeightingHook', interval=4)
_FLOW = dict(
    type='KnowledgeFlowHook', interval=1, withdraw_from=5, independent_at=15)


def _strategy(*hooks: dict, **weighting) -> dict:
    return dict(model=dict(weighting=weighting), hooks=list(hooks))


def _agent(**options) -> dict:
    return _strategy(_AGENT, type='MTKDRL', **options)


def _official() -> dict:
    """Options in configs/_base_/strategies/mtkd_rl_official.py."""
    case = _agent(
        agent=dict(standardize=False, learnable_balance=False),
        reward=dict(type='BatchReward'),
        updater=dict(type='BCEUpdater'),
        scale='paper')
    case['model']['projector'] = dict(act=True)
    return case


def _loss(hooks: tuple = (), **model) -> dict:
    return dict(model=model, hooks=list(hooks))


_MAPS = dict(class_maps=[None, [0, 1, 2, -1, -1], [-1, 1, 0, 2, 3]])

CASES: dict[str, dict] = {
    # strategies, with KD and FitNet
    'aver': _strategy(type='AverageWeighting'),
    'eb_kd': _strategy(type='EBKD'),
    'ae_kd': _strategy(type='AEKD'),
    'ae_kd_own': _strategy(type='AEKD', feature='own', normalize=True),
    'amtml_kd': _strategy(type='AMTMLKD'),
    'ca_mkd': _strategy(type='CAMKD'),
    'ca_mkd_official': _strategy(type='CAMKD', detach_feature=False),
    'mmkd': _strategy(_META, type='MMKD', meta_batch_size=6),
    'mmkd_ce_step': _strategy(
        _META, type='MMKD', meta_batch_size=6, ce_step=True, inner_lr=.02),
    'mtkd_rl': _agent(),
    'mtkd_rl_paper-rule': _agent(
        reward=dict(type='DistanceReward'),
        reward_time='after',
        updater=dict(
            normalization='minmax', objective='log', entropy_weight=0.),
        agent=dict(learnable_balance=False)),
    'mtkd_rl_official': _official(),
    'mtkd_rl_per-teacher': _agent(
        agent=dict(per_teacher=True), state=['ce', 'similarity']),
    # rewards
    'mtkd_rl_own-feature': _agent(reward=dict(feature='own')),
    'mtkd_rl_held-out': _agent(reward=dict(type='HeldOutReward')),
    'mtkd_rl_likelihood': _agent(reward=dict(type='LikelihoodReward')),
    'mtkd_rl_margin': _agent(
        reward=dict(type='LikelihoodReward', kind='margin')),
    'mtkd_rl_improvement': _agent(
        reward=dict(type='ImprovementReward'), reward_time='after'),
    # updaters
    'mtkd_rl_dpg': _agent(updater=dict(type='DPG')),
    'mtkd_rl_ddpg': _agent(updater=dict(type='DDPG')),
    'mtkd_rl_ppo': _agent(updater=dict(type='PPO')),
    # losses
    'kd_alone': _loss(feature_loss=None),
    'fitnet_alone': _loss(logit_loss=None),
    'dkd': _loss(logit_loss=dict(type='DKDLoss')),
    'dist': _loss(logit_loss=dict(type='DISTLoss')),
    'cwd': _loss(feature_loss=dict(type='CWDLoss')),
    'nd_running': _loss(feature_loss=dict(type='NDLoss', means='running')),
    'nd_dataset': _loss(
        (dict(type='ClassMeanHook'), ), feature_loss=dict(type='NDLoss')),
    'dist_nd_mtkd_rl': dict(
        hooks=[_AGENT],
        model=dict(
            weighting=dict(type='MTKDRL'),
            logit_loss=dict(type='DISTLoss'),
            feature_loss=dict(type='NDLoss', means='running'))),
    # teachers of other classes
    'class_map_aver': dict(**_MAPS, **_strategy(type='AverageWeighting')),
    'class_map_ca_mkd': dict(**_MAPS, **_strategy(type='CAMKD')),
    'class_map_amtml_kd': dict(**_MAPS, **_strategy(type='AMTMLKD')),
    'class_map_ae_kd': dict(**_MAPS, **_strategy(type='AEKD')),
    'class_map_mtkd_rl': dict(**_MAPS, **_agent()),
    # Knowledge Flow, and both methods
    'flow': dict(flow='own', hooks=[_FLOW]),
    'flow_paper': dict(flow='own', hooks=[dict(_FLOW, handover_weight=0)]),
    'flow_average': dict(
        flow='own',
        hooks=[dict(_FLOW, old='average', kl_interval=2, threshold=.2)]),
    'both': dict(flow='distiller', hooks=[_AGENT, _FLOW],
                 model=dict(weighting=dict(type='MTKDRL'))),
    'both_after': dict(
        flow='distiller',
        hooks=[_AGENT, dict(_FLOW, handover_weight=0)],
        model=dict(weighting=dict(
            type='MTKDRL', reward=dict(type='DistanceReward'),
            reward_time='after'))),
    'both_mmkd': dict(flow='distiller', hooks=[_META, _FLOW],
                      model=dict(weighting=dict(
                          type='MMKD', meta_batch_size=6))),
}
CASES = {name: deepcopy(case) for name, case in CASES.items()}
