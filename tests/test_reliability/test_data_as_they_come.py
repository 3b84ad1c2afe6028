"""Training data with the faults that real data have: a message that names the
file, or a run that works."""

import cv2
import numpy as np
import pytest
import torch
from mmpretrain.structures import DataSample

from mmkd_rl.engine.data_checks import (
    check_classes,
    check_labels,
)
from mmkd_rl.engine.hooks import DataCheckHook
from mmkd_rl.options import ConfigError
from mmkd_rl.registry import MODELS
from mmkd_rl.teachers.normalization import InputAdapter, Normalization
from mmkd_rl.teachers.pipelines import pipeline_normalization
from mmkd_rl.utils.patches import patch_mmengine
from tests.toy import CLASSES, classifier, distiller, toy_runner, toy_teachers

LOAD = dict(type='mmpretrain.LoadImageFromFile')
PACK = dict(type='mmpretrain.PackInputs')
NORMALIZE = dict(type='mmcv.Normalize', mean=[100., 110., 120.],
                 std=[50., 60., 70.], to_rgb=True)
# MMEngine raises a TypeError in place of one in a hook.
REFUSAL = (ConfigError, TypeError)
PREPROCESSOR = dict(type='mmpretrain.ClsDataPreprocessor', mean=[100.] * 3,
                    std=[64.] * 3, to_rgb=True)


@pytest.fixture(autouse=True)
def patched():
    patch_mmengine()


@pytest.fixture
def folder(tmp_path):
    """Sixteen images of 4x4 pixels of random colours."""
    rng = np.random.default_rng(0)
    for i in range(16):
        path = tmp_path / 'images' / str(i % CLASSES) / f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 256, (4, 4, 3), np.uint8))
    return tmp_path / 'images'


def run(tmp_path, folder, pipeline=(LOAD, PACK), batch_size=8, loader=None,
        preprocessor=PREPROCESSOR, dataset=None, hooks=(), teachers=None,
        **model):
    """A run of two epochs that has been trained."""
    runner = toy_runner(
        tmp_path / 'run',
        distiller(teachers or toy_teachers(tmp_path), **model),
        data_preprocessor=preprocessor, hooks=hooks,
        train_dataloader={**dict(
            batch_size=batch_size, num_workers=0,
            collate_fn=dict(type='default_collate'),
            sampler=dict(type='DefaultSampler', shuffle=True),
            dataset=dict(type='mmpretrain.CustomDataset',
                         data_prefix=str(folder), pipeline=list(pipeline),
                         **(dataset or {}))), **(loader or {})})
    runner.register_hook(DataCheckHook())
    runner.train()
    return runner


def test_a_run_without_faults(tmp_path, folder):
    assert run(tmp_path, folder).iter == 4


@pytest.mark.parametrize('content, workers', [
    (b'', 0), (b'<html>404</html>', 0), (b'', 1),
    (b'\x89PNG\r\n\x1a\n' + b'\0' * 40, 0)])
def test_a_bad_image_file_is_named(content, workers, tmp_path, folder):
    (folder / '3' / 'bad.png').write_bytes(content)
    with pytest.raises(REFUSAL, match=r'3/bad\.png'):
        run(tmp_path, folder, loader=dict(num_workers=workers))


def test_an_image_that_vanished_is_named(tmp_path, folder):
    (tmp_path / 'a.txt').write_text('0/0.png 0\n3/gone.png 1\n' * 4)
    with pytest.raises(REFUSAL, match=r'3/gone\.png.*FileNotFound'):
        run(tmp_path, folder, dataset=dict(ann_file=str(tmp_path / 'a.txt')))


@pytest.mark.parametrize('label, text', [(CLASSES, 'the label 5'),
                                         (-1, 'the label -1')])
def test_a_label_beyond_the_classes(label, text, tmp_path, folder):
    (tmp_path / 'a.txt').write_text('0/0.png 0\n'
                                    f'1/1.png {label}\n' * 4)
    with pytest.raises(REFUSAL, match=f"1/1.png' has {text}.*5 classes"):
        run(tmp_path, folder, dataset=dict(ann_file=str(tmp_path / 'a.txt')))


def test_images_without_labels(tmp_path, folder):
    with pytest.raises(REFUSAL, match=r"\d\.png' has no label"):
        run(tmp_path, folder, dataset=dict(with_label=False))


def test_an_epoch_without_a_batch(tmp_path, folder):
    with pytest.raises(REFUSAL, match='16 images are fewer than a batch '
                                          'of 32'):
        run(tmp_path, folder, batch_size=32, loader=dict(drop_last=True))
    assert not list((tmp_path / 'run').glob('*.pth'))


@pytest.mark.parametrize('loop', [dict(by_epoch=True, max_epochs=0),
                                  dict(by_epoch=False, max_iters=0)])
def test_a_training_of_no_length(loop, tmp_path):
    runner = toy_runner(tmp_path, classifier(), train_cfg=loop)
    runner.register_hook(DataCheckHook())
    with pytest.raises(REFUSAL, match='0, which leaves nothing to train'):
        runner.train()


def test_a_last_batch_of_one_image(tmp_path, folder):
    assert run(tmp_path, folder, batch_size=5).iter == 8


@pytest.mark.parametrize('strategy', [
    'AverageWeighting', 'EBKD', 'CAMKD', 'AEKD', 'MTKDRL'])
def test_labels_in_the_form_of_vectors(strategy, tmp_path, folder):
    weighting = dict(type=strategy)
    hooks = [dict(type='AgentAlternationHook')] if strategy == 'MTKDRL' \
        else []
    if strategy == 'CAMKD':
        weighting['feature'] = 'teacher'
    student = classifier(8, hidden=6)
    student['head']['loss']['use_soft'] = True
    runner = run(tmp_path, folder, weighting=weighting, hooks=hooks,
                 student=student,
                 preprocessor=dict(PREPROCESSOR, to_onehot=True,
                                   num_classes=CLASSES))
    assert runner.iter == 4


def test_vectors_for_a_loss_of_indices(tmp_path, folder):
    with pytest.raises(REFUSAL, match='use_soft=True'):
        run(tmp_path, folder, preprocessor=dict(
            PREPROCESSOR, to_onehot=True, num_classes=CLASSES))


def test_one_score_for_each_image_is_refused(tmp_path):
    with pytest.raises(ValueError, match='two classes'):
        MODELS.build(distiller(
            [dict(name='t', config=classifier(8, classes=1),
                  checkpoint='untrained')],
            student=classifier(8, hidden=6, classes=1)))


def test_a_class_that_is_missing_in_the_validation(tmp_path, folder):
    """Folders are numbered in their order, so that all after a missing one
    have other numbers."""
    import shutil
    other = tmp_path / 'val'
    shutil.copytree(folder, other)

    def train(name):
        loader = dict(
            batch_size=8, num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'))
        train_set, val_set = (
            dict(type='mmpretrain.CustomDataset', data_prefix=str(place),
                 pipeline=[LOAD, PACK]) for place in (folder, other))
        runner = toy_runner(
            tmp_path / name, classifier(), epochs=1,
            data_preprocessor=PREPROCESSOR,
            train_dataloader=dict(loader, dataset=train_set),
            val_dataloader=dict(loader, dataset=val_set), val_cfg=dict(),
            val_evaluator=dict(type='mmpretrain.Accuracy'))
        runner.register_hook(DataCheckHook())
        runner.train()

    train('a')
    shutil.rmtree(other / '1')
    with pytest.raises(REFUSAL, match="val_dataloader.dataset.*'2' has "
                                      'another index'):
        train('b')


@pytest.mark.parametrize('own, other, wrong', [
    (['a', 'b', 'c'], ['a', 'b', 'c'], False),
    (['a', 'b', 'c'], ['a', 'c'], True),
    (['a', 'b', 'c'], ['b', 'a', 'c'], True),
    # None in common: another language, perhaps.
    (['a', 'b'], ['x', 'y'], False),
    (['a', 'b', 'c'], ['a', 'b'], False),
    # ImageNet has two cranes.
    (['crane', 'b', 'crane'], ['crane', 'b', 'crane'], False),
    (None, ['a'], False), (['a'], None, False)])
def test_names_of_classes(own, other, wrong):
    if wrong:
        with pytest.raises(ConfigError, match='another index'):
            check_classes(own, other, 'key', 'x')
    else:
        check_classes(own, other, 'key', 'x')


# ---- normalisation -------------------------------------------------------


def seen_by_teachers(runner):
    """What the first teacher gets of the first batch."""
    seen = []
    teacher = runner.model.distillation.teachers[0]
    handle = teacher.model.register_forward_pre_hook(
        lambda m, args: seen.append(args[0]))
    torch.manual_seed(0)
    batch = next(iter(runner.train_loop.dataloader))
    runner.model(**runner.model.data_preprocessor(batch, True), mode='loss')
    handle.remove()
    return seen[0]


def test_images_that_are_normalised_in_the_pipeline(tmp_path, folder):
    """The teacher gets the same pixels as from the preprocessor."""
    teachers = toy_teachers(tmp_path, 1)
    teachers[0]['normalization'] = dict(mean=[1., 2., 3.], std=[4., 5., 6.],
                                        to_rgb=True)
    own = dict(type='mmpretrain.ClsDataPreprocessor')
    images = [
        seen_by_teachers(run(tmp_path, folder, pipeline, preprocessor=p,
                             teachers=teachers,
                             loader=dict(sampler=dict(
                                 type='DefaultSampler', shuffle=False))))
        for pipeline, p in (
            ([LOAD, PACK], PREPROCESSOR),
            ([LOAD, NORMALIZE, PACK], own),
            ([LOAD, NORMALIZE, PACK], PREPROCESSOR),
            ([LOAD, dict(type='mmpretrain.NumpyToPIL', to_rgb=True),
              dict(type='mmpretrain.torchvision/ToTensor'),
              dict(type='mmpretrain.torchvision/Normalize', mean=[.4, .5, .6],
                   std=[.2, .3, .4]), PACK], own),
            ([LOAD, dict(type='mmpretrain.Albumentations', transforms=[
                dict(type='Normalize', mean=[.4, .5, .6],
                     std=[.2, .3, .4])]), PACK], own))
        if pipeline[1]['type'] != 'mmpretrain.Albumentations' or _has_albu()]
    for other in images[1:]:
        torch.testing.assert_close(images[0], other, atol=1e-3, rtol=1e-4)


def _has_albu():
    try:
        import albumentations  # noqa: F401
    except ImportError:
        return False
    return True


def test_two_normalisations_in_a_row():
    a = Normalization((100., 110., 120.), (50., 60., 70.), True)
    b = Normalization((1., 2., 3.), (4., 5., 6.), True)
    x = torch.rand(1, 3, 2, 2) * 255

    def normalised(n, x):
        x = x.flip(1) if n.to_rgb else x
        return (x - torch.tensor(n.mean).view(1, 3, 1, 1)) / torch.tensor(
            n.std).view(1, 3, 1, 1)

    torch.testing.assert_close(normalised(a.then(b), x),
                               normalised(b, normalised(a, x)))


def test_a_pipeline_without_normalisation(tmp_path, folder):
    runner = run(tmp_path, folder)
    assert pipeline_normalization(runner.train_loop.dataloader.dataset) is None


@pytest.mark.parametrize('scale, kind, warns', [
    (1., np.float32, False), (1 / 255, np.float32, True),
    (257., np.float32, True), (-1., np.float32, True),
    (257, np.uint16, True), (1, np.uint8, False)])
def test_the_range_of_images(scale, kind, warns, tmp_path, folder):
    from mmcv.transforms import BaseTransform

    class Scaled(BaseTransform):
        def transform(self, results):
            results['img'] = (results['img'].astype(np.float32) *
                              scale).astype(kind)
            return results

    warned = []
    from mmengine.logging import MMLogger
    original = MMLogger.warning
    try:
        MMLogger.warning = lambda self, text, *a, **k: warned.append(text)
        run(tmp_path, folder, [LOAD, Scaled(), PACK])
    finally:
        MMLogger.warning = original
    assert any('not from 0 to 255' in str(w) for w in warned) == warns


def test_grey_images_for_a_teacher_of_colour_images(tmp_path, folder):
    """The teacher sees the grey value in each channel, in its own
    normalisation."""
    grey = Normalization((33., ), (60., ), False)
    colour = Normalization((1., 2., 3.), (4., 5., 6.), True)
    pixel = 200.
    given = torch.full((1, 1, 2, 2), (pixel - 33) / 60)
    got = InputAdapter(grey, colour, channels=3)(given)
    want = torch.tensor([(pixel - m) / s
                         for m, s in zip(colour.mean, colour.std)])
    torch.testing.assert_close(got[0, :, 0, 0], want)
    assert InputAdapter(None, None, channels=3)(given).shape[1] == 3


def test_segmentors_labels():
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample
    sample = SegDataSample(metainfo=dict(img_path='a.png'))
    sample.gt_sem_seg = PixelData(data=torch.tensor([[[0, 1, 255, 4]]]))
    check_labels([sample], 5, 255)
    with pytest.raises(REFUSAL, match="'a.png' has the label 4.*4 class"):
        check_labels([sample], 4, 255)
    with pytest.raises(REFUSAL, match='the label 255'):
        check_labels([sample], 5, None)


def test_probabilities_are_labels():
    check_labels([DataSample().set_gt_score(torch.rand(7))], 3)
