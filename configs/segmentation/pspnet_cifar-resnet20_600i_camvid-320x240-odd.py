"""PSPNet with ResNet-20 that knows five of CamVid's 11 classes: an expert.

    python tools/train.py \
    configs/segmentation/pspnet_cifar-resnet20_600i_camvid-320x240-odd.py \
    --backbone-from work_dirs/RUN_OF_RESNET20

Odd classes: other pixels have no label. As a teacher it takes
class_map=[-1, 0, -1, 1, -1, 2, -1, 3, -1, 4, -1].
Results: docs/results/segmentation.md.
"""
_base_ = './pspnet_cifar-resnet20_600i_camvid-320x240-even.py'
# New label of each old one; 255 is no class.
mapping = [255, 0, 255, 1, 255, 2, 255, 3, 255, 4, 255, 255]
metainfo = dict(
    _delete_=True,
    classes=['building', 'road', 'tree', 'fence', 'pedestrian'])
train_pipeline = _base_.train_dataloader.dataset.pipeline
val_pipeline = _base_.val_dataloader.dataset.pipeline
train_pipeline[2].mapping = val_pipeline[3].mapping = mapping
model = dict(decode_head=dict(num_classes=5))
train_dataloader = dict(
    dataset=dict(metainfo=metainfo, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(metainfo=metainfo, pipeline=val_pipeline))
test_dataloader = val_dataloader
