"""The demo's three teachers, as a distiller wants them.

Paths are relative to the repository, where `make demo` runs.
"""

teachers = [
    dict(
        name='resnet20',
        config='configs/demo/teacher_resnet20.py',
        checkpoint='work_dirs/demo/teacher_resnet20/epoch_4.pth'),
    dict(
        name='wrn10_2',
        config='configs/demo/teacher_wrn10_2.py',
        checkpoint='work_dirs/demo/teacher_wrn10_2/epoch_4.pth'),
    dict(
        name='densenet',
        config='configs/demo/teacher_densenet.py',
        checkpoint='work_dirs/demo/teacher_densenet/epoch_4.pth'),
]
