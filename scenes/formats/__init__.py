"""One reader a format: `matches(root)` says whether a folder looks like it, `read(root, options)` reads it into a
Capture.
"""
