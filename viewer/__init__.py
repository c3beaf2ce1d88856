"""The live viewer: a page in the browser, pictures from the rasterizer on the machine that holds the scene.

`subject.py` says what can be looked at, `server.py` opens the page. Nothing here is needed to train or to render files;
only `server.py`, `wire.py` and `controls/` import viser, the package of the extra `viewer`.
"""
