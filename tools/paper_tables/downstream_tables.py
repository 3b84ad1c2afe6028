"""Tables of detectors and segmentors that start from a trained student.

Tables 4 and 5 of MTKD-RL (AAAI 2025), and two transfers of minutes that this
project adds. Numbers are box AP or mIoU in %, one run each in the paper.
"""

from __future__ import annotations

from typing import Any

from paper_tables.cells import BOX_AP, MIOU, Cell, Metric, Table

_SCALES = ('paper', 'tiny')
_WIDTHS = [64, 128, 256, 512]
_METHODS = {'baseline': 'Baseline', 'mtkd-rl': 'MTKD-RL'}
_START = ('A row trains its backbone on {data} first, alone or with MTKD-RL, '
          'and then the {what} from it.')


def _imagenet(depth: int, method: str) -> Cell:
    """Training of a ResNet on ImageNet, from which Tables 4 and 5 start."""
    student = f'resnet{depth}'
    alone = method == 'baseline'
    return Cell(student, method, _METHODS[method],
                f'imagenet/baseline/{student}_100e_imagenet.py',
                strategy='' if alone else 'mtkd_rl',
                pool='' if alone else 'imagenet_table2')


def _rows(student: str, config: str, depth: int, numbers: tuple[float, float],
          changes: dict[str, Any] | None = None) -> list[Cell]:
    """Baseline and MTKD-RL for a detector or segmentor.

    Args:
        student: Name of the model.
        config: File under ``configs/downstream``.
        depth: Depth of its ResNet.
        numbers: Numbers of baseline and MTKD-RL in the paper.
        changes: See :class:`Cell`.
    """
    return [Cell(student, method, title, f'downstream/{config}.py', mean,
                 changes=changes or {}, start=_imagenet(depth, method))
            for (method, title), mean in zip(
                _METHODS.items(), numbers, strict=True)]


def _table4() -> Table:
    detectors = {'mask-rcnn': 'Mask R-CNN', 'cascade-rcnn': 'Cascade R-CNN',
                 'retinanet': 'RetinaNet', 'faster-rcnn': 'Faster R-CNN'}
    numbers = {
        (18, 'mask-rcnn'): (34.1, 35.1),
        (18, 'cascade-rcnn'): (36.5, 37.7),
        (34, 'retinanet'): (31.6, 32.7),
        (34, 'faster-rcnn'): (33.5, 34.7),
        (50, 'mask-rcnn'): (37.6, 39.0),
        (50, 'cascade-rcnn'): (39.6, 40.8),
        (50, 'retinanet'): (35.2, 36.9),
        (50, 'faster-rcnn'): (37.0, 38.5),
    }
    cells, students = list[Cell](), dict[str, str]()
    for (depth, detector), pair in numbers.items():
        student = f'{detector}-r{depth}'
        students[student] = f'{detectors[detector]}, ResNet-{depth}'
        # The configs have ResNet-50; the two smaller ones have other widths.
        changes = {} if depth == 50 else {
            'model.backbone.depth': depth, 'model.neck.in_channels': _WIDTHS}
        cells += _rows(student, f'{detector}_r50_fpn_8xb1-2x_coco', depth,
                       pair, changes)
    return Table('table4', 'detectors on COCO',
                 'MTKD-RL (AAAI 2025), Table 4', 'COCO 2017', tuple(cells),
                 students, next(iter(students)),
                 _START.format(data='ImageNet', what='detector'),
                 _SCALES, as_is=True, metric=BOX_AP)


def _table5() -> Table:
    segmentors = {'deeplabv3': 'DeepLabV3', 'pspnet': 'PSPNet'}
    data = {'cityscapes-512x1024': 'Cityscapes', 'ade20k-512x512': 'ADE20K',
            'coco-stuff164k-512x512': 'COCO-Stuff-164k'}
    numbers = {
        'deeplabv3': ((76.34, 77.42), (36.08, 37.07), (29.97, 31.82)),
        'pspnet': ((74.60, 75.89), (36.84, 37.78), (31.25, 32.39)),
    }
    cells, students = list[Cell](), dict[str, str]()
    for segmentor, pairs in numbers.items():
        for (name, title), pair in zip(data.items(), pairs, strict=True):
            student = f'{segmentor}-{name.partition("-512")[0]}'
            students[student] = f'{segmentors[segmentor]}, {title}'
            cells += _rows(
                student, f'{segmentor}_r34-d8_8xb1-80k_{name}', 34, pair)
    return Table('table5', 'segmentors of ResNet-34',
                 'MTKD-RL (AAAI 2025), Table 5', ', '.join(data.values()),
                 tuple(cells), students, next(iter(students)),
                 _START.format(data='ImageNet', what='segmentor'),
                 _SCALES, as_is=True, metric=MIOU)


# ------------------------------------------------------------ short transfers

_BACKBONE = 'cifar100/baseline/resnet8_1xb128-2e-fp32_cifar100.py'
_POOL = 'cifar100_transfer'
#: Epochs of ResNet-8 that take the processor time of both teachers' training
#: and of the student's with MTKD-RL.
_LONGER = 15
# With a turn of an epoch the agent would be trained once.
_TURN = {'custom_hooks.AgentAlternationHook.warmup': 78,
         'custom_hooks.AgentAlternationHook.interval': 78,
         'custom_hooks.AgentAlternationHook.by_epoch': False}


def _backbones() -> dict[str, tuple[str, Cell | None]]:
    """Title and training of each backbone of the short transfers."""
    def cell(method: str, **kwargs: Any) -> Cell:
        return Cell('resnet8', method, method, _BACKBONE, **kwargs)

    return {
        'none': ('(a) random weights', None),
        'baseline': ('(b) trained alone', cell('baseline')),
        'aver': ('(c) AVER (KD+FitNet)',
                 cell('aver', strategy='aver', pool=_POOL)),
        'mtkd-rl': ('(d) MTKD-RL', cell('mtkd-rl', strategy='mtkd_rl',
                                        pool=_POOL, changes=_TURN)),
        'longer': (f'(e) trained alone, {_LONGER} epochs',
                   cell('longer', changes={'train_cfg.max_epochs': _LONGER,
                                     'train_cfg.val_interval': _LONGER})),
    }


def _transfer(data: str, title: str, config: str, metric: Metric) -> Table:
    """A transfer of minutes.

    Args:
        data: Name of the data set.
        title: See :class:`Table`.
        config: File under ``configs/downstream``.
        metric: See :class:`Table`.
    """
    student = f'resnet8-{data}'
    cells = tuple(Cell(student, method, name, f'downstream/{config}.py',
                       start=start)
                  for method, (name, start) in _backbones().items())
    return Table(
        f'transfer-{data}', title, 'After MTKD-RL (AAAI 2025), Tables 4 and 5',
        data, cells, {student: title}, student,
        'The backbone, ResNet-8, is trained on CIFAR-100 for 2 epochs (b to '
        'd), its teachers ResNet-14 and ResNet-20 for 3 epochs. (e) is '
        'trained for as long as both teachers and (d) together.',
        ('short', ), as_is=True, metric=metric)


DOWNSTREAM_TABLES = (
    _table4(), _table5(),
    _transfer('bccd', 'small RetinaNet on blood cells',
              'retinanet_cifar-resnet8_8e_bccd-320x240', BOX_AP),
    _transfer('camvid', 'small PSPNet on road scenes',
              'pspnet_cifar-resnet8_300i_camvid-320x240', MIOU))
