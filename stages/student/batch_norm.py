"""Batch norm over the slices of all ranks: the statistics of the whole batch, and so the network of one process."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stages.networks.network import Detector


def synchronise_batch_norm(detector: Detector) -> None:
    """Replace every batch norm by one that takes its statistics from all ranks; parameters and buffers are kept.

    On CUDA that is torch's own SyncBatchNorm, which refuses the CPU; there it is the one below.
    """
    if next(detector.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(detector)  # type: ignore[no-untyped-call]
        return
    for _, block in detector.convolutions():
        if block.norm is not None:
            block.norm = SynchronisedBatchNorm2d.of(block.norm)


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose mean and variance in training are those of all ranks' pictures. x_BCHW, any B on each rank."""

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> "SynchronisedBatchNorm2d":
        """The same layer, with the very parameters and buffers."""
        layer = cls(norm.num_features, norm.eps, norm.momentum)
        layer.weight, layer.bias = norm.weight, norm.bias
        layer.running_mean, layer.running_var = norm.running_mean, norm.running_var
        layer.num_batches_tracked = norm.num_batches_tracked
        return layer

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x_BCHW)
        wide_BCHW = x_BCHW.to(torch.promote_types(x_BCHW.dtype, torch.float32))
        own_var_C, own_mean_C = torch.var_mean(wide_BCHW, dim=(0, 2, 3), correction=0)
        cells = wide_BCHW.new_tensor([wide_BCHW.numel() // self.num_features])
        parts_RN: Tensor = _Gathered.apply(torch.cat([own_mean_C, own_var_C, cells]))
        mean_RC, var_RC, cells_R1 = torch.split(parts_RN, [self.num_features, self.num_features, 1], dim=1)
        # Chan, Golub & LeVeque (1979): no difference of large sums, as E[x²] − E[x]² is
        total = cells_R1.sum()
        mean_C = (cells_R1 * mean_RC).sum(0) / total
        var_C = (cells_R1 * (var_RC + (mean_RC - mean_C).square())).sum(0) / total
        self._follow(mean_C.detach(), (var_C * total / (total - 1)).detach())
        scale_C = self.weight * (var_C + self.eps).rsqrt()
        shift_C = self.bias - mean_C * scale_C
        y_BCHW: Tensor = wide_BCHW * scale_C[:, None, None] + shift_C[:, None, None]
        return y_BCHW.to(x_BCHW.dtype)

    def _follow(self, mean_C: Tensor, var_C: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(var_C.to(self.running_var.dtype), self.momentum)
        self.num_batches_tracked.add_(1)


class _Gathered(torch.autograd.Function):
    """[N] of every rank to [R, N] on every rank; backwards, what any rank's loss owes to this rank's [N]."""

    @staticmethod
    def forward(ctx: Any, own_N: Tensor) -> Tensor:
        parts = [torch.empty_like(own_N) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own_N.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient_RN = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient_RN)
        return gradient_RN[dist.get_rank()]
