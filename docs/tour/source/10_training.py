# %% [markdown]
# # How the classes come together
#
# *Needs: [the start](01_start.md) (`show`, `kept`, `model`).*
#
# At the beginning, the CLS token after the last layer says next to nothing of the digit; at the end, a linear layer
# reads the digit from it. In between, scenes of one digit must have moved together. The start kept copies of the
# network from during its training. `layer_features` reads what the classifier is given, and `project` draws its two
# main directions.
#
# What is lost in the plane is not lost in the figures above the panels. They are computed from all channels: the
# *silhouette* compares how near a scene is to its own class and to the nearest other (1: far apart, 0: mixed), and
# *k-NN* is how often the nearest other scenes vote for the right digit.

# %%
from vithub.interpretability.analysis.plots import MARKERS

stages = {f"after {step} steps" if step else "before training": network for step, network in kept.items()}
stages["after training"] = model
features = {name: vithub.layer_features(network, test_pixels).last for name, network in stages.items()}
projection = vithub.project(features, test_labels.tolist(), [str(digit) for digit in range(10)])
show(projection)

# %%
for name, network in stages.items():
    silhouette, neighbours = projection.silhouettes[name], projection.knn_accuracies[name]
    print(f"{name:16} silhouette {silhouette:+.2f}, k-NN {neighbours:.1%}, classifier {accuracy(network):.1%}")
first, *_, last = stages
assert projection.silhouettes[last] > projection.silhouettes[first] + 0.05
assert projection.knn_accuracies[last] > projection.knn_accuracies[first] + 0.2

# %% [markdown]
# In which layer does it happen? The same figure, from CLS after each layer, for each of the copies:

# %%
from vithub.interpretability.analysis.projections import knn_accuracy

found = {}
for name, network in stages.items():
    with torch.no_grad():
        states = network(test_pixels, output_hidden_states=True).hidden_states[1:]
    found[name] = [100 * knn_accuracy(layer[:, 0].numpy(), test_labels.numpy()) for layer in states]
    print(f"{name:16} " + "  ".join(f"{value:.0f} %" for value in found[name]))

with picture(2.3, 4.2) as (figure, colors):
    axes = figure.subplots()
    for number, (name, values) in enumerate(found.items()):
        axes.plot(range(len(values)), values, MARKERS[number] + "-", color=colors.colors[number], label=name)
    axes.set(xlabel="CLS after layer", ylabel="k-NN accuracy (%)", xticks=range(len(values)), ylim=(0, 100))
    axes.legend()
