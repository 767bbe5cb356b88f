"""Messages, manifests, decoding of media, batching and the cache of features."""
