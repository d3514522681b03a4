import logging

import pytest
import torch
import transformers

from vithub import HubDeiTConfig, HubDeiTForImageClassification, HubViTConfig, HubViTForImageClassification

NAMES = ["ant", "bee", "cat", "dog", "eel"]


@pytest.fixture(params=[HubViTConfig, HubDeiTConfig])
def model(request, tiny, randomised):
    model_class = HubViTForImageClassification if request.param is HubViTConfig else HubDeiTForImageClassification
    return randomised(model_class(tiny(request.param, id2label=dict(enumerate(NAMES)), num_labels=5)))


@pytest.fixture
def warnings_seen(caplog):
    logger = transformers.utils.logging.get_logger()
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.WARNING)
    yield lambda: [record.getMessage() for record in caplog.records]
    logger.removeHandler(caplog.handler)


def test_known_labels_keep_their_weights_and_new_ones_are_named(model, warnings_seen, tmp_path):
    pixels = torch.randn(2, 3, 32, 32)
    before = model(pixels).logits
    model.resize(["eel", "fox", "ant"])
    after = model(pixels).logits
    torch.testing.assert_close(after[:, [0, 2]], before[:, [4, 0]])
    assert model.config.id2label == {0: "eel", 1: "fox", 2: "ant"}
    (message,) = warnings_seen()
    assert "1 of 3 labels were re-initialised" in message
    assert message.endswith(": fox")
    assert "classifier" in message
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(type(model).from_pretrained(tmp_path)(pixels).logits, after)


def test_reordering_loses_nothing_and_warns_of_nothing(model, warnings_seen):
    pixels = torch.randn(2, 3, 32, 32)
    before = model(pixels).logits
    model.resize(NAMES[::-1])
    torch.testing.assert_close(model(pixels).logits, before.flip(-1))
    assert warnings_seen() == []


def test_a_number_of_labels_starts_anew(model, warnings_seen):
    model.resize(1000)
    assert model.config.num_labels == 1000
    assert model.config.label2id["LABEL_999"] == 999
    (message,) = warnings_seen()
    assert "1000 of 1000" in message
    assert message.endswith("and 990 more")
    assert model.classifier.weight.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("labels", [[], ["a", "a"], 0])
def test_labels_that_are_none_or_repeated_are_refused(model, labels):
    with pytest.raises(ValueError, match="`labels` must be at least one distinct name"):
        model.resize(labels)
    assert model.config.num_labels == 5
