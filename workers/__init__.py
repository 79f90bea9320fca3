"""The worker process: takes queued videos, decodes them in a sandbox and answers with the resident model.

Importing this package is cheap on purpose: the decoding child imports it too, and must stay free of torch.
"""
