"""Knowledge Flow in runs of a real segmentor and a real detector."""

import pytest
import torch
from torch.utils.data import Dataset

from mmkd_rl.flow import flow_of
from mmkd_rl.registry import DATASETS, MODELS
from tests.test_flow.parts import HOOK, scalars
from tests.toy import toy_runner


@DATASETS.register_module(force=True)
class ToyScenes(Dataset):
    """Data set of four images with a mask or a box each."""

    metainfo = dict(classes=('a', 'b', 'c'))

    def __init__(self, kind):
        self.kind = kind

    def __len__(self):
        return 4

    def __getitem__(self, index):
        g = torch.Generator().manual_seed(index)
        image = torch.randn(3, 32, 32, generator=g)
        meta = dict(img_shape=(32, 32), ori_shape=(32, 32), pad_shape=(32, 32),
                    batch_input_shape=(32, 32), scale_factor=(1., 1.))
        if self.kind == 'mask':
            from mmengine.structures import PixelData
            from mmseg.structures import SegDataSample
            sample = SegDataSample(metainfo=meta)
            sample.gt_sem_seg = PixelData(
                data=torch.randint(3, (1, 32, 32), generator=g))
        else:
            from mmdet.structures import DetDataSample
            from mmengine.structures import InstanceData
            sample = DetDataSample(metainfo=meta)
            sample.gt_instances = InstanceData(
                bboxes=torch.tensor([[2., 3., 20., 25.]]),
                labels=torch.tensor([index % 3]))
        return dict(inputs=image, data_samples=sample)


TINY = dict(type='mmpretrain.ResNet', depth=18, base_channels=4,
            stem_channels=4, out_indices=(0, 1, 2, 3))


def scene_runner(folder, model, kind, epochs=2, **kwargs):
    return toy_runner(
        folder, model, epochs=epochs, log_level='INFO',
        train_dataloader=dict(
            batch_size=2, num_workers=0,
            dataset=dict(type='mmkd_rl.ToyScenes', kind=kind),
            collate_fn=dict(type='pseudo_collate'),
            sampler=dict(type='DefaultSampler', shuffle=False)),
        **kwargs)


def flowing(student=TINY):
    return dict(
        type='mmkd_rl.KnowledgeFlowBackbone', student=dict(student),
        teachers=[dict(name='t', config=dict(TINY), checkpoint='untrained')])


def test_segmentor(tmp_path):
    pytest.importorskip('mmseg')
    head = dict(type='mmseg.FCNHead', in_channels=32, in_index=3, channels=8,
                num_convs=1, num_classes=3, norm_cfg=dict(type='BN'),
                loss_decode=dict(type='mmseg.CrossEntropyLoss'))
    model = dict(
        type='mmseg.EncoderDecoder', backbone=flowing(), decode_head=head,
        auxiliary_head=dict(head, in_channels=16, in_index=2),
        train_cfg=dict(), test_cfg=dict(mode='whole'),
        data_preprocessor=dict(type='mmseg.SegDataPreProcessor',
                               size=(32, 32)))
    runner = scene_runner(tmp_path, model, 'mask', hooks=[HOOK],
                          default_scope='mmseg')
    runner.train()
    line = scalars(tmp_path)[-1]
    losses = [v for n, v in line.items() if 'loss' in n and n != 'loss']
    assert {'decode.loss_ce', 'aux.loss_ce', 'loss_dependency',
            'loss_kl'} <= set(line)
    assert line['loss'] == pytest.approx(sum(losses), rel=1e-5)
    # Means of the last two iterations: the KL term was on in the first.
    assert scalars(tmp_path)[0]['loss_kl'] > 0
    assert flow_of(runner.model).independent


def test_detector(tmp_path):
    """A detector has no class logits of an image, so there is no KL term; the
    log says so."""
    pytest.importorskip('mmdet')
    model = dict(
        type='mmdet.RetinaNet', backbone=flowing(),
        neck=dict(type='mmdet.FPN', in_channels=[4, 8, 16, 32],
                  out_channels=8, num_outs=5),
        bbox_head=dict(
            type='mmdet.RetinaHead', num_classes=3, in_channels=8,
            stacked_convs=1, feat_channels=8,
            anchor_generator=dict(
                type='mmdet.AnchorGenerator', octave_base_scale=4,
                scales_per_octave=1, ratios=[1.],
                strides=[4, 8, 16, 32, 64]),
            bbox_coder=dict(type='mmdet.DeltaXYWHBBoxCoder'),
            loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True),
            loss_bbox=dict(type='mmdet.L1Loss')),
        train_cfg=dict(
            assigner=dict(type='mmdet.MaxIoUAssigner', pos_iou_thr=.5,
                          neg_iou_thr=.4, ignore_iof_thr=-1),
            sampler=dict(type='mmdet.PseudoSampler'), allowed_border=-1,
            pos_weight=-1),
        test_cfg=dict(),
        data_preprocessor=dict(type='mmdet.DetDataPreprocessor'))
    runner = scene_runner(
        tmp_path, model, 'box',
        default_scope='mmdet',
        hooks=[HOOK, dict(type='mmkd_rl.StudentExportHook', to='mmdet')])
    runner.train()
    line = scalars(tmp_path)[-1]
    assert {'loss_cls', 'loss_bbox', 'loss_dependency'} <= set(line)
    assert 'loss_kl' not in line
    assert line['loss'] == pytest.approx(
        line['loss_cls'] + line['loss_bbox'] + line['loss_dependency'],
        rel=1e-5)
    text = next(tmp_path.glob('*/*.log')).read_text()
    assert 'RetinaNet has no class logits' in text
    plain = MODELS.build(TINY)
    weights = torch.load(tmp_path / 'student.pth')['state_dict']
    plain.load_state_dict({n.removeprefix('backbone.'): t
                           for n, t in weights.items()})
    images = torch.randn(2, 3, 32, 32)
    wrapped = runner.model.backbone
    plain.eval(), wrapped.eval()
    for a, b in zip(plain(images), wrapped(images)):
        assert torch.equal(a, b)
