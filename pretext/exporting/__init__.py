"""Write an encoder for other libraries: `python -m pretext export`.

writing       `export_encoder`: write, reload, compare, rename, and the model card
prepared      `Prepared`, what each format hands over: how to write a file, and the lines that load it
timm_format   keys of timm's networks
torchvision_format  keys of torchvision's networks
plain_format  keys of the encoder's own network, as a safetensors file
graph_formats TorchScript and ONNX, which hold the network too
checking      reload a file by the lines that a user types, and compare its outputs with the encoder's
differences   how far two outputs are from each other, and what is allowed
card          the model card
command       the command line

To add a format, add a function that returns a `Prepared`, and a line in `FORMATS` of writing.py.
"""
