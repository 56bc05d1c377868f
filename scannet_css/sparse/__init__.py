"""Sparse tensors and sparse convolution, with MinkowskiEngine's semantics; see docs/sparse.md."""

from scannet_css.sparse.modules import BatchNorm, Conv3d, ConvTranspose3d
from scannet_css.sparse.tensor import SparseTensor

__all__ = ["BatchNorm", "Conv3d", "ConvTranspose3d", "SparseTensor"]
