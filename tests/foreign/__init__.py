"""Programs as people write them in PyTorch: what the graph tool has to draw, not how it likes it.

Each file has an `example` that returns a function or module, its inputs by name, and names of
their sizes, which are all different.
"""

NAMES = (
    "nano_gpt",
    "bert",
    "llama",
    "vit",
    "siamese",
    "recurrent_loop",
    "scalars",
    "gradient_penalty",
    "sampling",
    "training_step",
)
