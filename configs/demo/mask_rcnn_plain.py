_base_ = [
    '../_base_/demo_mask_rcnn.py', '../_base_/demo_scenes_det.py',
    '../_base_/demo_runtime_iters.py', '../_base_/demo_schedule_250i.py'
]

model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/demo/student_alone/backbone.pth',
            prefix='backbone.')))
