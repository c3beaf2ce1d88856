"""Tests of the render room; a package, so that `render.scenes` is the one here and not the room itself."""
