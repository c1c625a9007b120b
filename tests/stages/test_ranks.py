"""Ranks that train together take the very steps of one process: gradients, statistics, weights and figures agree."""

import numpy as np
import pytest
import torch.distributed as dist

from stages.student.rank_errors import LostRankError
from stages.student.ranks import GroupedRanks, Ranks
from tests.ranks import run_forked

COMMON = """
from contextlib import contextmanager
from data.errors import RequestError, WorkLeftError
from stages.networks.f_yolo import FYoloConfig
from stages.networks.model import build_detector
from stages.networks.spec import own_spec
from stages.student.objective import ObjectiveConfig
from stages.student.ranks import Ranks, joined_ranks
from stages.student.samples import Batch
from stages.student.trainer import ALIKE, OptimiserConfig, Trainer

CPU = torch.device("cpu")

def trainer(ranks, config=OptimiserConfig(), synchronised=True):
    spec = own_spec("f-yolo", ("a", "b"), FYoloConfig(width=0.05))
    detector = build_detector(spec, torch.Generator().manual_seed(0)).double()
    return Trainer(detector, ObjectiveConfig(), config, device=CPU, precision="float32", ranks=ranks,
                   synchronised=synchronised)

def batch(labelled, valid, seed, chosen=slice(None)):
    "Pictures, some annotated and some with soft labels; `chosen` of them."
    draw, count = torch.Generator().manual_seed(seed), len(labelled)
    boxes = torch.rand(count, 2, 4, generator=draw) * 0.4 + 0.2
    teacher = torch.rand(count, 5, 7, 2, 2, generator=draw)
    pictures = torch.rand(count, 3, 64, 64, generator=draw, dtype=torch.float64)
    labels = torch.randint(0, 2, (count, 2), generator=draw)
    flags, weights = torch.tensor(labelled, dtype=torch.bool), torch.tensor(valid, dtype=torch.float32)
    chosen_parts = [part[chosen] for part in (pictures, boxes, labels, flags)]
    return Batch(*chosen_parts, teacher[chosen][None], weights[chosen][None], 0, 0, ())
"""

GRADIENTS = """
def close(found, expected, what):
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9, msg=lambda text: f"{what}: {text}")

# labelled, with soft labels: rank r of R has every R-th of them
CASES = {
    "slices of two sizes": ([1, 1, 0, 1, 0], [1, 0, 1, 1, 1]),
    "no labelled picture on rank 1": ([1, 0, 1, 0, 1], [1, 1, 1, 1, 1]),
    "no soft labels on rank 1": ([1, 1, 1, 1], [1, 0, 1, 0]),
    "nothing at all on rank 1": ([1, 0, 1, 0], [1, 0, 1, 0]),
    "nothing at all on rank 0": ([0, 1, 0, 1, 0], [0, 1, 0, 1, 0]),
    "nothing anywhere": ([0, 0, 0], [0, 0, 0]),
}

def work(rank):
    with joined_ranks() as ranks:
        assert (ranks.rank, ranks.size, ranks.first) == (rank, SIZE, rank == 0)
        together, alone = trainer(ranks), trainer(Ranks())
        for step, (name, (labelled, valid)) in enumerate(CASES.items()):
            whole = batch(labelled, valid, step)
            mine = batch(labelled, valid, step, slice(rank, None, SIZE))
            said = together.step(mine, 1e-3, prior_box=step == 0, whole=len(labelled))
            expected = alone.step(whole, 1e-3, prior_box=step == 0)
            for (place, one), other in zip(alone.detector.named_parameters(), together.detector.parameters()):
                close(other.grad, one.grad, f"{name}, gradient of {place}")
            said = ranks.sum_named(said, ALIKE)
            assert said.keys() == expected.keys(), (name, said, expected)
            for term, value in expected.items():
                assert abs(said[term] - value) <= 1e-5 * max(1, abs(value)), (name, term, said[term], value)
        for place, value in alone.detector.state_dict().items():
            close(together.detector.state_dict()[place], value, place)
        weights = torch.cat([value.detach().flatten() for value in together.detector.parameters()])
        assert len(set(ranks.gather(weights.numpy().tobytes()))) == 1, "the ranks' weights differ in some bit"

for SIZE in (2, 3):
    assert on_ranks(SIZE, work) == [0] * SIZE
"""

LOCAL_STATISTICS = """
def work(rank):
    with joined_ranks() as ranks:
        together, alone = trainer(ranks, synchronised=False), trainer(Ranks())
        labelled = [1, 1, 0, 1, 0]
        said = together.step(batch(labelled, labelled, 0, slice(rank, None, 2)), 1e-3, prior_box=True, whole=5)
        assert said["total"] != alone.step(batch(labelled, labelled, 0), 1e-3, prior_box=True)["total"]
        # without batch norm's part in it the sum over the slices is the whole's
        for each in (together, alone):
            each.network.eval()
            each.network.train = lambda: None
        together.detector.load_state_dict({
            name: value if "running" not in name else torch.full_like(value, 0.5)
            for name, value in alone.detector.state_dict().items()
        })
        alone.detector.load_state_dict(together.detector.state_dict())
        together.step(batch(labelled, labelled, 1, slice(rank, None, 2)), 1e-3, prior_box=True, whole=5)
        alone.step(batch(labelled, labelled, 1), 1e-3, prior_box=True)
        for one, other in zip(alone.detector.parameters(), together.detector.parameters()):
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-8, atol=1e-10)

assert on_ranks(2, work) == [0, 0]
"""

NOT_FINITE = """
def work(rank):
    with joined_ranks() as ranks:
        it = trainer(ranks, OptimiserConfig(ema_decay=0.9))
        assert (it.ema is not None) == (rank == 0)
        before = {name: value.clone() for name, value in it.detector.named_parameters()}
        bad = batch([1, 1], [1, 1], 0, slice(rank, None, 2))
        if rank == 1:
            bad.teachers_SBAEHW[:] = float("nan")
        try:
            it.step(bad, 1e-3, prior_box=False, whole=2)
        except WorkLeftError as error:
            assert "not finite" in str(error) and "distillation/objectness nan" in str(error), error
            assert len(set(ranks.gather(str(error)))) == 1
        else:
            raise AssertionError("the loss was taken for finite")
        assert all(torch.equal(value, before[name]) for name, value in it.detector.named_parameters())

assert on_ranks(2, work) == [0, 0]
"""

TELLING = """
def work(rank):
    with joined_ranks() as ranks:
        assert ranks.gather(("rank", rank)) == [("rank", 0), ("rank", 1), ("rank", 2)]
        assert ranks.sum(0.1 * rank) == 0.1 + 0.2
        assert ranks.any(rank == 2) and not ranks.any(False)
        assert ranks.sum_named({"a": 1, f"b{rank}": rank, "same": 7}, {"same"}) == {
            "a": 3, "b0": 0, "b1": 1, "b2": 2, "same": 7
        }
        assert ranks.agree(lambda: rank) == rank
        for failing, error, kind, text in (
            ((0, 1, 2), RequestError("no"), RequestError, "no"),
            ((1, 2), WorkLeftError("no"), WorkLeftError, "rank 1: no"),
            ((2,), OSError(5, "broken"), WorkLeftError, "rank 2: [Errno 5] broken"),
        ):
            def broken():
                if rank in failing:
                    raise error
            try:
                ranks.agree(broken)
            except (RequestError, WorkLeftError, OSError) as raised:
                assert raised is error if rank == failing[0] else (type(raised), str(raised)) == (kind, text), raised
            else:
                raise AssertionError("no error")

assert on_ranks(3, work) == [0, 0, 0]
"""

LOST = """
def work(rank):
    with joined_ranks() as ranks:
        it = trainer(ranks)
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            it.step(batch([1, 1], [1, 1], 0, slice(rank, None, 2)), 1e-3, prior_box=False, whole=2)
        except WorkLeftError as error:
            assert "rank 0 no longer reaches the others" in str(error), error
            os._exit(1)

assert on_ranks(2, work) == [1, -signal.SIGKILL]
"""

LOST_BACKWARDS = """
def work(rank):
    with joined_ranks() as ranks:
        it = trainer(ranks, synchronised=False)  # nothing is exchanged before the gradients are
        if rank == 1:
            next(it.detector.parameters()).register_hook(lambda gradient: os.kill(os.getpid(), signal.SIGKILL))
        try:
            it.step(batch([1, 1], [1, 1], 0, slice(rank, None, 2)), 1e-3, prior_box=False, whole=2)
        except WorkLeftError as error:
            assert "rank 0 no longer reaches the others" in str(error), error
            os._exit(1)

assert on_ranks(2, work) == [1, -signal.SIGKILL]
"""

BROKEN = """
FAULT = "CUDA error: an illegal memory access was encountered"

def work(rank):
    with joined_ranks() as ranks:
        it = trainer(ranks)

        def broken(*given):
            raise RuntimeError(FAULT)

        if rank == 1:
            it.detector.convolutions()[0][1].register_forward_hook(broken)
        try:
            it.step(batch([1, 1], [1, 1], 0, slice(rank, None, 2)), 1e-3, prior_box=False, whole=2)
        except RuntimeError as error:
            if rank == 1:
                assert type(error) is RuntimeError and str(error) == FAULT, error
            else:
                assert isinstance(error, WorkLeftError) and "rank 0 no longer reaches the others" in str(error), error
            os._exit(10 + rank)

assert on_ranks(2, work) == [10, 11]
"""

GLOO = "[/__w/pytorch/pytorch/third_party/gloo/gloo/transport/tcp/"
NCCL = "NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.cpp:94, "


def require(source: str) -> None:
    result = run_forked(COMMON + source)
    assert result.returncode == 0, result.stderr


def test_the_gradients_of_all_ranks_are_those_of_one():
    require(GRADIENTS)


def test_without_synchronised_statistics_only_batch_norm_differs():
    require(LOCAL_STATISTICS)


def test_a_loss_that_is_not_finite_on_one_rank_stops_all_before_their_weights_are_touched():
    require(NOT_FINITE)


def test_what_the_ranks_tell_one_another():
    require(TELLING)


def test_a_rank_that_dies_leaves_none_waiting():
    require(LOST)


def test_a_rank_that_dies_while_gradients_are_exchanged_leaves_none_waiting():
    require(LOST_BACKWARDS)


def test_an_error_of_one_rank_stays_what_it_is_and_the_others_lose_that_rank():
    require(BROKEN)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(GLOO + "pair.cc:545] Read error [127.0.0.1]:5: Connection reset by peer."),
        RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.1]:5"),
        RuntimeError(GLOO + "unbound_buffer.cc:81] Timed out waiting 7200000ms for recv operation to complete"),
        dist.DistNetworkError("The client socket has timed out"),
        dist.DistStoreError("wait timeout"),
        dist.DistBackendError(NCCL + "remote process exited or there was a network error, NCCL version 2.27.5"),
        dist.DistBackendError("NCCL communicator was aborted on rank 0."),
    ],
)
def test_a_broken_connection_is_a_lost_rank(error: Exception):
    with (
        pytest.raises(LostRankError, match=r"rank 0 no longer reaches the others .*--resume"),
        GroupedRanks(0, 2).exchanging(),
    ):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("The size of tensor a (2) must match the size of tensor b (3)"),
        RuntimeError(
            "[enforce fail at ../third_party/gloo/gloo/transport/tcp/pair.cc:454] op.preamble.length <= op.nbytes"
        ),
        dist.DistBackendError(
            NCCL + "unhandled cuda error (run with NCCL_DEBUG=INFO for details), NCCL version 2.27.5"
        ),
        dist.DistBackendError(NCCL + "invalid usage (run with NCCL_DEBUG=WARN for details), NCCL version 2.27.5"),
    ],
)
def test_a_fault_of_this_rank_is_no_lost_rank(error: Exception):
    with pytest.raises(type(error)) as raised, GroupedRanks(0, 2).exchanging():
        raise error
    assert raised.value is error


@pytest.mark.parametrize(("size", "pictures"), [(1, 7), (2, 7), (3, 7), (4, 4), (8, 64)])
def test_every_picture_of_a_batch_is_of_one_rank(size: int, pictures: int):
    batch = np.random.default_rng(0).permutation(100)[:pictures]
    slices = [Ranks(rank, size).slice_of(batch) for rank in range(size)]
    assert sorted(np.concatenate(slices).tolist()) == sorted(batch.tolist())
    assert max(map(len, slices)) - min(map(len, slices)) <= 1


def test_a_machine_is_shared_by_its_ranks():
    assert Ranks(5, 8, 1, 4).share_of(16) == 4
    assert Ranks(5, 8, 1, 4).share_of(3) == 1
