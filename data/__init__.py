"""The scene that ships with the project, and the registry of known scenes."""
