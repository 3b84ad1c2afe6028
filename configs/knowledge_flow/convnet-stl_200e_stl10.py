r"""Chen's STL-10 network on its 5,000 labelled images: alone.

    python tools/train.py \
    configs/knowledge_flow/convnet-stl_200e_stl10.py

Paper: Knowledge Flow (ICLR 2019), Table 6, Baseline: 25.50 % error (74.50 %
top-1).
Not yet reproduced. Expected time: hours on one GPU (not measured).
Differences: the network is Chen's for STL-10 (2017); the schedule is our
choice.
"""
_base_ = [
    '../_base_/models/chen_stl10.py',
    '../_base_/datasets/torchvision_stl10.py',
    '../_base_/schedules/convnet.py',
    '../_base_/default_runtime.py',
]
param_scheduler = dict(milestones=[100, 150])
train_cfg = dict(max_epochs=200)
