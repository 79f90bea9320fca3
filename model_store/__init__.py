"""Which backbones and adapters exist, whether they are intact, and how they are loaded.

`adapters`, `adapter_check`, `backbone` and, while it converts, `convert` need torch; the rest does not.
"""
