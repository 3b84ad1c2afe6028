r"""DeepLabV3 on COCO-Stuff-164k from a trained ResNet-34: Table 5.

    bash tools/dist_train.sh \
    mmkd_rl::downstream/deeplabv3_r34-d8_8xb1-80k_coco-stuff164k-512x512.py \
    8 --backbone-from work_dirs/RUN

RUN is the training of `mmkd_rl::imagenet/baseline/resnet34_100e_imagenet.py`,
alone or with `--distill mtkd_rl --pool imagenet_table2`.

Data: `data/coco_stuff164k`, see configs/downstream/README.md. Expected time:
not measured; the paper, on 8 A800, gives none.
Paper: MTKD-RL (AAAI 2025), Table 5, mIoU in %: baseline 29.97, MTKD-RL 31.82.
Not yet reproduced.
Differences: none known. Assumptions: the learning rate is the 0.1 that the
paper prints, ten times MMSegmentation's (`--cfg-options
optim_wrapper.optimizer.lr=0.01`). The paper describes the training on
Cityscapes alone; that on COCO-Stuff-164k is assumed to be the same. The paper
prints neither crops (512x512, as in MMSegmentation and in the paper that it
cites) nor weight decay, dilation and widths of the heads (MMSegmentation's).
"""
_base_ = [
    '../_base_/downstream_deeplabv3_r34-d8.py',
    'mmseg::_base_/datasets/coco-stuff164k.py',
    '../_base_/downstream_80k.py',
    'mmseg::_base_/default_runtime.py',
]

data_preprocessor = dict(size=(512, 512))
model = dict(
    data_preprocessor=data_preprocessor,
    decode_head=dict(num_classes=171),
    auxiliary_head=dict(num_classes=171))
train_dataloader = dict(batch_size=1)
