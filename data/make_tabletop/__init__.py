"""Makes the scene that ships with kinosplat: a path-traced, moving tabletop with exact geometry.

To remake `data/tabletop/` from nothing (Python 3.11, Linux, about half an hour on two cores):

    pip install bpy==4.5.3 av pillow numpy
    cd data
    python -m make_tabletop --renders RENDERS --output tabletop

Nothing random is unseeded, so the same version of Blender gives the same pictures. A render that was interrupted goes
on where it stopped: pictures already in RENDERS are kept, so empty it after changing the scene.

    textures    patterns as functions of (u, v), turned into pictures
    shapes      triangle meshes with (u, v), made in numpy
    motions     where each object is, and how it deforms, at a time
    stage       the list of objects: what stands on the table
    cameras     the 24 cameras of the rig
    blender     the stage as a Blender scene, and the renderer's settings
    render      the loop over frames and cameras
    truth       ground-truth points and depth maps from the meshes alone
    encode      pictures to video, and cameras.json
    object_set  the same stage as a NeRF-synthetic data set (`--object`)
"""
