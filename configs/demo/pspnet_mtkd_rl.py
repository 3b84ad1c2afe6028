"""A small PSPNet on scenes of digits, from the MTKD-RL student.

Differs from pspnet_plain.py in the checkpoint of the backbone only.

Command: python tools/train.py configs/demo/pspnet_mtkd_rl.py \\
             --work-dir work_dirs/demo/pspnet_mtkd_rl
Before:  python -m mmkd_rl.datasets.scenes data/digit_scenes
         D=work_dirs/demo
         python tools/export_student.py $D/student_mtkd_rl/epoch_3.pth \\
             $D/export_mtkd_rl/backbone.pth --to mmdet
Result:  mIoU 55.0 % (seed 0).
Time:    82 s on one of two cores, the other busy as well.
"""

_base_ = ['pspnet_plain.py']

model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint='work_dirs/demo/export_mtkd_rl/backbone.pth')))
