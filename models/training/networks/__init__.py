"""The networks, as torch modules. Each module docstring gives input and output shapes."""
