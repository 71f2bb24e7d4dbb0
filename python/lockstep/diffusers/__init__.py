"""Image generation workers: diffusers pipelines over the orchestrator's shared model cache.

Importing this package imports neither torch nor the native runtime; each module imports what it
needs. `python -m lockstep.diffusers` is the worker process, README.md lists the rest.
"""
