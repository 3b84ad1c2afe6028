r"""Knowledge Flow: RetinaNet R-50 from a Mask R-CNN.

    bash tools/dist_train.sh \
    configs/knowledge_flow/dense/kf_retinanet_r50_fpn_1x_coco.py 8

Not an experiment of the paper, which has classifiers and games: any config of
MMDetection becomes one like this.
Teacher: Mask R-CNN R-101, 40.8 box AP on COCO; its weights are public.
Not yet run. Expected time: not measured.
Differences: all of it.
"""
_base_ = [
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    '../../_base_/knowledge_flow.py',
]
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmkd_rl.KnowledgeFlowBackbone',
        student={{_base_.model.backbone}},
        teachers=[
            dict(
                name='mask-rcnn',
                config='mmdet::mask_rcnn/'
                'mask-rcnn_r101_fpn_2x_coco.py',
                checkpoint='https://download.openmmlab.com/mmdetection/v2.0/'
                'mask_rcnn/mask_rcnn_r101_fpn_2x_coco/'
                'mask_rcnn_r101_fpn_2x_coco_bbox_mAP-0.408__segm_mAP-0.366_'
                '20200505_071027-14b391c7.pth')
        ]))
