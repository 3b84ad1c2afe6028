"""The teacher of the experiments on the embedded digits."""
teachers = [
    dict(
        name='mlp-1200',
        config='mmkd_rl::knowledge_flow/mlp-1200_12e_digits.py',
        checkpoint='work_dirs/mlp-1200_12e_digits/epoch_12.pth'),
]
