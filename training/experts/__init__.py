"""The shipped experts: the recipe of one MiLoRA adapter a domain of the demo world, and their forward pass."""
