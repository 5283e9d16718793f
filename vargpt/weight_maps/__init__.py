"""Published weights under our names, and back: maps are data, one file per family."""

from vargpt.weight_maps.base import Constant, Rename, WeightMap

__all__ = ["Constant", "Rename", "WeightMap"]
