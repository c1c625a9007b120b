"""The teacher as it labels: in inference mode, and with classes chosen by name."""

import numpy as np
import pytest
import torch

from data.errors import RequestError, WorkLeftError
from data.store.schema import FmNmsAttributes
from stages.label.teacher import Teacher, choose_classes
from stages.networks.model import build_detector
from stages.networks.network import Detector
from stages.networks.region import activate
from stages.networks.spec import own_spec
from stages.networks.yolov2 import YoloV2Config

OFF = FmNmsAttributes("off", 3, 0.0)
CLASSES = ("cat", "dog", "person")
CPU = torch.device("cpu")


@pytest.fixture
def detector() -> Detector:
    made = build_detector(own_spec("yolov2", CLASSES, YoloV2Config(0.05)), torch.Generator().manual_seed(1))
    with torch.no_grad():  # statistics that differ from a batch's own, as a trained network's do
        for _, block in made.convolutions():
            if block.norm is not None:
                block.norm.running_var.fill_(0.5)
    return made


def _pictures(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(2))


def test_a_detector_left_in_training_mode_still_labels_in_evaluation_mode(detector: Detector) -> None:
    detector.train()
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    teacher = Teacher(detector, device=CPU, fm_nms=OFF)
    together = teacher.label(_pictures(4)).soft_labels
    alone = torch.cat([teacher.label(picture[None]).soft_labels for picture in _pictures(4)])
    # With batch statistics a picture's labels would depend on its neighbours by far more than rounding.
    torch.testing.assert_close(together, alone, atol=2e-3, rtol=2e-3)
    assert all(torch.equal(before[name], value) for name, value in detector.state_dict().items())
    with torch.no_grad():
        live = activate(detector.eval()(_pictures(4)), 5, 3)
    torch.testing.assert_close(together.float(), live, atol=5e-3, rtol=5e-3)


def test_chosen_classes_keep_every_score(detector: Detector) -> None:
    everything = Teacher(detector, device=CPU, fm_nms=OFF).label(_pictures(2)).soft_labels.float()
    chosen = (
        Teacher(detector, device=CPU, fm_nms=OFF, classes=("person", "cat")).label(_pictures(2)).soft_labels.float()
    )
    assert chosen.shape[2] == 7
    scores, wanted = chosen[:, :, 4:5] * chosen[:, :, 5:], everything[:, :, 4:5] * everything[:, :, 5:]
    torch.testing.assert_close(scores, wanted[:, :, [2, 0]], atol=1e-3, rtol=4e-3)
    torch.testing.assert_close(chosen[:, :, 5:].sum(2), torch.ones(2, 5, 2, 2), atol=2e-3, rtol=0)
    assert torch.equal(chosen[:, :, :4], everything[:, :, :4])


def test_all_classes_in_another_order_are_only_reordered(detector: Detector) -> None:
    everything = Teacher(detector, device=CPU, fm_nms=OFF).label(_pictures(1)).soft_labels
    turned = Teacher(detector, device=CPU, fm_nms=OFF, classes=("dog", "person", "cat")).label(_pictures(1)).soft_labels
    assert torch.equal(turned[:, :, [0, 1, 2, 3, 4, 7, 5, 6]], everything)


def test_classes_that_are_not_the_teachers_are_named() -> None:
    with pytest.raises(RequestError, match=r"bird.*cat, dog, person"):
        choose_classes(CLASSES, ("cat", "bird"))
    with pytest.raises(RequestError, match="twice"):
        choose_classes(CLASSES, ("cat", "cat"))


def test_feature_maps_are_those_of_the_named_layers(detector: Detector) -> None:
    teacher = Teacher(detector, device=CPU, fm_nms=OFF, taps=("conv3", "conv20"))
    output = teacher.label(_pictures(1))
    with torch.no_grad():
        _, live = detector.eval().forward_with_taps(_pictures(1), ("conv3", "conv20"))
    assert output.features.keys() == {"conv3", "conv20"}
    for tap, value in output.features.items():
        assert value.dtype == torch.float16
        np.testing.assert_allclose(value.float().numpy(), live[tap].numpy(), atol=5e-3, rtol=5e-3)


def test_an_output_that_is_not_finite_is_an_error_and_no_label(detector: Detector) -> None:
    with torch.no_grad():
        detector.convolutions()[0][1].convolution.weight.fill_(float("inf"))
    with pytest.raises(WorkLeftError, match="not finite in float32"):
        Teacher(detector, device=CPU, fm_nms=OFF).label(_pictures(1))
