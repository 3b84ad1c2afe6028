"""DeepLabV3 of Table 5: MMSegmentation's, with ResNet-34 at output stride 8.

``type='ResNet'``: MMPretrain's ResNet-34 has a plain stem (one 7x7
convolution), MMSegmentation's ``ResNetV1c`` three 3x3 ones. The widths are
those of MMSegmentation's own configs of ``r18-d8``.
"""
_base_ = 'mmseg::_base_/models/deeplabv3_r50-d8.py'

model = dict(
    pretrained=None,
    backbone=dict(type='ResNet', depth=34),
    decode_head=dict(in_channels=512, channels=128),
    auxiliary_head=dict(in_channels=256, channels=64))
