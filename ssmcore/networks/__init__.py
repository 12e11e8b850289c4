"""Networks: an encoder, a stack of any blocks, a head."""

from ssmcore.networks.classifier import SequenceClassifier
from ssmcore.networks.language import LanguageModel
from ssmcore.networks.presets import griffin, mamba

__all__ = ["LanguageModel", "SequenceClassifier", "griffin", "mamba"]
