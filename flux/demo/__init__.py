"""A test picture, published by Flux itself."""
