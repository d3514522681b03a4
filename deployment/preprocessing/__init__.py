"""Image preprocessing as ONNX operations, for files that take an image's own pixels."""
