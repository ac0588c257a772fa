"""Networks in formats that run elsewhere: ONNX and NIR, checked before they are handed over."""

from hoplens.export.events import EventCost, event_cost
from hoplens.export.int8_onnx import Int8Export, export_int8
from hoplens.export.latency import measure_latency
from hoplens.export.nir_file import NirExport, export_nir
from hoplens.export.nir_simulation import simulate_nir
from hoplens.export.onnx_file import OnnxExport, export_onnx

__all__ = [
    "EventCost", "Int8Export", "NirExport", "OnnxExport", "event_cost", "export_int8", "export_nir",
    "export_onnx", "measure_latency", "simulate_nir",
]  # fmt: skip
