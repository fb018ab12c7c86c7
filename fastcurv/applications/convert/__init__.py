"""Conversion of networks from and to other libraries."""
