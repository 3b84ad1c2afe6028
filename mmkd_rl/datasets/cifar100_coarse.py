"""The 20 superclasses of CIFAR-100, each of five classes.

Krizhevsky, Learning multiple layers of features from tiny images, 2009.
Superclasses and classes both have the numbers that the data set's own files
give them: their places in alphabetical order.
"""

from __future__ import annotations

CIFAR100_SUPERCLASSES: dict[str, tuple[str, ...]] = {
    'aquatic_mammals': ('beaver', 'dolphin', 'otter', 'seal', 'whale'),
    'fish': ('aquarium_fish', 'flatfish', 'ray', 'shark', 'trout'),
    'flowers': ('orchid', 'poppy', 'rose', 'sunflower', 'tulip'),
    'food_containers': ('bottle', 'bowl', 'can', 'cup', 'plate'),
    'fruit_and_vegetables':
    ('apple', 'mushroom', 'orange', 'pear', 'sweet_pepper'),
    'household_electrical_devices':
    ('clock', 'keyboard', 'lamp', 'telephone', 'television'),
    'household_furniture': ('bed', 'chair', 'couch', 'table', 'wardrobe'),
    'insects': ('bee', 'beetle', 'butterfly', 'caterpillar', 'cockroach'),
    'large_carnivores': ('bear', 'leopard', 'lion', 'tiger', 'wolf'),
    'large_man-made_outdoor_things':
    ('bridge', 'castle', 'house', 'road', 'skyscraper'),
    'large_natural_outdoor_scenes':
    ('cloud', 'forest', 'mountain', 'plain', 'sea'),
    'large_omnivores_and_herbivores':
    ('camel', 'cattle', 'chimpanzee', 'elephant', 'kangaroo'),
    'medium_mammals': ('fox', 'porcupine', 'possum', 'raccoon', 'skunk'),
    'non-insect_invertebrates':
    ('crab', 'lobster', 'snail', 'spider', 'worm'),
    'people': ('baby', 'boy', 'girl', 'man', 'woman'),
    'reptiles': ('crocodile', 'dinosaur', 'lizard', 'snake', 'turtle'),
    'small_mammals': ('hamster', 'mouse', 'rabbit', 'shrew', 'squirrel'),
    'trees':
    ('maple_tree', 'oak_tree', 'palm_tree', 'pine_tree', 'willow_tree'),
    'vehicles_1':
    ('bicycle', 'bus', 'motorcycle', 'pickup_truck', 'train'),
    'vehicles_2':
    ('lawn_mower', 'rocket', 'streetcar', 'tank', 'tractor'),
}

_SUPERCLASS_OF = {
    fine: number
    for number, fines in enumerate(CIFAR100_SUPERCLASSES.values())
    for fine in fines
}

#: The superclass (0 to 19) of each class (0 to 99).
CIFAR100_COARSE: tuple[int, ...] = tuple(
    _SUPERCLASS_OF[fine] for fine in sorted(_SUPERCLASS_OF))
