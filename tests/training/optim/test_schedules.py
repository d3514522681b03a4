import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR, StepLR
from vithub.training.optim.schedules import build_schedule
from vithub.training.recipe.sections import TrainingSettings

lengths = st.tuples(st.integers(1, 30), st.integers(1, 12))  # epochs, steps per epoch


def rates(epochs, per_epoch, batch_size=64, **settings):
    """The rate of every step of a training."""
    schedule = build_schedule(TrainingSettings(epochs=epochs, **settings), batch_size, per_epoch, epochs * per_epoch)
    return [schedule(step) for step in range(epochs * per_epoch)]


def rates_of_torch(steps, lr, make):
    """What torch's own schedulers make of a peak rate."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(("epochs", "per_epoch", "warmup"), [(1, 7, 0), (10, 3, 2), (4, 5, 1), (3, 1, 1)])
@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")  # SequentialLR's own call
def test_warm_up_and_cosine_are_those_of_torch(epochs, per_epoch, warmup):
    lr, low, least, steps = 2e-3, 1e-5, 1e-6, epochs * per_epoch
    rise = warmup * per_epoch

    def make(optimizer):
        cosine = CosineAnnealingLR(optimizer, max(1, steps - 1 - rise), least)
        if rise == 0:
            return cosine
        linear = LinearLR(optimizer, low / lr, 1.0, rise)
        return SequentialLR(optimizer, [linear, cosine], [rise])

    ours = rates(epochs, per_epoch, lr=lr, warmup=warmup, warmup_lr=low, min_lr=least)
    assert ours == pytest.approx(rates_of_torch(steps, lr, make), rel=1e-9)


def test_the_linear_decline_is_that_of_torch():
    def make(optimizer):
        return LinearLR(optimizer, 1.0, 0.1, 19)

    ours = rates(4, 5, schedule="linear", lr=1e-2, min_lr=1e-3, warmup=0)
    assert ours == pytest.approx(rates_of_torch(20, 1e-2, make), rel=1e-9)


def test_the_steps_are_those_of_torch():
    ours = rates(9, 4, schedule="step", lr=1e-2, warmup=0, step_epochs=3, step_factor=0.5)
    assert ours == pytest.approx(rates_of_torch(36, 1e-2, lambda optimizer: StepLR(optimizer, 12, 0.5)), rel=1e-9)


def test_the_constant_rate_only_warms_up():
    ours = rates(5, 2, schedule="constant", lr=1e-2, warmup=1, warmup_lr=0.0)
    assert ours == [0.0, 5e-3] + [1e-2] * 8


@given(
    length=lengths, warmup=st.floats(0, 40), lr=st.floats(1e-6, 1.0), kind=st.sampled_from(["cosine", "linear"]),
    warmup_lr=st.floats(0, 1e-2), min_lr=st.floats(0, 1e-2),
)  # fmt: skip
def test_the_rate_rises_to_the_peak_and_falls_to_the_end(length, warmup, lr, kind, warmup_lr, min_lr):
    values = rates(*length, schedule=kind, lr=lr, warmup=warmup, warmup_lr=warmup_lr, min_lr=min_lr)
    peak = values.index(max(values))
    assert max(values) == pytest.approx(lr)
    assert values[: peak + 1] == sorted(values[: peak + 1])
    assert values[peak:] == sorted(values[peak:], reverse=True)
    assert all(0 <= value <= lr * (1 + 1e-12) for value in values)
    if len(values) - peak > 1:
        assert values[-1] == pytest.approx(min(min_lr, lr))


@given(length=lengths, epochs_of_warmup=st.integers(0, 5))
def test_a_warm_up_is_the_same_in_every_unit(length, epochs_of_warmup):
    epochs, per_epoch = length
    in_epochs = rates(*length, warmup=epochs_of_warmup)
    assert rates(*length, warmup=epochs_of_warmup * per_epoch, warmup_unit="steps") == in_epochs
    assert rates(*length, warmup=epochs_of_warmup / epochs, warmup_unit="ratio") == in_epochs


def test_rates_for_a_batch_size_are_scaled_to_the_one_used():
    plain = rates(5, 3, lr=1e-3, warmup=1)
    scaled = rates(5, 3, batch_size=128, lr=1e-3, warmup=1, lr_batch=512)
    assert scaled == pytest.approx([rate / 4 for rate in plain])


def test_a_warm_up_longer_than_any_training_rises_to_its_end():
    assert rates(2, 5, warmup=1e308, warmup_lr=0.0) == rates(2, 5, warmup=100, warmup_lr=0.0)
