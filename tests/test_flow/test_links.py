import itertools

import pytest
import torch
from torch import nn

from mmkd_rl.flow.links import MAX_LAYERS, MAX_USES, resolve_links
from mmkd_rl.flow.trace import Trace

from .parts import CIFAR, build, teacher


class Stages(nn.Module):
    """Backbone with a convolution and a ReLU a stage, with or without halving
    the resolution."""

    def __init__(self, count, width=2, halve=True):
        super().__init__()
        for i in range(count):
            stride = 2 if halve and i else 1
            self.add_module(f's{i}', nn.Sequential(
                nn.Conv2d(width if i else 3, width, 3, stride, 1), nn.ReLU()))

    def forward(self, x):
        for child in self.children():
            x = child(x)
        return x


@torch.no_grad()
def trace(count, halve=True):
    network = Stages(count, halve=halve)
    return Trace(network, lambda: network(torch.zeros(2, 3, 64, 64)),
                 'student')


def paired(student, *teachers):
    """Stages of the student and of each teacher for each link."""
    links = resolve_links('auto', student, {
        f't{i}': t for i, t in enumerate(teachers)}, 'input')
    return [(int(link.student.layer[1]),
             {m: int(p.layer[1]) for m, p in link.teachers})
            for link in links]


@pytest.mark.parametrize('own, other',
                         itertools.product((1, 2, 3, 4, 5, 7), repeat=2))
@pytest.mark.parametrize('halve', [True, False])
def test_auto_is_monotone_and_uses_a_teacher_s_layer_twice_at_most(
        own, other, halve):
    links = paired(trace(own, halve), trace(other, halve))
    students = [j for j, _ in links]
    layers = [t[0] for _, t in links]
    assert students == sorted(set(students)) and 0 < len(links) <= MAX_LAYERS
    assert layers == sorted(layers)
    assert max(map(layers.count, layers)) <= MAX_USES
    # The last layers are paired, and others by their relative depth.
    assert (students[-1], layers[-1]) == (own - 1, other - 1)
    for j, k in zip(students, layers):
        assert abs((j + 1) / own - (k + 1) / other) <= .5


def test_auto_pairs_equals():
    assert paired(trace(4), trace(4), trace(4)) == [
        (j, {0: j, 1: j}) for j in range(4)]


def test_auto_gives_all_teachers_to_the_last_layer():
    links = paired(trace(4), trace(1), trace(4))
    assert links == [(0, {1: 0}), (1, {1: 1}), (2, {0: 0, 1: 2}),
                     (3, {0: 0, 1: 3})]


def test_auto_mixes_before_the_activation():
    link, *_ = resolve_links('auto', trace(3), {'a': trace(3)}, 'input')
    assert (link.student.path, link.student.source) == ('s0.1', 'input')
    link, *_ = resolve_links('auto', trace(3), {'a': trace(3)}, 'output')
    assert link.student.source == 'output'


def test_auto_finds_no_layer_in_a_network_without_weights():
    empty = nn.Sequential(nn.ReLU())
    with torch.no_grad():
        empty = Trace(empty, lambda: empty(torch.zeros(2, 3)), 'student')
    with pytest.raises(ValueError, match='found no layer in Sequential; give'):
        resolve_links('auto', empty, {'a': trace(3)}, 'input')


def test_by_hand():
    links = resolve_links(
        [dict(student='s1', teachers=dict(b=['s0', 's2'], a='s1')),
         dict(student=dict(path='s0', call=0), teachers=dict(a='s1.0'))],
        trace(3), {'a': trace(3), 'b': trace(3)}, 'input')
    assert [link.student.layer for link in links] == ['s1', 's0']
    assert [[(m, p.layer) for m, p in link.teachers] for link in links] == [
        [(1, 's0'), (1, 's2'), (0, 's1')], [(0, 's1.0')]]


GOOD = dict(student='s0', teachers=dict(a='s0'))


@pytest.mark.parametrize('links, error, says', [
    ('depth', TypeError, r"links must be 'auto' or a list of.*got 'depth'"),
    ([], TypeError, 'links must be'),
    (dict(student='s0'), TypeError, 'links must be'),
    (['s0'], TypeError, r'links\[0\] must be a dict with just'),
    ([GOOD, dict(student='s1')], TypeError, r'links\[1\] must be a dict'),
    ([dict(GOOD, q=1)], TypeError, r'links\[0\] must be a dict'),
    ([dict(GOOD, student=3)], TypeError, r'links\[0\].student must be a path'),
    ([dict(GOOD, student=dict(path=3))], TypeError, 'must be a path or dict'),
    ([dict(GOOD, student=dict(path='s0', cal=1))], TypeError, 'must be a pat'),
    ([dict(GOOD, student='t0')], ValueError,
     r"links\[0\].student: Stages has no layer 't0'; nearest: .*'s0'"),
    ([dict(GOOD, teachers='s0')], TypeError,
     r'links\[0\].teachers must be a dict from teachers to layers'),
    ([dict(GOOD, teachers={})], TypeError, 'must be a dict from teachers'),
    ([dict(GOOD, teachers=dict(z='s0'))], ValueError,
     r"links\[0\].teachers has no teacher 'z'; the teachers are \['a'\]"),
    ([dict(GOOD, teachers=dict(a=[]))], TypeError, 'a must name at'),
    ([dict(GOOD, teachers=dict(a='s9'))], ValueError,
     r"links\[0\].teachers.a: Stages has no layer 's9'"),
    ([dict(GOOD, teachers=dict(a=['s1', 's1.1']))], ValueError,
     r"links\[0\].teachers.a has layer 's1.1' twice"),
    ([GOOD, dict(student='s0.1', teachers=dict(a='s1'))], ValueError,
     r"links\[1\].student='s0.1' is the student's layer of links\[0\] alre"),
])
def test_messages(links, error, says):
    with pytest.raises(error, match=says):
        resolve_links(links, trace(3), {'a': trace(3)}, 'input')


def test_a_teacher_in_no_link():
    with pytest.raises(ValueError, match="teacher 'b' is in none of the link"):
        resolve_links([GOOD], trace(3), {'a': trace(3), 'b': trace(3)},
                      'input')


# The same through the public class.


@pytest.mark.parametrize('link, says', [
    (dict(student='layr1', teachers=dict(a='layer1')),
     r"links\[0\].student: CifarResNet has no layer 'layr1'.*'layer1'"),
    (dict(student='layer1', teachers=dict(a='layer1.0.downsample')),
     r'links\[0\].teachers.a: CifarResNet has no layer'),
    (dict(student='layer1', teachers=dict(b='layer1')), "no teacher 'b'")])
def test_a_wrong_link_is_refused_when_the_model_is_built(link, says):
    with pytest.raises(ValueError, match=says):
        build(links=[link])


def test_a_layer_that_no_q_can_join_is_named():
    import mmpretrain.models  # noqa: F401
    swin = dict(type='mmpretrain.SwinTransformer', window_size=2,
                arch=dict(embed_dims=8, depths=[1] * 4, num_heads=[1] * 4))
    path = 'stages.0.blocks.0.attn.w_msa.softmax'
    with pytest.raises(ValueError, match=f"layer '{path}' of teacher 'a' "
                       r'gives \(.*for 2 images, which cannot be mixed'):
        build(CIFAR, [teacher(config=swin)], probe_size=64,
              links=[dict(student='layer1', teachers=dict(a=path))])
