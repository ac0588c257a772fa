"""Networks in formats that run elsewhere: ONNX and NIR, checked before they are handed over."""

from hoplens.export.events import EventCost, event_cost
from hoplens.export.nir_file import NirExport, export_nir
from hoplens.export.nir_simulation import simulate_nir
from hoplens.export.onnx_file import OnnxExport, export_onnx

__all__ = [
    "EventCost",
    "NirExport",
    "OnnxExport",
    "event_cost",
    "export_nir",
    "export_onnx",
    "simulate_nir",
]
