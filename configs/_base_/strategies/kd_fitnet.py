"""What all strategies share: KD on logits, FitNet on features, hooks.

alpha = 1, beta = 5, T = 4 as in MTKD-RL (AAAI 2025). Every strategy starts
from this file, so that two of them differ in the weights they give and in
nothing else.
"""
logit_loss = dict(
    type='mmkd_rl.KDLoss', temperature=4.0, loss_weight=1.0)
feature_loss = dict(type='mmkd_rl.FitNetLoss', loss_weight=5.0)
custom_hooks = [
    dict(type='mmkd_rl.TeacherCheckHook'),
    dict(type='mmkd_rl.WeightVisualizationHook', interval=100),
    dict(type='mmkd_rl.StudentExportHook'),
]
