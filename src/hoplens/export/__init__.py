"""Networks in formats that run elsewhere: ONNX and NIR, checked before they are handed over."""

from hoplens.export.onnx_file import OnnxExport, export_onnx

__all__ = ["OnnxExport", "export_onnx"]
