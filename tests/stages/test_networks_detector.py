import json
import weakref
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from data.checkpoint import load_checkpoint, save_checkpoint
from data.errors import RequestError
from stages.networks.f_yolo import FYoloConfig
from stages.networks.fuse import fuse
from stages.networks.layers import INPUT, Concatenation, Convolution, Layer, MaxPool, map_shapes, scaled
from stages.networks.model import build_detector, load_detector, save_detector
from stages.networks.network import Detector
from stages.networks.spec import (
    OWN_MODELS,
    DarknetConfig,
    DetectorSpec,
    ModelConfig,
    TinyYoloConfig,
    YoloV2Config,
    default_anchors,
    detector_layers,
    own_spec,
)
from tests.reference_darknet import DETECTOR_CFG

VOC = tuple(f"class {k}" for k in range(20))
NARROW: dict[str, ModelConfig] = {
    "f-yolo": FYoloConfig(width=0.125),
    "tiny-yolo": TinyYoloConfig(width=0.125),
    "yolov2": YoloV2Config(width=0.125),
}


def narrow(model: str, seed: int = 0, classes: tuple[str, ...] = ("cat", "dog")) -> Detector:
    return build_detector(own_spec(model, classes, NARROW[model]), torch.Generator().manual_seed(seed))


def on_meta(spec: DetectorSpec) -> Detector:
    with torch.device("meta"):
        return Detector(spec, detector_layers(spec))


@pytest.mark.parametrize(
    ("model", "config", "millions", "gflop"),
    [
        ("f-yolo", FYoloConfig(), 8.51, 4.52),
        ("f-yolo", FYoloConfig(reading="B"), 8.57, 4.53),
        ("tiny-yolo", TinyYoloConfig(), 15.86, 6.97),
        ("yolov2", YoloV2Config(), 50.66, 29.36),
    ],
)
def test_size_and_cost_are_the_published_ones(model: str, config: ModelConfig, millions: float, gflop: float) -> None:
    detector = on_meta(own_spec(model, VOC, config))
    with FlopCounterMode(display=False) as counter:
        raw = detector(torch.zeros(1, 3, 416, 416, device="meta"))
    assert raw.shape == (1, 125, 13, 13)
    assert detector.stride == 32
    assert sum(p.numel() for p in detector.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)
    assert counter.get_total_flops() / 1e9 == pytest.approx(gflop, abs=0.005)


@pytest.mark.parametrize("merge", ["stack", "max-pool"])
@pytest.mark.parametrize(
    ("merged", "extra", "joined"),
    [
        ((5, 6), False, 768),
        ((4, 6), False, 1024),
        ((3, 6), False, 1280),
        ((2, 6), False, 1536),
        ((3, 7), False, 1792),
        ((3, 7), True, 1792),
        ((2, 7), True, 2048),
    ],
)
def test_every_merging_joins_the_width_written_down(
    merge: str, merged: tuple[int, int], extra: bool, joined: int
) -> None:
    config = FYoloConfig(merge=merge, merged=merged, extra_1x1=extra)  # type: ignore[arg-type]
    shapes = map_shapes(detector_layers(own_spec("f-yolo", VOC, config)))
    assert (shapes["concatenation"].channels, shapes["concatenation"].stride) == (joined, 32)
    assert ("extra2" in shapes) == extra
    assert all(shapes[f"merged{level}"].channels == 256 for level in range(merged[0], 6))


def test_the_figures_bottlenecks() -> None:
    for reading, conv5, last in [("A", 64, 1024), ("B", 32, 1152)]:
        shapes = map_shapes(detector_layers(own_spec("f-yolo", VOC, FYoloConfig(reading=reading))))  # type: ignore[arg-type]
        assert [shapes[f"bottleneck{n}"].channels for n in (3, 4, 5, 7)] == [4, 16, conv5, last]
        assert [shapes[f"conv{n}"].channels for n in range(1, 8)] == [16, 32, 64, 128, 256, 512, 512]
        assert shapes["concatenation"].channels == 1792


@pytest.mark.parametrize(
    "config",
    [
        lambda: FYoloConfig(reading="C"),  # type: ignore[arg-type]
        lambda: FYoloConfig(merge="add"),  # type: ignore[arg-type]
        lambda: FYoloConfig(merged=(1, 7)),
        lambda: FYoloConfig(merged=(3, 5)),
        lambda: YoloV2Config(width=0),
        lambda: TinyYoloConfig(width=-1),
    ],
)
def test_configurations_that_do_not_exist_are_refused(config: object) -> None:
    assert callable(config)
    with pytest.raises(RequestError, match="must be"):
        config()


def test_a_width_factor_rounds_to_multiples_of_eight() -> None:
    assert [scaled(c, 0.25) for c in (16, 64, 100, 1024)] == [8, 16, 24, 256]
    assert scaled(50, 1) == 50
    narrow_shapes = map_shapes(detector_layers(own_spec("f-yolo", VOC, FYoloConfig(width=0.25))))
    assert [narrow_shapes[f"bottleneck{n}"].channels for n in (3, 4, 5)] == [1, 4, 16]
    assert narrow_shapes["output"].channels == 125


@pytest.mark.parametrize("model", OWN_MODELS)
def test_models_run_on_any_multiple_of_32(model: str) -> None:
    detector = narrow(model)
    assert detector(torch.rand(2, 3, 64, 96)).shape == (2, 5 * 7, 2, 3)
    assert detector.anchors == default_anchors(model)


@pytest.mark.parametrize("model", OWN_MODELS)
def test_fused_models_answer_alike(model: str) -> None:
    detector, generator = narrow(model), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _ in range(3):  # moves the running statistics away from 0 and 1
            detector(torch.rand(2, 3, 64, 64, generator=generator))
        detector.eval()
        x = torch.rand(1, 3, 96, 64, generator=generator)
        raw, taps = detector.forward_with_taps(x, ["conv5"])
        fused_raw, fused_taps = fuse(detector).forward_with_taps(
            x.contiguous(memory_format=torch.channels_last), ["conv5"]
        )
    torch.testing.assert_close(fused_raw, raw, rtol=0, atol=1e-4)
    torch.testing.assert_close(fused_taps["conv5"], taps["conv5"], rtol=0, atol=1e-4)


def test_bfloat16_autocast_stays_near_float32() -> None:
    detector, x = narrow("yolov2").eval(), torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        exact = detector(x)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = detector(x)
            rounded_fused = fuse(detector)(x)
    assert rounded.dtype == torch.bfloat16
    for answer in (rounded, rounded_fused):
        assert (answer.float() - exact).abs().max() < 0.05 * exact.abs().max()


def test_gradients_reach_every_parameter() -> None:
    for model in OWN_MODELS:
        detector = narrow(model)
        detector(torch.rand(2, 3, 64, 64)).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in detector.parameters())


def test_taps_are_the_maps_the_network_computes() -> None:
    detector = narrow("tiny-yolo").eval()
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        raw, taps = detector.forward_with_taps(x, ["conv1", "pool1", "conv9"])
        conv1 = detector.block("conv1")(x)
    torch.testing.assert_close(taps["conv1"], conv1)
    torch.testing.assert_close(taps["pool1"], torch.nn.functional.max_pool2d(conv1, 2))
    torch.testing.assert_close(taps["conv9"], raw)
    assert list(taps) == ["conv1", "pool1", "conv9"]


def test_an_unknown_tap_is_refused_and_the_known_ones_listed() -> None:
    detector = narrow("tiny-yolo")
    with pytest.raises(RequestError, match=r"no layer 'conv77'.*: conv1, pool1, conv2"):
        detector.forward_with_taps(torch.rand(1, 3, 64, 64), ["conv1", "conv77"])


def test_maps_that_nobody_needs_any_more_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = narrow("yolov2").eval()
    run, maps, alive = Detector._run, [], []

    def watched(self: Detector, layer: Layer, inputs: list[torch.Tensor]) -> torch.Tensor:
        output = run(self, layer, inputs)
        maps.append((layer.name, weakref.ref(output)))
        alive.append({name for name, reference in maps if reference() is not None})
        return output

    monkeypatch.setattr(Detector, "_run", watched)
    with torch.no_grad():
        detector(torch.rand(1, 3, 64, 64))
    assert alive[-1] == {"conv22", "conv23"}
    assert max(len(names) for names in alive) == 3  # a layer, what it reads, and conv13 for the passthrough


def test_initial_weights_are_he_normal_and_repeat_with_the_seed() -> None:
    one, two, other = narrow("yolov2", 5), narrow("yolov2", 5), narrow("yolov2", 6)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    weight = one.block("conv22").convolution.weight
    assert weight.std().item() == pytest.approx((2 / weight[0].numel()) ** 0.5, rel=0.02)
    assert not torch.equal(weight, other.block("conv22").convolution.weight)
    head = one.block("conv23").convolution
    assert head.bias is not None
    assert head.weight.std().item() == pytest.approx(0.1 * (2 / head.weight[0].numel()) ** 0.5, rel=0.02)
    objectness = head.bias.reshape(5, -1)[:, 4]
    assert objectness.sigmoid().tolist() == pytest.approx([0.1] * 5)
    assert head.bias.abs().sum().item() == pytest.approx(objectness.abs().sum().item())


SPECS = [own_spec(model, ("cat", "dog"), config) for model, config in NARROW.items()] + [
    own_spec("f-yolo", VOC, FYoloConfig("B", "max-pool", (4, 6), False, 0.5), ((1.0, 2.0), (0.1, 0.2))),
    DetectorSpec(DarknetConfig(DETECTOR_CFG), ("cat", "dog"), ((1.0, 2.0), (3.0, 4.0))),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.model)
def test_specs_come_back_from_json(spec: DetectorSpec) -> None:
    assert DetectorSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    "values",
    [
        None,
        {},
        {"model": "ssd", "config": {}, "classes": ["a"], "anchors": [[1, 1]]},
        {"model": "yolov2", "config": {"depth": 3}, "classes": ["a"], "anchors": [[1, 1]]},
        {"model": "yolov2", "config": {}, "classes": ["a"], "anchors": [[1]]},
        {"model": "yolov2", "config": {}, "classes": ["a", "a"], "anchors": [[1, 1]]},
        {"model": "yolov2", "config": {}, "classes": ["a"], "anchors": [[0, 1]]},
        {"model": "f-yolo", "config": {"merged": [3]}, "classes": ["a"], "anchors": [[1, 1]]},
    ],
)
def test_other_json_is_refused(values: object) -> None:
    with pytest.raises(RequestError):
        DetectorSpec.from_json(values)


def test_unknown_models_are_refused_with_the_known_ones() -> None:
    with pytest.raises(RequestError, match=r"no model 'ssd'; it must be one of f-yolo, tiny-yolo, yolov2"):
        own_spec("ssd", ("cat",))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.model)
def test_model_files_come_back_exactly(spec: DetectorSpec, tmp_path: Path) -> None:
    detector, path = build_detector(spec), tmp_path / "model.safetensors"
    save_detector(path, detector, {"epoch": 3})
    again = load_detector(path)
    assert again.spec == spec
    assert not again.training
    assert load_checkpoint(path)[1]["epoch"] == 3
    for (name, ours), (other, theirs) in zip(detector.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(ours, theirs)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path, detector = tmp_path / "model.safetensors", narrow("tiny-yolo")
    tensors = dict(detector.state_dict())
    save_checkpoint(path, tensors, {"detector": narrow("yolov2").spec.to_json()})
    with pytest.raises(RequestError, match=r"model.safetensors: .* do not belong to this yolov2: .* missing \(first:"):
        load_detector(path)
    wider = own_spec("tiny-yolo", ("cat", "dog"), TinyYoloConfig(width=0.25))
    save_checkpoint(path, tensors, {"detector": wider.to_json()})
    with pytest.raises(RequestError, match=r"has the shape \[\d+.*but this tiny-yolo needs"):
        load_detector(path)
    save_checkpoint(path, tensors, {})
    with pytest.raises(RequestError, match="not a model file"):
        load_detector(path)


def test_a_fused_detector_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fused"):
        save_detector(tmp_path / "model", fuse(narrow("f-yolo")))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([Convolution("a", "b", 8, 1)], "reads"),
        ([Convolution("a", INPUT, 8, 1), Convolution("a", INPUT, 8, 1)], "Two layers"),
        ([MaxPool("a", INPUT, 2, 2, 0), Concatenation("b", ("a", INPUT))], "different strides"),
        ([Concatenation("a", ())], "reads"),
        ([Convolution("a", INPUT, 8, 1)], "ends in 8 channels, but 1 anchors and 2 classes need 7"),
    ],
)
def test_lists_that_are_no_detector_are_refused(layers: list[Layer], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Detector(DetectorSpec(YoloV2Config(), ("cat", "dog"), ((1.0, 1.0),)), layers)
