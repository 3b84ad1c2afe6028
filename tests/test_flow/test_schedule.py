import pytest

from mmkd_rl.flow.schedule import FlowSchedule, to_iterations


def test_lambda_1_rises_linearly_from_zero_to_its_final_value():
    schedule = FlowSchedule(30, 50, .2)
    assert schedule.lambda_1(0) == 0
    steps = [schedule.lambda_1(i + 1) - schedule.lambda_1(i)
             for i in range(50)]
    assert steps == pytest.approx([.2 / 50] * 50)
    assert schedule.lambda_1(50) == schedule.lambda_1(10**6) == .2


def test_strength_falls_linearly_from_one_to_exactly_zero():
    schedule = FlowSchedule(30, 50, .2)
    assert all(schedule.strength(i) == 1 for i in range(31))
    steps = [schedule.strength(i) - schedule.strength(i + 1)
             for i in range(30, 50)]
    assert steps == pytest.approx([1 / 20] * 20)
    assert schedule.strength(50) == schedule.strength(51) == 0
    assert all(0 < schedule.strength(i) for i in range(50))


def test_teachers_are_cut_at_once_where_withdrawal_has_no_length():
    schedule = FlowSchedule(5, 5, 1.)
    assert [schedule.strength(i) for i in (4, 5, 6)] == [1, 0, 0]


def test_a_schedule_that_is_over_at_once():
    schedule = FlowSchedule(0, 0, 1.)
    assert schedule.strength(0) == 0
    assert schedule.lambda_1(0) == 0 and schedule.lambda_1(1) == 1


@pytest.mark.parametrize('value, unit, want', [
    (0., 10, 0), (.5, 10, 50), (1., 10, 100), (.333, 10, 33),  # shares
    (0, 10, 0), (1, 10, 10), (10, 10, 100),  # epochs
    (1, 1, 1), (70, 1, 70)])  # iterations
def test_a_float_is_a_share_and_an_int_counts(value, unit, want):
    got = to_iterations(value, 'k', unit, 100)
    assert got == want and isinstance(got, int)


@pytest.mark.parametrize('value, unit, says', [
    (1.01, 10, r'share of the training in \[0, 1\]'),
    (11, 10, r'0\.\.10 epochs'),
    (101, 1, r'0\.\.100 iterations')])
def test_beyond_the_end_the_student_would_not_end_alone(value, unit, says):
    with pytest.raises(ValueError, match=f'Hook.key={value!r}.*{says}.*still'):
        to_iterations(value, 'Hook.key', unit, 100)
