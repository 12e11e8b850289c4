"""The layers: one model a file, its paper cited at the top."""

from ssmcore._options import ParamGroup
from ssmcore.layers.base import Layer
from ssmcore.layers.bidirectional import Bidirectional
from ssmcore.layers.lru import LRU
from ssmcore.layers.lssl import LSSL
from ssmcore.layers.rglru import RGLRU
from ssmcore.layers.s4 import S4
from ssmcore.layers.s4d import S4D
from ssmcore.layers.s5 import S5
from ssmcore.layers.s6 import S6

__all__ = ["LRU", "LSSL", "RGLRU", "S4", "S4D", "S5", "S6", "Bidirectional", "Layer", "ParamGroup"]
