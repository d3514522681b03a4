"""Legends of drawn maps: the method, the prediction, and what the colours stand for."""

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image
from vithub.interpretability.explanation.figures import explanation_figure, figure_picture, scale_ends

from vithub import explain


def texts(figure):
    return " ".join(" ".join(text.get_text().split()) for text in figure.findobj(Text) if text.get_text())


def drawn(explanation):
    rows = range(len(explanation))
    pictures, overlays = (
        [make(row) for row in rows] for make in (explanation.picture, lambda i: explanation.overlay(index=i))
    )
    return explanation_figure(pictures, overlays, [explanation.legend(row) for row in rows])


def test_a_figure_names_method_prediction_and_ends_of_the_colours(build, pixels):
    model, images = build("vithub vit"), pixels(2)
    explanation = explain(model, images, "attention", target=[0, 1], layer=0, head=1)
    figure = drawn(explanation)
    with torch.no_grad():
        probabilities = model(images).logits.softmax(dim=-1)
    shown = texts(figure)
    for row, (target, expected) in enumerate(zip((0, 1), probabilities, strict=True)):
        best = int(expected.argmax())
        assert f"prediction: LABEL_{best} ({float(expected[best]):.1%})" in shown
        assert (f"explained: LABEL_{target} ({float(expected[target]):.1%})" in shown) == (best != target)
        low, high = explanation.legend(row).ends
        assert low == "0"
        assert float(high.split()[0]) == pytest.approx(float(np.quantile(explanation.maps[row], 0.995)), rel=0.01)
        assert high in shown
    assert "Raw attention · layer 0 · head 1" in shown
    assert "attention weight" in shown
    picture = np.asarray(figure_picture(figure))
    assert picture.shape[1] > 900
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


def test_ends_say_what_is_cut():
    ramp = torch.linspace(0, 1, 101).view(1, -1)
    assert scale_ends(ramp) == ("0", "0.995 or more")
    assert scale_ends(ramp - 0.5)[0] == "0 or less"
    assert scale_ends(torch.full((2, 2), -1.0)) == ("0 or less", "0")


def test_detectors_name_their_query_and_backbones_say_that_there_is_no_class(build, pixels, tiny):
    import vithub

    found = explain(build("vithub detr"), pixels(1, 64, 64), "relevance", query=3)
    assert found.legend().lines[0].startswith("prediction of query 3: LABEL_")
    headless = explain(vithub.HubViTModel(tiny()).eval(), pixels(1), "rollout")
    assert headless.legend().lines == ("no prediction: the model has no classes",)


@pytest.mark.parametrize("name", ["$x^2", "long " * 60, "薔薇", "a\nb"])
def test_any_label_is_drawn(name, build, pixels):
    model = build("vithub vit")
    model.config.id2label = dict.fromkeys(range(5), name)
    explanation = explain(model, pixels(1), "grad_cam")
    shown = texts(drawn(explanation))
    figure_picture(drawn(explanation))  # missing letters would be warned of, and warnings are errors
    if name == "薔薇":
        assert f"prediction: class {explanation.predictions[0].target} (" in shown
    elif name.startswith("long"):
        assert "long long" in shown
        assert "…" in shown
    else:
        assert f"prediction: {' '.join(name.split())} (" in shown


def test_wide_and_tall_pictures_are_drawn(build, pixels):
    found = explain(build("vithub vit"), pixels(1, 16, 96), "rollout")
    assert figure_picture(drawn(found)).width > 900
    tall = explain(build("vithub vit"), pixels(1, 96, 16), "rollout")
    assert figure_picture(drawn(tall)).height > 900
    assert isinstance(tall.overlay(), Image.Image)
