"""``Graph``: collects an ONNX model over a ``PackedBatch``, and runs it on one thread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

CONTRIB = "com.microsoft"
"""The domain of ONNX Runtime's own operators: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md"""

OPSET, IR_VERSION = 18, 9

WARNINGS_OFF = 3  # of ONNX Runtime's log levels

MIN_FILE_BYTES = 1 << 16
"""The least bytes of a constant in a file: ONNX Runtime reads the constants that decide shapes from the model."""


class Graph:
    """Collects the nodes and the constants of an ONNX graph. Tensors are referred to by name.

    ``folder``: where large constants are written, each to a file of its own, until the session is made. Within the
    model they would be in memory three times meanwhile: here, in its bytes, and in ONNX Runtime.
    """

    def __init__(self, folder: Path) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self._folder = folder

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        """Adds a constant, unless there is one with this name. Returns the name. Raises OSError if its file cannot be
        written."""
        if name not in self.constants:
            # ascontiguousarray makes a vector of a scalar.
            value = np.ascontiguousarray(value).reshape(value.shape)
            is_large = value.nbytes >= MIN_FILE_BYTES
            self.constants[name] = (
                _in_file(self._folder / name, value) if is_large else numpy_helper.from_array(value, name)
            )
        return name

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Adds a node with one output. Returns the name of the output."""
        return self.nodes_of(operator, inputs, [output], **attributes)[0]

    def nodes_of(
        self, operator: str, inputs: list[str], outputs: list[str], domain: str = "", **attributes: Any
    ) -> list[str]:
        """Adds a node with several outputs. Returns their names."""
        self.nodes.append(helper.make_node(operator, inputs, outputs, domain=domain, **attributes))
        return outputs

    def session(self, hidden: int) -> onnxruntime.InferenceSession:
        """Returns a session of the graph, which computes on the calling thread. Its inputs are the fields of
        ``PackedBatch``; its output ``hidden`` is float32 [T, ``hidden``]. The folder is needed no longer then."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = WARNINGS_OFF
        options.enable_mem_pattern = False  # plans memory for each shape, and every batch has another
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(self._folder))
        return onnxruntime.InferenceSession(self._serialised(hidden), options, providers=["CPUExecutionProvider"])

    def _serialised(self, hidden: int) -> bytes:
        info = helper.make_tensor_value_info
        inputs = [
            info("token_ids", TensorProto.INT64, ["T"]),
            info("positions", TensorProto.INT64, ["T"]),
            info("lengths", TensorProto.INT32, ["B"]),
            info("padded_rows", TensorProto.INT64, ["B", "S"]),
            info("packed_places", TensorProto.INT64, ["T"]),
        ]
        outputs = [info("hidden", TensorProto.FLOAT, ["T", hidden])]
        model = helper.make_model(
            helper.make_graph(self.nodes, "model", inputs, outputs, list(self.constants.values())),
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)],
            ir_version=IR_VERSION,
        )
        serialised: bytes = model.SerializeToString()
        return serialised


def _in_file(path: Path, value: NDArray[Any] | np.generic) -> TensorProto:
    """Writes ``value`` to a file. Returns the tensor that refers to it, which has the file's name."""
    value.tofile(path)
    tensor = TensorProto(name=path.name, dims=value.shape, data_type=helper.np_dtype_to_tensor_dtype(value.dtype))
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=path.name)
    return tensor
