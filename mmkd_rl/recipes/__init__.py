"""Turns a config that trains a student alone into one that distils teachers.

>>> from mmkd_rl import distill
>>> cfg = distill(
...     'mmpretrain::resnet/resnet18_8xb32_in1k.py', 'mtkd_rl',
...     ['r50=mmpretrain::resnet/resnet50_8xb32_in1k.py:untrained'])
>>> cfg.model.type, cfg.model.student.backbone.depth
('mmkd_rl.MultiTeacherDistiller', 18)

``tools/train.py CONFIG --distill mtkd_rl --teacher ...`` calls the same
function. The result is an ordinary config: ``Runner.from_cfg(cfg).train()``
runs it, ``cfg.dump(path)`` writes it to a file.
"""

from .arguments import add_arguments, read_config
from .backbone import with_backbone
from .making import distill
from .reading import parse_teacher, parse_term, strategy_names

__all__ = [
    'add_arguments', 'distill', 'parse_teacher', 'parse_term', 'read_config',
    'strategy_names', 'with_backbone'
]
