"""Pictures of what two models see, on tiny data in the formats of COCO and
Cityscapes: the truth that is read, the models that are opened, messages."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

import compare_predictions as tool
import mmkd_rl
from analysis.teacher_weights import pad_labels
from demo_parts.pictures import draw_detections
from mmkd_rl.utils.configs import load_config
from mmkd_rl.visualization import ClassMap, Instances
from paper_tables import tiny_data

DETECTOR = 'mmkd_rl::downstream/mask-rcnn_r50_fpn_8xb1-2x_coco.py'
SEGMENTOR = ('mmkd_rl::downstream/'
             'pspnet_r34-d8_8xb1-80k_cityscapes-512x1024.py')


def detector():
    """The config of Mask R-CNN on COCO with the demo's small network."""
    cfg = load_config(DETECTOR)
    cfg.model = load_config('mmkd_rl::demo/mask_rcnn_plain.py').model
    cfg.model.backbone.init_cfg = None
    for head in (cfg.model.roi_head.bbox_head, cfg.model.roi_head.mask_head):
        head.num_classes = 80
    return cfg


def segmentor():
    """The config of PSPNet on Cityscapes with the small one's network."""
    cfg = load_config(SEGMENTOR)
    cfg.model = load_config(
        'mmkd_rl::downstream/pspnet_cifar-resnet8_300i_camvid-320x240.py'
    ).model
    cfg.model.decode_head.update(num_classes=19, ignore_index=255)
    return cfg


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Function of a config's kind: a folder with the runs ``a`` and ``b`` of
    untrained models, and the data."""
    made = {}

    def of_kind(kind):
        if kind not in made:
            root = tmp_path_factory.mktemp(kind)
            cfg = detector() if kind == 'coco' else segmentor()
            tiny_data.fit(cfg, tiny_data.write(kind, root / 'data'))
            init_default_scope(cfg.default_scope)
            for seed, name in enumerate('ab'):
                torch.manual_seed(seed)
                model = MODELS.build(cfg.model)
                if (kind, name) == ('coco', 'b'):
                    # It is certain that all objects are of class 3.
                    model.roi_head.bbox_head.fc_cls.bias.data[3] = 10
                save(root / name, cfg, model)
            made[kind] = root
        return made[kind]

    return of_kind


def save(folder, cfg, model):
    """Write the config and the checkpoint of a run to its work directory."""
    folder.mkdir(parents=True)
    cfg.dump(folder / 'dumped.py')
    path = folder / 'iter_2.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    (folder / 'last_checkpoint').write_text(str(path))


@pytest.fixture
def drawn(monkeypatch):
    """Arguments that the tool passes to the drawing function."""
    seen = {}
    real = tool.draw_scenes

    def record(images, columns, classes, colours, *args):
        seen.update(images=images, columns=columns, classes=classes,
                    colours=colours)
        return real(images, columns, classes, colours, *args)

    monkeypatch.setattr(tool, 'draw_scenes', record)
    return seen


def refused(capsys, *arguments, main=tool.main):
    """The one message of a program for wrong arguments."""
    with pytest.raises(SystemExit) as end:
        main([*map(str, arguments)])
    text = capsys.readouterr().err
    assert end.value.code == 2 and 'Traceback' not in text, text
    return ' '.join(text.split())


# ---- pictures ------------------------------------------------------------


def test_detectors(runs, drawn, tmp_path):
    root = runs('coco')
    out = tmp_path / 'picture.png'
    checkpoint = root / 'b' / 'iter_2.pth'
    tool.main([f'a={root / "a"}', f'b={root}/b/dumped.py:{checkpoint}',
               '--score-thr', '0', '-o', str(out)])
    assert cv2.imread(str(out)).std() > 0
    assert [*drawn['columns']] == ['ground truth', 'a', 'b']
    assert len(drawn['classes']) == len(drawn['colours']) == 80
    truth, *others = drawn['columns'].values()
    # As the data are written: the first image has a crowd, the last nothing.
    content = json.loads(
        (root / 'data/annotations/instances_val2017.json').read_text())
    notes = [a for a in content['annotations']
             if a['image_id'] == content['images'][0]['id']]
    names = {c['id']: c['name'] for c in content['categories']}
    assert [drawn['classes'][c] for c in truth[0].labels] == [
        names[a['category_id']] for a in notes]
    assert truth[0].crowds.tolist() == [False, False, False, True]
    for box, mask, note in zip(truth[0].boxes, truth[0].masks, notes):
        left, top, width, height = note['bbox']
        np.testing.assert_allclose(
            box, [left, top, left + width, top + height], atol=1e-3)
        assert abs(mask.sum() - note['area']) <= 1
    assert len(truth[1]) == 0
    for column in others:
        for image, found in zip(drawn['images'], column):
            assert isinstance(found, Instances) and len(found)
            assert found.masks.shape[1:] == image.shape[:2]
            assert found.boxes.max() <= max(image.shape)
    first, second = (column[0] for column in others)
    assert first.scores.max() < .5
    assert set(second.labels[second.scores > .5]) == {3}


def test_scores_below_the_threshold_are_left_out(runs, drawn):
    folder = runs('coco') / 'a'
    tool.compare([f'a={folder}'], images=1, score_thr=0)
    every = drawn['columns']['a'][0].scores
    limit = float(np.median(every))
    tool.compare([f'a={folder}'], images=1, score_thr=limit)
    assert len(drawn['columns']['a'][0]) == (every >= limit).sum() < len(every)


def test_the_demo(runs, drawn, tmp_path):
    for name, folder in (('plain', 'a'), ('mtkd_rl', 'b')):
        (tmp_path / f'mask_rcnn_{name}').symlink_to(runs('coco') / folder)
    draw_detections(tmp_path, tmp_path / 'detections.png', images=1)
    assert cv2.imread(str(tmp_path / 'detections.png')).std() > 0
    assert [*drawn['columns']] == [
        'ground truth', 'detector from the student alone',
        'detector from the MTKD-RL student']
    truth, *others = drawn['columns'].values()
    assert len(truth[0]) == 4 and truth[0].masks.any()
    (first, ), (second, ) = others
    assert len(first) == 0 and set(second.labels) == {3}
    assert second.scores.min() >= .5


def test_segmentors(runs, drawn, tmp_path):
    root = runs('cityscapes')
    out = tmp_path / 'picture.png'
    tool.main([f'a={root / "a"}', f'b={root / "b"}', '-o', str(out),
               '--indices', '1', '0', '1'])
    assert cv2.imread(str(out)).std() > 0
    assert [*drawn['columns']] == ['ground truth', 'a', 'b']
    assert drawn['colours'].tolist()[:2] == [[128, 64, 128], [244, 35, 232]]
    truth, first, second = drawn['columns'].values()
    layout = tiny_data.LAYOUTS['cityscapes']
    for n, image, there in zip((2, 1, 2), drawn['images'], truth):
        file = str(root / 'data' / layout.image.format(split='val', n=n))
        assert np.array_equal(image, cv2.imread(file)[..., ::-1])
        file = str(root / 'data' / layout.label_map.format(split='val', n=n))
        assert np.array_equal(there.labels, cv2.imread(file, -1))
        assert (there.labels[-8:] == 255).all()
    for found in (*first, *second):
        assert isinstance(found, ClassMap)
        assert found.labels.shape == tiny_data.SHAPE
        assert 0 <= found.labels.min() <= found.labels.max() < 19
    assert np.array_equal(first[0].labels, first[2].labels)
    assert not np.array_equal(first[0].labels, second[0].labels)


def test_predictions_are_those_of_the_weights(runs):
    """Constant logits of the last layer put one class everywhere."""
    run = tool.read_run(f'a={runs("cityscapes") / "a"}')
    state = torch.load(run.checkpoint)
    state['state_dict']['decode_head.conv_seg.weight'] *= 0
    state['state_dict']['decode_head.conv_seg.bias'] = torch.eye(19)[7]
    path = runs('cityscapes') / 'seven.pth'
    torch.save(state, path)
    run = tool.Run('seven', run.cfg, str(path))
    image, = tool.predict(run, [str(next(runs('cityscapes').rglob(
        '*leftImg8bit.png')))], False, 0)
    assert (image.labels == 7).all()


def test_the_student_of_a_distillation_is_opened_alone(runs):
    run = tool.read_run(f'a={runs("cityscapes") / "a"}')
    student = run.cfg.model
    run.cfg.model = dict(type='mmkd_rl.MultiTeacherDistiller',
                         student=student, teachers='not built')
    model = tool.open_model(run, False)
    assert 'distillation' not in dict(model.named_children())
    weights = torch.load(run.checkpoint)['state_dict']
    assert all(torch.equal(value.cpu(), weights[name])
               for name, value in model.state_dict().items())


def test_a_run_without_validation_has_its_test_data(runs, tmp_path):
    folder = runs('cityscapes') / 'a'
    cfg = Config.fromfile(folder / 'dumped.py')
    cfg.val_dataloader = None
    cfg.dump(tmp_path / 'a.py')
    run = tool.read_run(f'a={tmp_path}/a.py:{folder}')
    assert run.cfg.val_dataloader == cfg.test_dataloader


def test_weights_of_the_teachers_on_each_image(runs, tmp_path):
    """Below the panels of a distilled model, those that the strategy gives to
    the validation images; none below others."""
    root = runs('cityscapes')
    plain = load_config(str(root / 'a' / 'dumped.py'))
    cfg = mmkd_rl.distill(plain, 'ca_mkd', [
        f'{name}={root}/{name}/dumped.py:{root}/{name}/iter_2.pth'
        for name in 'ab'], terms=[dict(type='KDLoss')])
    init_default_scope(cfg.default_scope)
    torch.manual_seed(2)
    model = MODELS.build(cfg.model)
    save(tmp_path / 'c', cfg, model)
    figure = tool.compare([f'a={root / "a"}', f'c={tmp_path / "c"}'],
                          images=2, weights=True)
    labels = [axis.get_xlabel() for axis in figure.axes]
    assert [axis.get_title() for axis in figure.axes[:4]] == [
        'image', 'ground truth', 'a', 'c']
    assert '\n' not in labels[2]
    # CA-MKD by hand: from the teachers' own cross entropies.
    data = load_config(str(tmp_path / 'c' / 'dumped.py')).val_dataloader
    for row in range(2):
        steps = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
                 *[s for s in data.dataset.pipeline
                   if not s['type'].startswith('Load')]]
        image = DATASETS.build(dict(data.dataset, pipeline=steps))[row]
        given = model.eval().data_preprocessor(pseudo_collate([image]))
        errors = []
        for teacher in model.distillation.teachers:
            scores = teacher.model(given['inputs'], mode='tensor')
            truth = given['data_samples'][0].gt_sem_seg.data
            step = truth.shape[1] // scores.shape[2]
            truth = truth[:, step // 2::step, step // 2::step]
            errors.append(torch.nn.functional.cross_entropy(
                scores, truth.long(), ignore_index=255))
        one = 1 - torch.stack(errors).softmax(0)[0]
        first = labels[4 * row + 3].partition('\n')[2]
        assert first == f'a {one:.0%}, b {1 - one:.0%}'


@pytest.mark.parametrize('strategy, lacking', [
    ('mtkd_rl', 'mmkd_rl_agent'), ('amtml_kd', 'distillation.weighting')])
def test_weights_need_the_strategys_networks(runs, tmp_path, strategy,
                                             lacking):
    root = runs('cityscapes')
    plain = load_config(str(root / 'a' / 'dumped.py'))
    cfg = mmkd_rl.distill(plain, strategy, [
        f'a={root}/a/dumped.py:{root}/a/iter_2.pth'])
    init_default_scope(cfg.default_scope)
    student = load_config(str(root / 'a' / 'dumped.py')).model
    save(tmp_path / 'c', cfg, MODELS.build(student))
    with pytest.raises(ValueError, match=f'c: .*has no .{lacking}'):
        tool.compare([f'c={tmp_path / "c"}'], weights=True)


def test_weights_of_models_without_teachers(runs, capsys):
    folder = runs('cityscapes') / 'a'
    assert "none of ['a'] has teachers" in refused(
        capsys, f'a={folder}', '--weights')


def test_labels_of_padded_images():
    sample = SegDataSample(gt_sem_seg=PixelData(
        data=torch.ones(1, 3, 5, dtype=torch.uint8)))
    pad_labels([sample, DetDataSample()], (4, 8))
    label = sample.gt_sem_seg.data
    assert label.shape == (1, 4, 8)
    assert (label[0, :3, :5] == 1).all() and label.sum() == 15 - 17


# ---- messages ------------------------------------------------------------


def test_models_that_are_not_of_the_form(runs, capsys, tmp_path):
    folder = runs('cityscapes') / 'a'
    assert 'has no "="; write NAME=WORK_DIR' in refused(capsys, folder)
    assert 'has no name' in refused(capsys, f'={folder}')
    assert 'has no folder' in refused(capsys, 'a=')
    assert "a: '/no/such' is not a folder" in refused(capsys, 'a=/no/such')
    assert "config '/no/such.py' is not a file" in refused(
        capsys, f'a=/no/such.py:{folder}')
    assert "checkpoint '/no/such.pth' is not a file" in refused(
        capsys, f'a={folder}/dumped.py:/no/such.pth')
    (tmp_path / 'empty').mkdir()
    assert 'a folder without a checkpoint' in refused(
        capsys, f'a={tmp_path / "empty"}')


def test_a_folder_with_two_configs(runs, capsys, tmp_path):
    (tmp_path / 'last_checkpoint').write_text(
        str(runs('cityscapes') / 'a' / 'iter_2.pth'))
    text = (runs('cityscapes') / 'a' / 'dumped.py').read_text()
    for name in ('x.py', 'y.py'):
        (tmp_path / name).write_text(text)
    assert 'one config (*.py), and has x.py, y.py' in refused(
        capsys, f'a={tmp_path}')
    (tmp_path / 'config.py').write_text(text)  # of tools/reproduce.py
    assert tool.read_run(f'a={tmp_path}').cfg.default_scope == 'mmseg'


def test_two_columns_of_one_name(runs, capsys):
    folder = runs('cityscapes') / 'a'
    assert "names must differ, and ['a']" in refused(
        capsys, f'a={folder}', f'a={folder}')


@pytest.mark.parametrize('arguments, message', [
    (['--indices', '0', '2'], '--indices must be in 0..1, got 2: the '
     'validation data have 2 images'),
    (['--indices', '-1'], '--indices must be in 0..1, got -1'),
    (['--images', '0'], '--images must be at least 1, got 0'),
    (['--score-thr', '40'], '--score-thr must be in 0..1, got 40')])
def test_numbers_out_of_range(runs, capsys, arguments, message):
    folder = runs('cityscapes') / 'a'
    assert message in refused(capsys, f'a={folder}', *arguments)


def test_fewer_images_than_wanted(runs):
    assert tool.choose(2, 4, None) == [0, 1]
    assert tool.choose(9, 4, None) == [0, 1, 2, 3]


def test_a_picture_that_cannot_be_written(runs, capsys):
    folder = runs('cityscapes') / 'a'
    assert "--out '/no/such/a.png'" in refused(
        capsys, f'a={folder}', '--images', 1, '-o', '/no/such/a.png')


def changed(runs, tmp_path, **options):
    """A run that differs from ``a`` in its validation data."""
    folder = runs('cityscapes') / 'a'
    cfg = Config.fromfile(folder / 'dumped.py')
    cfg.val_dataloader.dataset.update(options)
    cfg.dump(tmp_path / 'b.py')
    return f'a={folder}', f'b={tmp_path}/b.py:{folder}'


@pytest.mark.parametrize('options, message', [
    (dict(data_prefix=dict(img_path='leftImg8bit/train',
                           seg_map_path='gtFine/train')), 'the folder is'),
    (dict(metainfo=dict(classes=('road', 'car'), palette=[[0, 0, 0]] * 2)),
     'the list of classes is'),
    (dict(indices=1), 'the selection of images (indices) is None for')])
def test_other_data(runs, capsys, tmp_path, options, message):
    text = refused(capsys, *changed(runs, tmp_path, **options))
    assert 'must have the same validation data' in text and message in text
    assert "for 'a' and" in text and "for 'b'" in text


def test_a_detector_and_a_segmentor(runs, capsys):
    assert ("the class of the data set is CocoDataset for 'a' and "
            "CityscapesDataset for 'b'") in refused(
        capsys, f'a={runs("coco") / "a"}', f'b={runs("cityscapes") / "a"}')


def test_data_at_another_size_are_the_same(runs, tmp_path):
    """Each model has the pipeline that it was trained for."""
    texts = changed(runs, tmp_path, pipeline=[])
    data = tool.read_data([tool.read_run(text) for text in texts])
    assert len(data.dataset) == 2 and not data.detects


def test_a_classifier(runs, capsys, tmp_path):
    cfg = Config(dict(
        default_scope='mmpretrain', model=dict(type='ImageClassifier'),
        val_dataloader=dict(dataset=dict(
            type='CustomDataset', data_root=str(tmp_path), pipeline=[]))))
    cfg.dump(tmp_path / 'a.py')
    folder = runs('cityscapes') / 'a'
    text = refused(capsys, f'a={tmp_path}/a.py:{folder}')
    assert 'a: the validation data are CustomDataset; only detectors' in text


def test_weights_of_another_model(runs, capsys):
    text = refused(capsys, f'a={runs("cityscapes")}/a/dumped.py:'
                   f'{runs("coco")}/a')
    assert 'weights of EncoderDecoder came from the file' in text
    assert 'Is it a checkpoint of this model?' in text


def test_truth_without_label_maps(runs):
    run = tool.read_run(f'a={runs("cityscapes") / "a"}')
    run.cfg.val_dataloader.dataset.data_prefix.pop('seg_map_path')
    init_default_scope('mmseg')
    dataset = DATASETS.build(run.cfg.val_dataloader.dataset)
    with pytest.raises(ValueError, match='has no label map'):
        tool.read_truth(tool.Data(dataset, False, (), None), 0,
                        np.zeros((1, 1, 3)), False)
