"""Where frames wait on disk when memory is too small for them."""
