r"""MTKD-RL with the agent's rule as the paper has it.

    python tools/train.py \
    configs/cifar100/mtkd_rl/mtkd-rl_resnet8_6e_cifar100-fifth_paper-rule.py

A run of minutes on a CPU, see docs/results/cifar100.md.
Paper: MTKD-RL (AAAI 2025), Eqs. 6 to 8 and Algorithm 2: the reward is taken
after the student's update, which costs another forward pass of it.
Not yet run. Expected time: 4 min of one CPU core.
Differences: student, teachers, a fifth of the images and 6 epochs are our own
choice; the mean in Eq. 8 is of the rescaled rewards; the history is bounded.
"""
_base_ = [
    '../baseline/resnet8_1xb64-6e_cifar100-fifth.py',
    '../../_base_/pools/cifar100_short.py',
    '../../_base_/strategies/mtkd_rl_paper-rule.py',
]
model = dict(
    _delete_=True,
    type='MultiTeacherDistiller',
    student={{_base_.model}},
    teachers={{_base_.teachers}},
    logit_loss={{_base_.logit_loss}},
    feature_loss={{_base_.feature_loss}},
    weighting={{_base_.weighting}},
    probe_size=32)
custom_hooks = [
    dict(type='TeacherCheckHook'),
    # A quarter of an epoch: whole ones would leave the agent five turns.
    dict(
        type='AgentAlternationHook', warmup=39, interval=39, by_epoch=False),
    dict(type='WeightVisualizationHook', interval=39),
    dict(type='StudentExportHook'),
]
