"""From a trained network to the int8 graph that ships: ONNX export, equalization, quantization."""
