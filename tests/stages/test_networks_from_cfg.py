import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from data.errors import RequestError
from stages.networks.cfg_layers import convolution_shapes, leading_convolutions, read_network
from stages.networks.from_cfg import load_darknet, load_prefix
from stages.networks.fuse import fuse
from stages.networks.layers import Concatenation, Convolution, MaxPool, Reorg
from stages.networks.model import build_detector
from stages.networks.network import max_pool, reorg
from stages.networks.spec import TinyYoloConfig, YoloV2Config, detector_layers, own_spec
from tests.reference_darknet import (
    DETECTOR_CFG,
    convolve_slowly,
    max_pool_slowly,
    random_arrays,
    reorg_slowly,
    write_weights,
)

DARKNET = Path(__file__).parents[2].parent / "shared" / "darknet"
needs_reference = pytest.mark.skipif(
    not DARKNET.is_dir(), reason="the Darknet reference files are not beside this checkout (../shared/darknet)"
)


def written(folder: Path, cfg: str = DETECTOR_CFG, names: str = "cat\ndog\n") -> tuple[Path, Path, Path]:
    paths = folder / "net.cfg", folder / "net.weights", folder / "net.names"
    paths[0].write_text(cfg)
    paths[2].write_text(names)
    write_weights(paths[1], random_arrays(convolution_shapes(read_network(DETECTOR_CFG, "cfg").layers)))
    return paths


def test_a_cfg_becomes_named_layers() -> None:
    network = read_network(DETECTOR_CFG, "x.cfg")
    assert network.layers == (
        Convolution("conv1", "input", 4, 3, padding=1),
        MaxPool("pool1", "conv1", 2, 2, 1),
        Convolution("conv2", "pool1", 8, 3, stride=2, padding=1),
        Convolution("conv3", "conv2", 4, 1, batch_norm=False, activation="linear"),
        Reorg("reorg1", "conv3", 2),
        MaxPool("pool2", "conv2", 2, 2, 1),
        Concatenation("route1", ("pool2", "reorg1")),
        MaxPool("pool3", "route1", 2, 1, 1),
        Convolution("conv4", "pool3", 8, 3, padding=1, groups=4),
        Convolution("conv5", "conv4", 14, 1, batch_norm=False, activation="linear"),
    )
    assert (network.anchors, network.classes) == (((1, 2), (3, 4)), 2)
    assert (network.input_height, network.input_width) == (64, 96)


def test_a_whole_network_equals_its_slow_twin(tmp_path: Path) -> None:
    cfg, weights, names = written(tmp_path)
    model = load_darknet(cfg, weights, names)
    assert model.detector.classes == ("cat", "dog")
    assert model.detector.stride == 8
    assert not model.detector.training
    assert model.weights_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert model.cfg_sha256 == hashlib.sha256(cfg.read_bytes()).hexdigest()

    arrays = random_arrays(convolution_shapes(model.detector.layers))
    x = np.random.default_rng(1).uniform(0, 1, (3, 16, 24)).astype(np.float32)
    conv2 = convolve_slowly(
        max_pool_slowly(convolve_slowly(x, arrays[0], 1, 1, leaky=True), 2, 2, 1), arrays[1], 2, 1, leaky=True
    )
    reorganised = reorg_slowly(convolve_slowly(conv2, arrays[2], 1, 0, leaky=False), 2)
    joined = max_pool_slowly(np.concatenate([max_pool_slowly(conv2, 2, 2, 1), reorganised]), 2, 1, 1)
    expected = convolve_slowly(convolve_slowly(joined, arrays[3], 1, 1, leaky=True), arrays[4], 1, 0, leaky=False)
    with torch.no_grad():
        raw = model.detector.double()(torch.from_numpy(x).double()[None])[0].numpy()
    np.testing.assert_allclose(raw, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("shape", [(4, 2, 2), (8, 4, 6)])
def test_reorg_equals_its_slow_twin(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=shape)
    np.testing.assert_array_equal(reorg(torch.from_numpy(x)[None], 2)[0].numpy(), reorg_slowly(x, 2))


@pytest.mark.parametrize("kernel", [2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(6, 7), (13, 13)])
def test_max_pool_equals_its_slow_twin(kernel: int, stride: int, size: tuple[int, int]) -> None:
    x = np.random.default_rng(0).normal(size=(2, *size)) - 5
    for padding in (0, kernel - 1):
        pooled = max_pool(torch.from_numpy(x)[None], kernel, stride, padding)[0].numpy()
        np.testing.assert_array_equal(pooled, max_pool_slowly(x, kernel, stride, padding))


def test_variances_near_nothing_divide_as_in_darknet(tmp_path: Path) -> None:
    paths = written(tmp_path)
    arrays = random_arrays(convolution_shapes(read_network(DETECTOR_CFG, "cfg").layers))
    arrays[0]["variance"][:] = [1e-4, 1e-6, 1e-8, 1e-10]
    write_weights(paths[1], arrays)
    norm = load_darknet(*paths).detector.block("conv1").norm
    assert norm is not None
    assert norm.running_var is not None
    divisor = (norm.running_var.double() + norm.eps).sqrt().numpy()
    np.testing.assert_allclose(divisor, np.sqrt(arrays[0]["variance"].astype(np.float64)) + 1e-6, rtol=2e-3)


def test_fusing_changes_nothing(tmp_path: Path) -> None:
    model = load_darknet(*written(tmp_path))
    generator = torch.Generator().manual_seed(0)
    for _, block in model.detector.convolutions():
        if block.norm is not None and block.norm.running_var is not None:
            block.norm.running_var.uniform_(0.3, 2, generator=generator)
    x = torch.rand(2, 3, 64, 96, generator=generator)
    fused = fuse(model.detector)
    with torch.no_grad():
        raw, taps = model.detector.forward_with_taps(x, ["conv2", "route1"])
        fused_raw, fused_taps = fused.forward_with_taps(x, ["conv2", "route1"])
    torch.testing.assert_close(fused_raw, raw, rtol=0, atol=1e-4)
    for name, tap in taps.items():
        torch.testing.assert_close(fused_taps[name], tap, rtol=0, atol=1e-4)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fused.modules())


def test_names_that_are_not_the_cfgs_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"has 3 class names, but .* has classes=2"):
        load_darknet(*written(tmp_path, names="cat\ndog\nbird\n"))


def test_without_names_the_classes_are_numbers(tmp_path: Path) -> None:
    cfg, weights, _ = written(tmp_path)
    assert load_darknet(cfg, weights).detector.classes == ("0", "1")


def test_weights_of_another_cfg_are_refused_with_both_sizes(tmp_path: Path) -> None:
    cfg, weights, names = written(tmp_path, DETECTOR_CFG.replace("groups=4", "groups=2"))
    with pytest.raises(RequestError, match=rf"too short: .* bytes, the file has {weights.stat().st_size}"):
        load_darknet(cfg, weights, names)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[reorg]", "[shortcut]", r"\[shortcut\] on line .*not supported; the supported ones are convolutional"),
        ("activation=leaky", "activation=mish", "activation=mish"),
        ("filters=14", "filters=15", "filters=15, but num=2 and classes=2 need 14"),
        ("layers = -1, 4", "layers = -1, 44", "no layer 44"),
        ("layers = -1, 4", "layers = -1, 0", "different strides"),
        ("anchors=1,2, 3,4", "anchors=1,2, 3", "needs 4 positive anchor sizes"),
        ("softmax=1", "softmax=0", "softmax 1"),
        ("channels=3", "channels=1", "channels=1"),
        ("height=64", "height=60", "multiples of 8"),
        ("filters=8", "filters=0", "filters=0 must be at least 1"),
        ("groups=4", "groups=5", "5 groups"),
        ("pad=1", "binary=1", "binary=1 is not supported"),
        ("[maxpool]", "[dropout]", "has no such layer before it"),
        ("[region]", "[avgpool]", r"last section must be \[region\]"),
    ],
)
def test_what_cannot_be_computed_as_darknet_does_is_refused(old: str, new: str, message: str) -> None:
    assert old in DETECTOR_CFG
    with pytest.raises(RequestError, match=message):
        read_network(DETECTOR_CFG.replace(old, new), "x.cfg")


CLASSIFIER_CFG = DETECTOR_CFG.split("[reorg]")[0] + "[avgpool]\n[connected]\noutput=10\nactivation=linear\n[softmax]\n"


def test_a_classifiers_convolutions_load_as_far_as_they_agree(tmp_path: Path) -> None:
    cfg, weights, names = written(tmp_path)
    classifier = tmp_path / "classifier.cfg"
    classifier.write_text(CLASSIFIER_CFG.replace("filters=4\nsize=1", "filters=5\nsize=1"))
    shapes = convolution_shapes(read_network(DETECTOR_CFG, "cfg").layers)[:2]
    arrays = random_arrays(shapes, seed=9)
    write_weights(tmp_path / "classifier.weights", arrays, minor=1, tail=b"\0" * 4 * (5 * 9 + 10 * 6))
    detector = load_darknet(cfg, weights, names).detector
    before = detector.block("conv3").convolution.weight.clone()
    assert load_prefix(detector, tmp_path / "classifier.weights", classifier) == 2
    np.testing.assert_array_equal(detector.block("conv2").convolution.weight.detach().numpy(), arrays[1]["kernel"])
    assert torch.equal(detector.block("conv3").convolution.weight, before)


def test_a_cut_file_loads_without_a_cfg_where_it_ends_between_two_layers(tmp_path: Path) -> None:
    detector = load_darknet(*written(tmp_path)).detector
    shapes = convolution_shapes(detector.layers)
    write_weights(tmp_path / "net.conv.4", random_arrays(shapes[:3], seed=9))
    assert load_prefix(detector, tmp_path / "net.conv.4") == 3
    write_weights(tmp_path / "foreign", random_arrays(shapes[:3], seed=9), tail=b"\0" * 8)
    with pytest.raises(RequestError, match="ends within convolution 4"):
        load_prefix(detector, tmp_path / "foreign")


def test_weights_without_a_common_layer_are_refused(tmp_path: Path) -> None:
    _, weights, _ = written(tmp_path)
    detector = build_detector(own_spec("f-yolo", ("cat",)))
    with pytest.raises(RequestError, match="nothing for this f-yolo"):
        load_prefix(detector, weights, tmp_path / "net.cfg")


@needs_reference
@pytest.mark.parametrize(
    ("cfg", "model", "config"),
    [("yolov2-voc.cfg", "yolov2", YoloV2Config()), ("yolov2-tiny-voc.cfg", "tiny-yolo", TinyYoloConfig())],
)
def test_own_models_are_layer_by_layer_those_of_darknet(
    cfg: str, model: str, config: YoloV2Config | TinyYoloConfig
) -> None:
    network = read_network((DARKNET / "cfg" / cfg).read_text(), cfg)
    spec = own_spec(model, tuple(str(k) for k in range(20)), config)
    assert tuple(detector_layers(spec)) == network.layers
    assert spec.anchors == network.anchors


@needs_reference
def test_published_classifiers_begin_the_networks_they_should() -> None:
    def common(cfg: str, model: str) -> int:
        theirs, _ = leading_convolutions((DARKNET / "cfg" / cfg).read_text(), cfg)
        ours = convolution_shapes(detector_layers(own_spec(model, ("cat",))))
        return next(i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b)

    assert common("darknet19_448.cfg", "yolov2") == 18
    assert common("tiny.cfg", "f-yolo") == 2
    assert common("yolov2-tiny-voc.cfg", "f-yolo") == 6
