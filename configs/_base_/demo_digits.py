"""Data of the demo's classifiers: rendered digits, 32x32, 10 classes.

1,198 scans to train on and 599 others to test on; 8 renderings of each for
training, 4 for testing. They are rendered when the run starts (some 5 s) and
stay in memory: loading costs nothing, worker processes would only cost time.
"""

# What MMPretrain takes for every ImageClassifier of the config.
data_preprocessor = dict(
    type='mmpretrain.ClsDataPreprocessor',
    num_classes=10,
    mean=[100.0, 100.0, 100.0],
    std=[64.0, 64.0, 64.0],
    to_rgb=True)

train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='mmkd_rl.DigitsDataset',
        split='train',
        renderings=8,
        pipeline=[dict(type='mmpretrain.PackInputs')]))
val_dataloader = dict(
    batch_size=200,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmkd_rl.DigitsDataset',
        split='test',
        renderings=4,
        pipeline=[dict(type='mmpretrain.PackInputs')]))
test_dataloader = val_dataloader

val_evaluator = dict(type='mmpretrain.Accuracy', topk=(1, ))
test_evaluator = val_evaluator
