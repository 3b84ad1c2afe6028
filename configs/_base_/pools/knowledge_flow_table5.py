"""The teachers of Knowledge Flow's Table 5, for EMNIST's letters."""
teachers = [
    dict(
        name='letters',
        config='mmkd_rl::knowledge_flow/mlp-256_40e_emnist-letters.py',
        checkpoint='work_dirs/mlp-256_40e_emnist-letters/epoch_40.pth'),
    dict(
        name='half-letters',
        config='mmkd_rl::knowledge_flow/mlp-256_40e_emnist-half-letters.py',
        checkpoint='work_dirs/mlp-256_40e_emnist-half-letters/epoch_40.pth'),
    dict(
        name='digits',
        config='mmkd_rl::knowledge_flow/mlp-256_40e_emnist-digits.py',
        checkpoint='work_dirs/mlp-256_40e_emnist-digits/epoch_40.pth'),
]
