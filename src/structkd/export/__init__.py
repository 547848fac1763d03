"""Export of trained models: folders that annotate text with numpy and onnxruntime alone."""

from structkd.export.folder import LARGEST_LOSS, export

__all__ = ["LARGEST_LOSS", "export"]
