"""The recipe of the shipped demo backbone: ``python -m training.backbone --out DIR``.

A small ``video_llama_3`` of our own is trained from nothing on the ``general`` part of the demo world, exported as a
folder that the stock ``transformers`` classes load without custom code, and frozen for ever.
"""
