_base_ = ['mask_rcnn_plain.py']

model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint='work_dirs/demo/student_mtkd_rl/backbone.pth')))
