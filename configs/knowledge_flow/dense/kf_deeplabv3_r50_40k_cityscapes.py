r"""Knowledge Flow: DeepLabV3 R-50 from a PSPNet R-101.

    bash tools/dist_train.sh \
    configs/knowledge_flow/dense/kf_deeplabv3_r50_40k_cityscapes.py 8

Not an experiment of the paper, which has classifiers and games: any config of
MMSegmentation becomes one like this.
Teacher: PSPNet R-101 on Cityscapes; its weights are public.
Not yet run. Expected time: not measured.
Differences: all of it.
"""
_base_ = [
    'mmseg::deeplabv3/deeplabv3_r50-d8_4xb2-40k_cityscapes-512x1024.py',
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
