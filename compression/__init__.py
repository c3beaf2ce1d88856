"""From a trained scene to a small file, and to the formats that other tools open."""
