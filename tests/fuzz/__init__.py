"""Fuzz targets: inputs grown from the hostile corpus by what they reach in the code. Not run by the tests."""
