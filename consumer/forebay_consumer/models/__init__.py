"""The built-in models; the only package of the worker that imports torch or transformers."""
