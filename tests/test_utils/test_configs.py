"""Configs of installed packages, by name."""

import pytest

from mmkd_rl.utils.configs import load_config


def test_folders_with_signs_in_their_names():
    """MMEngine's own function refuses them."""
    pytest.importorskip('mmdet')
    cfg = load_config('mmdet::gn+ws/faster-rcnn_r50_fpn_gn-ws-all_1x_coco.py')
    assert cfg.model.backbone.norm_cfg.type == 'GN'


def test_a_name_that_is_nearly_right():
    pytest.importorskip('mmdet')
    with pytest.raises(FileNotFoundError, match='is no config of the package; '
                       'did you mean mmdet::retinanet/retinanet_r18_fpn_1x_c'):
        load_config('mmdet::retinanet/retinanet_r18_fpn_1x_coc.py')


def test_a_base_that_is_missing_is_named(tmp_path):
    path = tmp_path / 'x.py'
    path.write_text("_base_ = './no_such_base.py'\n")
    with pytest.raises(FileNotFoundError, match='no_such_base.py'):
        load_config(path)
