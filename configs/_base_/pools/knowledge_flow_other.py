"""Teachers of another architecture than the student, Sec. 7.5."""
other_cifar100 = dict(
    name='cifar100',
    config='mmkd_rl::knowledge_flow/ablations/wrn28-4_300e_cifar100.py',
    checkpoint='work_dirs/wrn28-4_300e_cifar100/epoch_300.pth')
other_svhn = dict(
    name='svhn',
    config='mmkd_rl::knowledge_flow/ablations/wrn28-4_40e_svhn.py',
    checkpoint='work_dirs/wrn28-4_40e_svhn/epoch_40.pth')
