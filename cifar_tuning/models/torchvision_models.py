"""The classifiers of torchvision, for training from scratch and for fine-tuning; it is imported where it is used."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import nn

from cifar_tuning.models import initial_weights, layers
from cifar_tuning.option_rules import FLAG, broken, raise_all

RULES = {"small_images": FLAG, "freeze": FLAG, "num_classes": layers.RULES["num_classes"]}
# The module of those whose stem has a form for small images, and what they are.
SMALL, ARE_SMALL = "torchvision.models.resnet", "ResNets, ResNeXts and wide ResNets"


def problems(
    name: object, weights: object, small_images: object, freeze: object, num_classes: object, restored: object
) -> list[str]:
    """Returns a line for each option of `torchvision_model` that is wrong; empty if all are right."""
    lines = broken("model", RULES, {"small_images": small_images, "freeze": freeze, "num_classes": num_classes})
    if restored is not False:
        lines.append(f"model.restored={restored}: is set where a checkpoint brings the weights, not by hand")
    if freeze is True and weights is None:
        lines.append("model.freeze=true: nothing has trained the layers that it freezes; give model.weights too")
    models = _models()
    known = models.list_models(module=models)
    if not isinstance(name, str) or name not in known:
        near = get_close_matches(str(name).lower(), known, n=3)
        meant = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(known)}"
        return [*lines, f"model.name={name}: is no classifier of torchvision's; {meant}"]
    if small_images is True and models.get_model_builder(name).__module__ != SMALL:
        lines.append(
            f"model.small_images=true: is for {ARE_SMALL}, not for {name}; give it larger images, or take one of those"
        )
    published = list(models.get_model_weights(name).__members__)
    if weights is not None and not (isinstance(weights, str) and (weights in published or _may_be_file(weights))):
        lines.append(
            f"model.weights={weights}: must be null, one of {', '.join(published)}, or a file with a state_dict"
        )
    if weights in published and small_images is True:
        lines.append(
            f"model.small_images=true: the weights {weights} are of a network with another stem, for larger images; "
            "leave one of the two out (they want images of some 224 pixels)"
        )
    return lines


def torchvision_model(
    name: str = "resnet18",
    weights: str | None = None,
    small_images: bool = False,
    freeze: bool = False,
    num_classes: int = 1000,
    restored: bool = False,
) -> nn.Module:
    """Builds any classifier of torchvision, as torchvision has it; auxiliary classifiers are left out.

    Args:
        name: one of `torchvision.models.list_models(module=torchvision.models)`.
        weights: what it begins with: None for random weights, the name of weights that torchvision publishes
            (`DEFAULT` for its best ones), or a file with a `state_dict` (`initial_weights.read`). A last layer of
            another number of classes is replaced by a new one.
        small_images: for images of some 32×32 pixels: the stem is a 3×3 convolution with stride 1, without pooling, in
            place of one that divides the sides by four. For ResNets and their like.
        freeze: only the last layer is trained.
        num_classes: number of classes.
        restored: a checkpoint brings the weights: none are fetched or read.

    Raises:
        ValueError: an option is out of range, or a file holds another network's weights.
        ConnectionError: published weights are not on this machine and can't be downloaded.
    """
    raise_all(problems(name, weights, small_images, freeze, num_classes, restored=False))
    models = _models()
    enumeration = models.get_model_weights(name)
    published = enumeration[weights] if weights in enumeration.__members__ else None
    options: dict[str, Any] = {"num_classes": num_classes}
    if name in ("googlenet", "inception_v3"):
        # What torchvision's builders give them with published weights. To draw what is loaded over takes seconds.
        options |= {"aux_logits": False, "init_weights": weights is None, "transform_input": published is not None}
    if name.startswith("vit_") and published is not None:
        options["image_size"] = published.meta["min_size"][0]
    model: nn.Module = models.get_model(name, weights=None, **options)
    if small_images:
        _use_small_stem(model)
    if weights is not None and not restored:
        state = initial_weights.read(weights) if published is None else initial_weights.fetch(published)
        initial_weights.load(model, state, weights if published is None else str(published))
    if freeze:
        initial_weights.freeze(model)
    return model


vars(torchvision_model)["check"] = problems  # as the classes that build a part have it


def _models() -> Any:
    from cifar_tuning.torchvision_compat import torchvision

    return torchvision.models


def _may_be_file(weights: str) -> bool:
    """Whether a word is more likely a file than a misspelt name; whoever reads the file says whether it is there."""
    return "/" in weights or bool(Path(weights).suffix) or Path(weights).expanduser().exists()


def _use_small_stem(model: Any) -> None:
    """Has a ResNet keep the images' size in its stem; its convolution begins as torchvision's do."""
    model.conv1 = nn.Conv2d(3, model.conv1.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
