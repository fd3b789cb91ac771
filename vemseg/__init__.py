"""vemseg: self-supervised segmentation of organelles in volume electron microscopy.

The rooms import downwards only (``tests/test_rooms.py`` holds the table of floors):

    roof     cli         commands: parse, call one pipeline function, print
    floor 5  pipeline    one function per verb: open, compute, write
    floor 4  training    objective + FOV stream + schedule -> checkpoints
             dense       encoder x placement x volume -> stream of (Box, vectors)
             clustering  vectors -> class scores
             datasets    archives and phantoms -> volumes with reference labels
    floor 3  models      encoders and objectives, by name
             fov         where training looks: sampling and augmentation
             features    vectors on a lattice, on disk
    floor 2  volume      voxels on disk: TIFF, OME-Zarr; voxel size, intensities
             run         directories that explain themselves; outputs that appear whole
             catalog     what can be fetched or ships with the package
             blocks      read, compute, write block by block: in overlap, resumable
    floor 1  context     device, threads, memory, progress and stopping, handed down whole
             files       files that appear whole or not at all
             tiling      placements: pure index arithmetic
             metrics     contingency tables -> Dice, matching, merging
             drawing     arrays -> figures
             phantom     a procedural cell with exact labels
             recipe      frozen settings of one method
             resources   the memory and cores this process may use
    floor 0  geometry    Box, axis order, nanometres
             errors      what can go wrong, and its exit code

Axes are z, y, x everywhere; sizes are voxels unless a name says ``nm``.
"""

__version__ = "0.1.0"
