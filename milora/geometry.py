"""The geometry of a convolution that experts have to follow."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from milora.errors import UnsupportedLayer

_CONVOLUTIONS = {nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}


@dataclass(frozen=True)
class ConvGeometry:
    """Kernel, stride, padding and dilation of a Conv2d or Conv3d.

    ``pads`` is the zero padding in the order of `torch.nn.functional.pad`, last dimension first.
    """

    channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    pads: tuple[int, ...]

    @classmethod
    def of(cls, name: str, base: nn.Module) -> ConvGeometry | None:
        """The geometry of a base layer, ``None`` for a Linear.

        Raises:
            UnsupportedLayer: any other module type, a grouped convolution or one that does not pad with
            zeros.
        """
        if isinstance(base, nn.Linear):
            return None
        if not isinstance(base, tuple(_CONVOLUTIONS)):
            kind = type(base).__name__
            raise UnsupportedLayer(f"{name} is a {kind}; experts go on Linear, Conv2d and Conv3d only")
        if base.groups != 1 or base.padding_mode != "zeros":
            kind = f"{type(base).__name__} with groups={base.groups}, padding_mode={base.padding_mode!r}"
            raise UnsupportedLayer(f"{name} is a {kind}; only 1 and 'zeros' are supported")
        pads = tuple(base._reversed_padding_repeated_twice)
        return cls(base.in_channels, base.kernel_size, base.stride, base.padding, base.dilation, pads)

    def whole_input(self, x: Tensor) -> bool:
        """True when the kernel covers the whole of x (N, C, *space): one output position, no padding."""
        return tuple(x.shape[2:]) == self.kernel and not any(self.pads) and set(self.dilation) == {1}

    def kernel_of(self, A: Tensor) -> Tensor:
        """A (R, C·prod(kernel)) as a convolution's weight (R, C, *kernel)."""
        return A.view(self.kernel_shape(A.shape[0]))

    def kernel_shape(self, rank: int) -> tuple[int, ...]:
        """(rank, C, *kernel), the shape of A as a file holds it."""
        return (rank, self.channels, *self.kernel)

    def pointwise(self, B: Tensor) -> Tensor:
        """B (out, R) as a 1×1 convolution's weight (out, R, 1, …)."""
        return B.view(*B.shape, *(1 for _ in self.kernel))

    def convolve(self, x: Tensor, A: Tensor) -> Tensor:
        """x (N, C, *space) → (N, R, *space') with A (R, C·prod(kernel)) in the base's geometry."""
        convolution = F.conv2d if len(self.kernel) == 2 else F.conv3d
        return convolution(x, self.kernel_of(A), None, self.stride, self.padding, self.dilation)

    def mean_patch(self, x: Tensor) -> Tensor:
        """The mean input patch over all output positions: (N, C, *space) → (N, C·prod(kernel))."""
        windows = F.pad(x, self.pads) if any(self.pads) else x
        dims = len(self.kernel)
        for axis in range(dims):
            span = (self.kernel[axis] - 1) * self.dilation[axis] + 1
            windows = windows.unfold(2 + axis, span, self.stride[axis])[..., :: self.dilation[axis]]
        return windows.mean(dim=tuple(range(2, 2 + dims))).flatten(1)
