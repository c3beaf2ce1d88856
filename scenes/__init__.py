"""Data in: one small reader a format, one Scene type out."""
