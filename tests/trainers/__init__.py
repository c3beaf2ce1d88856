"""Tests of the trainers room; a package, so that its helpers do not collide with those of other rooms."""
