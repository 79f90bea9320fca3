"""Which backbones and adapters exist, whether they are intact, and how they are loaded.

`manifest`, `registry`, `publish`, `fingerprint` and `convert` need no torch; `adapters` and `backbone` do.
"""
