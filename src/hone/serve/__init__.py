"""A server that speaks OpenAI's API and batches the requests that are under way at the same time."""

from hone.serve.app import ServeSettings, listen, make_server, serve

__all__ = ["ServeSettings", "listen", "make_server", "serve"]
