"""MGD compared with its definition by loops; what is hidden, and when."""

import numpy as np
import pytest
import torch

from mmkd_rl.losses import MGDLoss
from mmkd_rl.records import Output, OutputSpec, Pair, Truth
from tests.test_losses.steps import build, check_with_strategies, step
from tests.toy import spec

#: Valid points of four 3x4 images, see test_pkd.py.
VALID = torch.zeros(4, 3, 4)
VALID[0, :, :2] = 1
VALID[1] = 1
VALID[2, 1:, 1:] = 1
VALID[2, 1] *= .3
ALL = torch.ones(4, 3, 4)
TRUTH = Truth(None, None, torch.ones(4))
WIDTHS = (3, 2)


def draw(*shape, seed=0):
    return 2 * torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed))


def built(widths=WIDTHS, **kwargs):
    """A term for teachers with maps [D, 3, 4]."""
    torch.manual_seed(0)
    term = MGDLoss(**kwargs)
    term.build(spec(shape=(3, 3, 4)), [
        spec(f't{m}', shape=(d, 3, 4)) for m, d in enumerate(widths)
    ], dict(norm=False))
    return term


@pytest.fixture
def pairs():
    return [(draw(4, d, 3, 4, seed=d), draw(4, d, 3, 4, seed=9 - d))
            for d in WIDTHS]


def of(term, pairs, valid=None):
    return term.compare(
        tuple((Pair(s, t, valid), ) for s, t in pairs), TRUTH)


def inputs(term):
    """List to which each input of a generator is appended."""
    seen = []
    for levels in term.generators:
        for generator in levels:
            generator.register_forward_pre_hook(
                lambda _, args: seen.append(args[0].detach().clone()))
    return seen


def convolve(x, layer):
    """3x3 convolution of [D, H, W] with zero padding, by loops."""
    weight, bias = (np.asarray(p.detach().double())
                    for p in (layer.weight, layer.bias))
    out = np.zeros((len(weight), *x.shape[1:]))
    for d, h, w in np.ndindex(*out.shape):
        out[d, h, w] = bias[d]
        for e, i, j in np.ndindex(len(x), 3, 3):
            if 0 <= h + i - 1 < x.shape[1] and 0 <= w + j - 1 < x.shape[2]:
                out[d, h, w] += weight[d, e, i, j] * x[e, h + i - 1, w + j - 1]
    return out


def reference(generator, student, teacher, mask, valid, reduction='mean'):
    """Error of one image by loops in double precision."""
    first, _, second = generator
    s, t, m, v = (np.asarray(x.double())
                  for x in (student, teacher, mask, valid))
    made = convolve(np.maximum(convolve(s * m * (v > 0), first), 0.), second)
    total = weight = 0.
    for h, w in np.ndindex(*v.shape):
        total += v[h, w] * ((made[:, h, w] - t[:, h, w])**2).sum()
        weight += v[h, w] * len(t)
    if reduction == 'sum':
        return total
    return total / weight if weight else 0.


@pytest.mark.parametrize('valid', [None, VALID], ids=['all', 'masked'])
@pytest.mark.parametrize('reduction', ['mean', 'sum'])
@pytest.mark.parametrize('mask', ['pixels', 'channels', None])
def test_against_loops(pairs, valid, reduction, mask):
    """``None``: in evaluation."""
    term = built(reduction=reduction, mask=mask or 'pixels',
                 mask_ratio=.4).train(mask is not None)
    torch.manual_seed(7)
    loss = of(term, pairs, valid).detach()
    assert loss.shape == (4, 2) and loss.dtype == torch.float32
    torch.manual_seed(7)
    shapes = {'pixels': [(4, 1, 3, 4)],
              'channels': [(4, 3, 1, 1), (4, 2, 1, 1)]}.get(mask, [(1, )])
    masks = [torch.rand(s) >= (.4 if mask else 0.) for s in shapes]
    for m, (student, teacher) in enumerate(pairs):
        kept = masks[m % len(masks)].expand_as(student)
        for i in range(4):
            assert float(loss[i, m]) == pytest.approx(reference(
                term.generators[m][0], student[i], teacher[i], kept[i],
                (ALL if valid is None else valid)[i], reduction),
                rel=1e-4, abs=1e-6)


def test_the_published_sum(pairs):
    """The batch mean of the sums is the squared error over N."""
    mean, total = (of(built(reduction=r).eval(), pairs)
                   for r in ('mean', 'sum'))
    sizes = torch.tensor([12. * d for d in WIDTHS])
    torch.testing.assert_close(total, mean * sizes)
    term = built(reduction='sum').eval()
    student, teacher = pairs[0]
    torch.testing.assert_close(
        of(term, pairs)[:, 0].mean(), torch.nn.functional.mse_loss(
            term.generators[0][0](student), teacher, reduction='sum') / 4)


def test_weights_without_a_choice():
    """Neither is the other's: they differ by D H W."""
    assert MGDLoss().loss_weight == 5
    assert MGDLoss(reduction='sum').loss_weight == 2e-5
    assert MGDLoss(reduction='sum', loss_weight=0.).loss_weight == 0


@pytest.mark.parametrize('mask, shared', [('pixels', 1), ('channels', (2, 3))])
def test_what_is_hidden(mask, shared):
    """A share of the pixels, the same in all channels (or of the channels, the
    same in all pixels); the rest is not rescaled; each step hides others."""
    term = built(mask=mask, mask_ratio=.3)
    seen = inputs(term)
    x = 1 + draw(600, 3, 3, 4).abs()
    y = torch.zeros(600, 3, 3, 4)
    for _ in range(2):
        term.compare(((Pair(x, y), ), (Pair(x[:, :2], y[:, :2]), )), TRUTH)
    hidden = [s == 0 for s in seen]
    assert torch.equal(seen[0], torch.where(hidden[0], 0., x))
    assert torch.equal(hidden[0].all(shared), hidden[0].any(shared))
    assert float(hidden[0].float().mean()) == pytest.approx(.3, abs=.03)
    # images have masks of their own
    assert not (hidden[0] == hidden[0][:1]).all()
    assert not torch.equal(hidden[0], hidden[2])
    if mask == 'pixels':
        # all teachers of one level see the same pixels
        assert torch.equal(hidden[0][:, :2], hidden[1])


def test_levels_and_sizes_have_masks_of_their_own():
    torch.manual_seed(0)
    shapes = ((3, 6, 6), (3, 6, 6))
    term = MGDLoss(mask_ratio=.5)
    term.build(OutputSpec('student', shapes),
               [OutputSpec('a', shapes), OutputSpec('b', shapes),
                OutputSpec('c', ((3, 3, 3), (3, 6, 6)))], dict(norm=False))
    seen = inputs(term)
    x = torch.ones(2, 3, 6, 6)
    teachers = [Output((x, x)), Output((x, x)), Output((x[..., :3, :3], x))]
    term(Output((x, x)), teachers, Truth(None, None, torch.ones(2)))
    hidden = [s[:, 0] == 0 for s in seen]
    assert torch.equal(hidden[0], hidden[2])  # a and b, first level
    assert not torch.equal(hidden[0], hidden[1])  # levels
    assert hidden[4].shape == (2, 3, 3)
    assert all(torch.equal(hidden[i], hidden[1]) for i in (3, 5))


def test_equal_teachers_have_equal_gaps(pairs):
    term = built(widths=(3, 3))
    term.generators[1].load_state_dict(term.generators[0].state_dict())
    loss = of(term, [pairs[0]] * 2)
    assert torch.equal(loss[:, 0], loss[:, 1])
    # and another step has another
    assert not torch.allclose(of(term, [pairs[0]] * 2), loss, rtol=.01)


def test_evaluation_draws_no_random_number(pairs):
    term = built().eval()
    state = torch.get_rng_state()
    first = of(term, pairs)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(of(term, pairs), first)
    of(term.train(), pairs)
    assert not torch.equal(torch.get_rng_state(), state)


def test_a_generation_that_changes_nothing_makes_the_teacher():
    """With identities for convolutions, maps that are never negative and
    nothing hidden; and hiding costs."""
    term = built(widths=(3, ))
    for layer in (term.generators[0][0][0], term.generators[0][0][2]):
        torch.nn.init.dirac_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    x = draw(4, 3, 3, 4).abs()
    student = x.clone().requires_grad_()
    loss = of(term.eval(), [(student, x)])
    loss.sum().backward()
    assert not loss.any() and not student.grad.any()
    assert (of(term.train(), [(student, x)]) > 0).all()


def test_an_ignored_region_changes_neither_loss_nor_gradient(pairs):
    """Nor do infinite values in it."""
    hidden = (VALID == 0).unsqueeze(1)
    term = built(widths=(3, ))
    results = []
    for noise in (0., torch.inf):
        torch.manual_seed(1)
        x, y = (torch.where(hidden, noise, x) for x in pairs[0])
        x.requires_grad_()
        term.zero_grad()
        loss = of(term, [(x, y)], VALID)
        loss.sum().backward()
        results.append((loss.detach(), x.grad, *(
            p.grad.clone() for p in term.generators.parameters())))
    torch.testing.assert_close(*results)
    loss, gradient, *others = results[0]
    assert loss[3] == 0 and (loss[:3] > 0).all()
    assert not gradient.masked_select(hidden).any()
    assert gradient.masked_select(~hidden).any()
    assert all(g.any() for g in others)


@pytest.mark.parametrize('reduction', ['mean', 'sum'])
def test_without_valid_pixels_and_in_half_precision(pairs, reduction):
    term = built(reduction=reduction)
    half = [(s.bfloat16().requires_grad_(), t.bfloat16()) for s, t in pairs]
    loss = of(term, half)
    assert loss.dtype == torch.float32
    torch.manual_seed(3)
    loss = of(term, half)
    torch.manual_seed(3)
    assert torch.equal(loss, of(term, [
        (s.float(), t.float()) for s, t in half]))
    with torch.autocast('cpu', torch.bfloat16):
        low = of(term, half, 0 * ALL) + of(term, half)
    assert low.dtype == torch.float32
    low.sum().backward()
    assert all(s.grad.isfinite().all() and s.grad.any() for s, _ in half)
    x = pairs[0][0].clone().requires_grad_()
    nothing = of(term, [(x, pairs[0][1]), pairs[1]], 0 * ALL)
    nothing.sum().backward()
    assert not nothing.any() and not x.grad.any()


@pytest.mark.parametrize('kwargs', [
    dict(), dict(size=1, logit_loss=None), dict(count=1),
    dict(dtype=torch.bfloat16)
])
def test_with_strategies(kwargs):
    check_with_strategies(feature_loss=dict(type='MGDLoss'), **kwargs)


def test_a_hidden_channel_and_a_published_sum_with_strategies():
    check_with_strategies(feature_loss=dict(
        type='MGDLoss', mask='channels', mask_ratio=.15, reduction='sum',
        loss_weight=7e-5))


def test_the_generation_is_trained_and_saved():
    """Its weights are in the model's state under names that no
    ``custom_keys`` look for; a second model continues with the same loss."""
    model = build(feature_loss=dict(type='MGDLoss'))
    step(model)
    term, = (t for t in model.distillation.terms if t.reads == 'features')
    own = dict(term.generators.named_parameters())
    assert len(own) == 3 * 4
    assert all(p.grad.any() for p in own.values())
    state = model.state_dict()
    names = [n for n in state if '.generators.' in n]
    assert len(names) == len(own)
    for word in ('head', 'backbone', 'neck', 'norm', 'pos_embed'):
        assert not [n for n in names if word in n]
    other = build(feature_loss=dict(type='MGDLoss'))
    torch.manual_seed(5)
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter)
    other.load_state_dict(state)
    gaps = []
    for distilled in (model, other):
        torch.manual_seed(4)
        gaps.append(step(distilled)['loss_feature'])
    assert torch.equal(*gaps)


def test_vectors_fail_when_the_model_is_built():
    with pytest.raises(ValueError, match=(
            "^MGDLoss needs maps .* of 't1' is a vector; tap a layer .* or "
            'use FitNetLoss, PKDLoss or NDLoss')):
        MGDLoss().build(spec(shape=(8, 2, 2)), [
            spec('t0', shape=(8, 2, 2)),
            spec('t1', shape=(8, ))
        ])
    with pytest.raises(ValueError, match="of 'student' is a vector"):
        build(feature_loss=dict(type='MGDLoss'), taps=dict(feature='neck'))
    with pytest.raises(ValueError, match='used before it was built'):
        of(MGDLoss(), [(torch.zeros(2, 3, 1, 1), torch.zeros(2, 3, 1, 1))])


@pytest.mark.parametrize('kwargs, value', [
    (dict(mask_ratio=1.), r'mask_ratio must be in \[0, 1\), got 1\.0'),
    (dict(mask='rows'), "mask must be .*'rows'"),
    (dict(reduction='none'), "reduction must be .*'none'"),
    (dict(loss_weight=-1), 'loss_weight must be >= 0 or None, got -1'),
])
def test_bad_arguments(kwargs, value):
    with pytest.raises(ValueError, match=f'^MGDLoss.{value}'):
        MGDLoss(**kwargs)
