r"""Knowledge Flow: Mask R-CNN R-50, taught by a segmentor.

    bash tools/dist_train.sh \
    configs/knowledge_flow/dense/kf_mask-rcnn_r50_fpn_1x_coco.py 8

Not an experiment of the paper, which has classifiers and games: any config of
MMDetection becomes one like this.
Teacher: PSPNet R-101 on Cityscapes; its weights are public.
Not yet run. Expected time: not measured.
Differences: all of it.
"""
_base_ = [
    'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    '../../_base_/knowledge_flow.py',
]
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmkd_rl.KnowledgeFlowBackbone',
        student={{_base_.model.backbone}},
        teachers=[
            dict(
                name='pspnet',
                config='mmseg::pspnet/'
                'pspnet_r101-d8_4xb2-80k_cityscapes-512x1024.py',
                checkpoint='https://mmassets.onedl.ai/mmsegmentation/v0.5/'
                'pspnet/pspnet_r101-d8_512x1024_80k_cityscapes/'
                'pspnet_r101-d8_512x1024_80k_cityscapes_'
                '20200606_112211-e1e1100f.pth')
        ]))
