"""A small Mask R-CNN on scenes of digits, from the student trained alone.

mask_rcnn_mtkd_rl.py differs in the checkpoint of the backbone only.

Command: python tools/train.py configs/demo/mask_rcnn_plain.py \\
             --work-dir work_dirs/demo/mask_rcnn_plain
Before:  python -m mmkd_rl.datasets.scenes data/digit_scenes
         D=work_dirs/demo
         python tools/export_student.py $D/student_alone/epoch_3.pth \\
             $D/export_alone/backbone.pth --to mmdet
Result:  box AP 58.7 %, mask AP 51.8 % (seed 0).
Time:    136 s on one of two cores, the other busy as well.
"""

_base_ = [
    '../_base_/demo_mask_rcnn.py', '../_base_/demo_scenes_det.py',
    '../_base_/demo_runtime_iters.py', '../_base_/demo_schedule_250i.py'
]

model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/demo/export_alone/backbone.pth',
            prefix='backbone.')))
