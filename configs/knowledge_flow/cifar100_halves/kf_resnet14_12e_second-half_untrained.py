r"""Knowledge Flow on classes 50 to 99 from two untrained teachers.

    python tools/train.py \
    configs/knowledge_flow/cifar100_halves/kf_resnet14_12e_second-half_untrained.py

Not an experiment of the paper: its Sec. 4.2 in minutes on a CPU, see
docs/results/knowledge_flow.md.
Run, see there. Expected time: 2 to 3 min of one CPU core.
Differences: task, networks and schedule are our choice; as Sec. 7.4.1 of the
paper, which has games.
"""
_base_ = './kf_resnet14_12e_second-half_from-both.py'
model = dict(
    backbone=dict(teachers=[
        dict(
            name='classes',
            config={{_base_.teacher_classes.config}},
            checkpoint='untrained'),
        dict(
            name='rotations',
            config={{_base_.teacher_rotations.config}},
            checkpoint='untrained'),
    ]))
